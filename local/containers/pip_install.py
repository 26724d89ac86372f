"""RUN pip install: the one command that an image may run, and the requirements that it names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from local.containers.dockerfile import Instruction
from local.containers.errors import BuildError

_COMMANDS = (
    ["pip", "install"],
    ["pip3", "install"],
    ["python", "-m", "pip", "install"],
    ["python3", "-m", "pip", "install"],
)
_WITHOUT_EFFECT = frozenset(
    {
        "--no-cache-dir",
        "--no-compile",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--break-system-packages",
        "--no-warn-script-location",
        "--prefer-binary",
        "--require-hashes",
        "--no-input",
        "--quiet",
        "-q",
        # What the base image brings: there is no base image here, so it is fetched like the rest.
        "--no-index",
    }
)
"""Options that change neither which packages nor which versions are installed."""
_SOURCES = ("--index-url", "-i", "--extra-index-url")
"""Options that say where pip looks; they are handed on when an environment is made."""


def requirements_of(instruction: Instruction, read: Callable[[str], str]) -> list[str]:
    """The requirement lines of a RUN instruction; `read` gives a file's text by its path in the image.

    Raises:
        BuildError: any other command, or a requirement that is not an exact pin.
    """
    parts = [part for part in shlex.split(instruction.value) if not part.startswith("--mount=type=cache")]
    command = next((command for command in _COMMANDS if parts[: len(command)] == command), None)
    if command is None or "&&" in parts or ";" in instruction.value or "|" in parts:
        raise BuildError(
            f"Dockerfile line {instruction.line}: RUN may only be one `pip install -r FILE` "
            f"without a container engine, got {instruction.value!r}"
        )
    lines: list[str] = []
    rest = iter(parts[len(command) :])
    for part in rest:
        name, equals, value = part.partition("=")
        if part in _WITHOUT_EFFECT:
            continue
        if part in ("-r", "--requirement") or (name == "--requirement" and equals):
            path = value if equals else _next(rest, part, instruction)
            lines.extend(_file(path, read, instruction))
        elif part in _SOURCES:
            lines.append(f"{part} {_next(rest, part, instruction)}")
        elif name in _SOURCES and equals:
            lines.append(f"{name} {value}")
        elif part.startswith("-"):
            raise BuildError(f"Dockerfile line {instruction.line}: pip option {part} is not supported")
        else:
            lines.append(_pin(part, instruction))
    return lines


def _file(path: str, read: Callable[[str], str], instruction: Instruction) -> Iterator[str]:
    text = read(path).replace("\\\n", " ")
    for raw in text.splitlines():
        line = raw.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        option, _, value = (
            line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
        )
        if option in ("-r", "--requirement"):
            yield from _file(str(PurePosixPath(path).parent / value.strip()), read, instruction)
        elif option in _SOURCES:
            yield f"{option} {value.strip()}"
        elif line.startswith("-"):
            raise BuildError(f"{path}: {line!r} is not supported (Dockerfile line {instruction.line})")
        else:
            yield _pin(line.split(" --hash")[0].strip(), instruction)


def _pin(text: str, instruction: Instruction) -> str:
    """A requirement with its exact version: only then can an environment be recognised as the image's."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(f"Dockerfile line {instruction.line}: {error}") from None
    specifiers = list(requirement.specifier)
    if requirement.url or len(specifiers) != 1 or specifiers[0].operator not in ("==", "==="):
        raise BuildError(f"Dockerfile line {instruction.line}: {text!r} is not pinned (name==version)")
    return str(requirement)


def _next(rest: Iterator[str], option: str, instruction: Instruction) -> str:
    value = next(rest, None)
    if value is None:
        raise BuildError(f"Dockerfile line {instruction.line}: pip option {option} needs a value")
    return value
