"""This machine's pip configuration, for the `pip install` of a build: a file, and what it points at.

A build runs in a file system of its own, so an index in a folder, a folder of wheels, a certificate or a
list of constraints that this machine's pip uses is mounted there. Mounts are no part of the image.
"""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_INSIDE = "/run/machine-pip"
_FILE = "file://"
_WHERE_PIP_LOOKS = "/etc/pip.conf"
"""The site-wide file on every Linux. Source: pip.pypa.io/en/stable/topics/configuration."""
_INTERACTIVE = ("editor", "no-input", "no-color")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or folder of this machine, read-only at `target` in the build."""

    source: Path
    target: str

    @property
    def option(self) -> str:
        """As `--volume` takes it."""
        return f"{self.source}:{self.target}:ro"


def machine_settings() -> dict[str, str]:
    """`section.option` and value of this machine's pip, environment variables last and as `global`."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    files: dict[str, str] = {}
    variables: dict[str, str] = {}
    for line in listing.splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            continue
        if name.startswith(":env:."):
            variables[f"global.{name.removeprefix(':env:.')}"] = str(ast.literal_eval(value))
        else:
            files[name] = str(ast.literal_eval(value))
    return {**files, **variables}


def write_settings(settings: Mapping[str, str], path: Path) -> list[Mount]:
    """Write the configuration file of a build to `path`; what to mount, that file included."""
    mounts: dict[Path, str] = {}

    def inside(word: str) -> str:
        is_url = word.startswith(_FILE)
        place = Path(word.removeprefix(_FILE))
        if not place.is_absolute() or not place.exists():
            return word
        # The pages of an index in a folder link to files beside that folder.
        mounted = place.parent if is_url and place.is_dir() else place
        target = mounts.setdefault(mounted, f"{_INSIDE}/{len(mounts)}/{mounted.name}")
        return f"{_FILE if is_url else ''}{target}{f'/{place.name}' if mounted != place else ''}"

    document = configparser.RawConfigParser()
    for name, value in sorted(settings.items()):
        section, _, option = name.partition(".")
        if option in _INTERACTIVE:
            continue
        if not document.has_section(section):
            document.add_section(section)
        document.set(section, option, " ".join(inside(word) for word in value.split()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        document.write(handle)
    return [
        Mount(source=path, target=_WHERE_PIP_LOOKS),
        *(Mount(source=source, target=target) for source, target in mounts.items()),
    ]
