"""The Python environment of an image: one in which every pin of the image is installed, found or made.

Environments that exist already are tried first (the two of the repository), because a second copy of torch
and MONAI costs a gigabyte and minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local.containers.errors import EnvironmentCreationError
from local.containers.image import Image

Log = Callable[[str], None]

REPOSITORY = Path(__file__).resolve().parents[2]
CANDIDATES = (REPOSITORY / ".venv-models", REPOSITORY / ".venv")
"""Environments of the repository that may already hold what an image pins."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


class Environments:
    """Finds or makes environments; new ones go to `<state root>/environments/<hash of the pins>`."""

    def __init__(self, root: Path, candidates: Sequence[Path] = CANDIDATES) -> None:
        self._folder = root / "environments"
        self._candidates = tuple(candidates)

    def for_image(self, image: Image, log: Log) -> Environment:
        """An environment with exactly the pins of the image.

        Raises:
            EnvironmentCreationError: pip failed; the message ends with pip's last lines.
        """
        requirements = image.config.requirements
        for candidate in self._candidates:
            if (candidate / "bin" / "python").exists():
                missing = missing_pins(candidate, requirements)
                if not missing:
                    return Environment(folder=candidate)
                log(f"{candidate.name} does not fit: {_few(missing)}")
        return self._make(requirements, log)

    def _make(self, requirements: Sequence[str], log: Log) -> Environment:
        name = hashlib.sha256(
            "\n".join((sys.version.split()[0], *sorted(requirements))).encode()
        ).hexdigest()[:16]
        folder = self._folder / name
        complete = folder / "complete"
        with self._lock(name):
            if not complete.exists():
                # What an interrupted pip left behind is worth nothing.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                listing = folder / "requirements.txt"
                listing.write_text("".join(f"{line}\n" for line in requirements))
                log(f"making an environment of {len(requirements)} requirements in {folder}")
                _run([sys.executable, "-m", "venv", str(folder)], log)
                pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input"]
                _run([*pip, "--disable-pip-version-check", "--requirement", str(listing)], log)
                missing = missing_pins(folder, requirements)
                if missing:
                    raise EnvironmentCreationError(f"pip did not install what was asked for: {_few(missing)}")
                complete.touch()
        return Environment(folder=folder)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def missing_pins(folder: Path, requirements: Sequence[str]) -> list[str]:
    """The requirements that an environment does not meet, each with what is there instead."""
    site_packages = [str(path) for path in folder.glob("lib/python3*/site-packages")]
    installed = {
        canonicalize_name(distribution.metadata["Name"]): distribution.version
        for distribution in importlib.metadata.distributions(path=site_packages)
    }
    missing = []
    for line in requirements:
        if line.startswith("-"):
            continue
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = installed.get(canonicalize_name(requirement.name))
        if version is None:
            missing.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    return missing


def _few(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return ", ".join(missing[:3]) + more


def _run(command: Sequence[str], log: Log) -> None:
    tail: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if process.stdout is None:  # only for the type: PIPE was asked for
            raise EnvironmentCreationError(f"{command[0]} gave no output")
        for line in process.stdout:
            log(line.rstrip())
            tail = [*tail[-9:], line.rstrip()]
    if process.returncode != 0:
        raise EnvironmentCreationError(
            f"{' '.join(command[:4])} ended with {process.returncode}: {' | '.join(tail)}"
        )
