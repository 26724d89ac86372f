"""The .dockerignore file of a build context (docs.docker.com/build/concepts/context, "dockerignore")."""

from __future__ import annotations

import re
from pathlib import Path


class DockerIgnore:
    """Says which paths of a context Docker does not see. The last pattern that matches decides."""

    def __init__(self, text: str) -> None:
        self._patterns: list[tuple[re.Pattern[str], bool]] = []
        for raw in text.splitlines():
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            keep = line.startswith("!")
            pattern = line.lstrip("!").strip().strip("/")
            if pattern and pattern != ".":
                self._patterns.append((re.compile(_expression(pattern)), keep))

    @classmethod
    def of(cls, context: Path, dockerfile: Path) -> DockerIgnore:
        """`<Dockerfile>.dockerignore`, else the context's `.dockerignore`, else nothing."""
        for candidate in (dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"):
            if candidate.is_file():
                return cls(candidate.read_text())
        return cls("")

    def ignores(self, path: str) -> bool:
        """Whether a file (path relative to the context, with "/") is left out."""
        ignored = False
        for pattern, keep in self._patterns:
            if pattern.match(path):
                ignored = not keep
        return ignored


def _expression(pattern: str) -> str:
    """A pattern as an expression that also matches everything below what it names."""
    parts = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern):
        parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or _literal(part))
    return f"^{''.join(parts)}(?:/.*)?$"


def _literal(part: str) -> str:
    if part.startswith("[") and part.endswith("]"):
        return "[^" + part[2:] if part.startswith("[^") else part
    return re.escape(part)
