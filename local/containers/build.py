"""Builds an image from a Dockerfile and a context folder, without a container engine.

COPY really copies; RUN may only be `pip install`, whose requirements become the image's environment; FROM is
recorded but brings no files: Python comes from the environment that is made of the requirements.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from local.containers.dockerfile import (
    Instruction,
    assignments,
    exec_form,
    read_dockerfile,
    substitute,
    words,
)
from local.containers.errors import BuildError
from local.containers.ignore import DockerIgnore
from local.containers.image import Image, ImageConfig
from local.containers.pip_install import requirements_of
from local.containers.store import ImageStore


def build(
    *,
    store: ImageStore,
    context: Path,
    dockerfile: Path,
    arguments: Mapping[str, str],
    log: Callable[[str], None],
) -> Image:
    """Build the image of `dockerfile` over `context` and add it to the store.

    Raises:
        BuildError: something that the Dockerfile asks for cannot be honoured; the message names the line.
    """
    if not dockerfile.is_file():
        raise BuildError(f"no Dockerfile at {dockerfile}")
    if not context.is_dir():
        raise BuildError(f"the build context {context} is not a folder")
    store.folder.mkdir(parents=True, exist_ok=True)
    files = Path(tempfile.mkdtemp(prefix="build-", dir=store.folder))
    try:
        stage = _Stage(
            context=context, ignore=DockerIgnore.of(context, dockerfile), files=files, given=dict(arguments)
        )
        for instruction in read_dockerfile(dockerfile.read_text()):
            log(f"{instruction.keyword} {instruction.value}")
            stage.run(instruction)
        return store.add(stage.config(), files)
    finally:
        shutil.rmtree(files, ignore_errors=True)


@dataclass(kw_only=True)
class _Stage:
    """The state that instructions change one after the other."""

    context: Path
    ignore: DockerIgnore
    files: Path
    given: dict[str, str]
    base: str = ""
    workdir: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    before_from: dict[str, str] = field(default_factory=dict)
    build_arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    requirements: list[str] = field(default_factory=list)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(self, instruction: Instruction) -> None:
        if not self.base and instruction.keyword not in ("ARG", "FROM"):
            raise BuildError(f"Dockerfile line {instruction.line}: {instruction.keyword} before FROM")
        getattr(self, f"_{instruction.keyword.lower()}")(instruction)

    def config(self) -> ImageConfig:
        if not self.base:
            raise BuildError("the Dockerfile has no FROM")
        return ImageConfig(
            base=self.base,
            workdir=str(self.workdir),
            entrypoint=self.entrypoint,
            command=self.command,
            environment=self.environment,
            labels=self.labels,
            ports=tuple(self.ports),
            requirements=tuple(dict.fromkeys(self.requirements)),
        )

    @property
    def _variables(self) -> dict[str, str]:
        # ENV wins over ARG of the same name (docs.docker.com/reference/dockerfile, "ARG variables and ENV").
        return {**self.build_arguments, **self.environment}

    def _arg(self, instruction: Instruction) -> None:
        scope = self.build_arguments if self.base else self.before_from
        for part in words(instruction):
            name, equals, default = part.partition("=")
            if name in self.given:
                scope[name] = self.given[name]
            elif equals:
                scope[name] = substitute(default, self._variables if self.base else self.before_from)
            elif self.base and name in self.before_from:
                scope[name] = self.before_from[name]

    def _from(self, instruction: Instruction) -> None:
        if self.base:
            raise BuildError(
                f"Dockerfile line {instruction.line}: a second FROM (multi-stage build) is not supported "
                "without a container engine"
            )
        parts = [part for part in words(instruction) if not part.startswith("--platform=")]
        if len(parts) not in (1, 3) or (len(parts) == 3 and parts[1].upper() != "AS"):
            raise BuildError(f"Dockerfile line {instruction.line}: cannot read FROM {instruction.value!r}")
        self.base = substitute(parts[0], self.before_from)
        if not self.base:
            raise BuildError(
                f"Dockerfile line {instruction.line}: FROM names no image after its ARG is replaced"
            )

    def _label(self, instruction: Instruction) -> None:
        self.labels.update(assignments(instruction, self._variables))

    def _env(self, instruction: Instruction) -> None:
        self.environment.update(assignments(instruction, self._variables))

    def _expose(self, instruction: Instruction) -> None:
        self.ports.extend(substitute(part, self._variables) for part in words(instruction))

    def _entrypoint(self, instruction: Instruction) -> None:
        self.entrypoint = tuple(exec_form(instruction))

    def _cmd(self, instruction: Instruction) -> None:
        self.command = tuple(exec_form(instruction))

    def _workdir(self, instruction: Instruction) -> None:
        self.workdir = self._absolute(substitute(instruction.value, self._variables))
        self._place(self.workdir).mkdir(parents=True, exist_ok=True)

    def _run(self, instruction: Instruction) -> None:
        def read(path: str) -> str:
            place = self._place(self._absolute(path))
            if not place.is_file():
                raise BuildError(
                    f"Dockerfile line {instruction.line}: {path} is not in the image (COPY it before)"
                )
            return place.read_text()

        self.requirements.extend(requirements_of(instruction, read))

    def _copy(self, instruction: Instruction) -> None:
        parts = words(instruction)
        for option in [part for part in parts if part.startswith("--")]:
            if option != "--link":
                raise BuildError(f"Dockerfile line {instruction.line}: COPY {option} is not supported")
        *sources, target = [substitute(part, self._variables) for part in parts if not part.startswith("--")]
        if not sources:
            raise BuildError(f"Dockerfile line {instruction.line}: COPY needs a source and a target")
        found = [place for source in sources for place in self._sources(source, instruction)]
        into_folder = target.endswith("/") or target == "." or len(found) > 1
        destination = self._place(self._absolute(target))
        copied = 0
        for place in found:
            if place.is_dir():
                copied += self._copy_folder(place, destination)
            elif not self.ignore.ignores(place.relative_to(self.context).as_posix()):
                _copy_file(
                    place, destination / place.name if into_folder or destination.is_dir() else destination
                )
                copied += 1
        if not copied:
            raise BuildError(
                f"Dockerfile line {instruction.line}: COPY {' '.join(sources)} "
                "finds no file in the build context"
            )

    def _sources(self, source: str, instruction: Instruction) -> list[Path]:
        relative = os.path.normpath(source.lstrip("/"))
        if relative == ".." or relative.startswith("../"):
            raise BuildError(f"Dockerfile line {instruction.line}: {source} is outside the build context")
        pattern = glob.escape(str(self.context)) + ("" if relative == "." else f"/{relative}")
        found = [Path(match) for match in sorted(glob.glob(pattern, include_hidden=True))]
        if not found:
            raise BuildError(f"Dockerfile line {instruction.line}: {source} is not in the build context")
        return found

    def _copy_folder(self, folder: Path, destination: Path) -> int:
        copied = 0
        for place in sorted(folder.rglob("*")):
            if place.is_dir() and not place.is_symlink():
                continue
            if not self.ignore.ignores(place.relative_to(self.context).as_posix()):
                _copy_file(place, destination / place.relative_to(folder))
                copied += 1
        return copied

    def _absolute(self, path: str) -> PurePosixPath:
        return PurePosixPath(os.path.normpath(self.workdir / path))

    def _place(self, path: PurePosixPath) -> Path:
        return self.files / path.relative_to("/")


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
