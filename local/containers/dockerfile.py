"""What a Dockerfile says, for the instructions that an image without a container engine can honour.

Everything else is refused with the line that holds it: an instruction that were skipped would give an image
that works here and fails on AWS. Source: docs.docker.com/reference/dockerfile.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from local.containers.errors import BuildError

KNOWN = ("ARG", "FROM", "LABEL", "ENV", "WORKDIR", "COPY", "RUN", "EXPOSE", "ENTRYPOINT", "CMD")
"""The instructions that are honoured."""

_VARIABLE = re.compile(
    r"\\\$|\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:[-+])(?P<word>[^}]*))?\})"
)
_DIRECTIVE = re.compile(r"^#\s*(syntax|escape|check)\s*=\s*(.+)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: its keyword in capitals, the rest of its (joined) line, its first line's number."""

    keyword: str
    value: str
    line: int


def read_dockerfile(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile in their order.

    Raises:
        BuildError: an instruction, a here-document or an escape directive that is not supported.
    """
    instructions: list[Instruction] = []
    pending: list[str] = []
    first = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#"):
            directive = _DIRECTIVE.match(line)
            if directive and directive[1].lower() == "escape" and directive[2].strip() != "\\":
                raise BuildError(f"Dockerfile line {number}: only the escape character \\ is supported")
            continue
        if not line:
            continue
        if not pending:
            first = number
        if line.endswith("\\"):
            pending.append(line[:-1].rstrip())
            continue
        pending.append(line)
        instructions.append(_instruction(" ".join(part for part in pending if part), first))
        pending = []
    if pending:
        instructions.append(_instruction(" ".join(part for part in pending if part), first))
    return instructions


def _instruction(text: str, line: int) -> Instruction:
    keyword, _, value = text.partition(" ")
    keyword = keyword.upper()
    if keyword not in KNOWN:
        raise BuildError(
            f"Dockerfile line {line}: {keyword} is not supported without a container engine; "
            f"supported are {', '.join(KNOWN)}"
        )
    value = value.strip()
    if not value:
        raise BuildError(f"Dockerfile line {line}: {keyword} needs a value")
    if "<<" in value and keyword in ("RUN", "COPY"):
        raise BuildError(f"Dockerfile line {line}: here-documents are not supported")
    return Instruction(keyword=keyword, value=value, line=line)


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replace $NAME, ${NAME}, ${NAME:-word}, ${NAME:+word}; an unset name becomes empty, as in Docker."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "\\$":
            return "$"
        value = variables.get(match["plain"] or match["braced"], "")
        if match["operator"] == ":-":
            return value or match["word"]
        if match["operator"] == ":+":
            return match["word"] if value else ""
        return value

    return _VARIABLE.sub(replace, text)


def words(instruction: Instruction) -> list[str]:
    """The words of an instruction's value: a JSON array or shell words."""
    if instruction.value.startswith("["):
        return exec_form(instruction)
    try:
        return shlex.split(instruction.value)
    except ValueError as error:
        raise BuildError(f"Dockerfile line {instruction.line}: {error} in {instruction.value!r}") from None


def exec_form(instruction: Instruction) -> list[str]:
    """The words of a JSON array: the only form that SageMaker can append its argument to.

    Source: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html ("exec form").
    """
    try:
        value = json.loads(instruction.value)
    except ValueError:
        value = None
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise BuildError(
            f"Dockerfile line {instruction.line}: {instruction.keyword} must be a JSON array "
            '(["python", "-m", ...]), '
            f"got {instruction.value!r}"
        )
    return value


def assignments(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """NAME=value pairs of ENV and LABEL (also the old form `ENV NAME the rest`), variables replaced."""
    parts = words(instruction)
    if "=" not in parts[0]:
        if len(parts) < 2:
            raise BuildError(f"Dockerfile line {instruction.line}: {instruction.keyword} needs NAME=value")
        return {parts[0]: substitute(instruction.value.split(None, 1)[1], variables)}
    pairs = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise BuildError(f"Dockerfile line {instruction.line}: {part!r} is not NAME=value")
        pairs[name] = substitute(value, variables)
    return pairs
