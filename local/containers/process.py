"""The process engine: a container is a process group on this machine, in the environment that the image pins.

What it keeps of a container: the image's own entry point, working folder, ENV and files; SageMaker's folders;
nothing inherited from the environment of the cloud. What it does not: no isolation of the file system, the
network or the user. /opt/ml and the image's folders are real folders elsewhere, so paths in the entry point,
the arguments and the environment are translated; programs find SageMaker's folder by SAGEMAKER_BASE_DIR.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.containers.engine import ContainerSpec
from local.containers.environments import Environment, Environments
from local.containers.errors import ContainerError
from local.containers.records import ProcessRecords, end_group, group_members, signal_group

_TAIL_BYTES = 65_536

SAGEMAKER_BASE = "/opt/ml"
"""Where SageMaker mounts its folders in a container."""


class ProcessContainer:
    """A started process group."""

    def __init__(self, *, name: str, process: subprocess.Popen[bytes], records: ProcessRecords) -> None:
        self.name = name
        self._process = process
        self._records = records
        self._cleaned = False

    @property
    def pid(self) -> int:
        """Process id of the entry point, which is also its group's."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, or None while the entry point runs."""
        code = self._process.poll()
        if code is not None:
            self._clean()
        return code

    def wait(self, seconds: float) -> int | None:
        """Wait at most `seconds` for the end; the exit code, or None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.poll()

    def stop(self, *, grace: float) -> int:
        """SIGTERM to the entry point's group, SIGKILL after `grace` seconds; the exit code."""
        ended = self.poll()
        if ended is not None:
            return ended  # its id may be somebody else's by now
        signal_group(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        signal_group(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._clean()
        return code

    def _clean(self) -> None:
        if self._cleaned:
            return
        self._cleaned = True
        # A container ends with its first process: what that one left in the group ends too.
        if group_members(self.pid):
            end_group(self.pid, grace=1.0)
        self._records.forget(self.pid)


class ProcessEngine:
    """Starts images as process groups."""

    def __init__(self, root: Path) -> None:
        self._environments = Environments(root)
        self._records = ProcessRecords(root)

    def start(self, spec: ContainerSpec) -> ProcessContainer:
        """Start the image's entry point; making its environment first may take minutes."""
        spec.base.mkdir(parents=True, exist_ok=True)
        with spec.output.open("ab", buffering=0) as output:

            def log(line: str) -> None:
                output.write(f"[container] {line}\n".encode())

            environment = self._environments.for_image(spec.image, log)
            command = self._command(spec)
            try:
                process = subprocess.Popen(
                    command,
                    executable=_executable(command[0], environment),
                    cwd=spec.image.locate(spec.image.config.workdir),
                    env=self._variables(spec, environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ContainerError(f"cannot start {command[0]!r}: {error.strerror}") from error
        self._records.write(process.pid, spec.name)
        return ProcessContainer(name=spec.name, process=process, records=self._records)

    def stop_leftovers(self) -> list[str]:
        """Stop containers of an earlier life of this cloud."""
        return self._records.stop_leftovers()

    def _command(self, spec: ContainerSpec) -> list[str]:
        config = spec.image.config
        arguments = config.command if spec.arguments is None and not spec.entrypoint else spec.arguments or ()
        command = [*(spec.entrypoint or config.entrypoint), *arguments]
        if not (spec.entrypoint or config.entrypoint):
            raise ContainerError(
                "the image has no ENTRYPOINT, so it cannot take SageMaker's argument (train, serve); "
                "add one in exec form"
            )
        translate = _translator(spec)
        return [translate(word) for word in command]

    def _variables(self, spec: ContainerSpec, environment: Environment) -> dict[str, str]:
        translate = _translator(spec)
        home = spec.base.parent / "home"
        home.mkdir(parents=True, exist_ok=True)
        program = spec.image.locate(spec.image.config.workdir)
        variables = {
            "PATH": f"{environment.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(_folder(spec.base.parent / "tmp")),
            "HOSTNAME": "algo-1",
            # The image's folder is content-addressed: byte code must not be written into it.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name, value in {**spec.image.config.environment, **spec.environment}.items():
            variables[name] = os.pathsep.join(translate(part) for part in value.split(os.pathsep))
        variables["PATH"] = _search_path(variables["PATH"], environment)
        variables["PYTHONPATH"] = str(program)
        variables["SAGEMAKER_BASE_DIR"] = str(spec.base)
        if spec.port is not None:
            variables["SAGEMAKER_BIND_TO_PORT"] = str(spec.port)
        return variables


def _search_path(path: str, environment: Environment) -> str:
    first = str(environment.folder / "bin")
    return path if path.split(os.pathsep)[0] == first else f"{first}{os.pathsep}{path}"


def _executable(name: str, environment: Environment) -> str | None:
    """`python` of the environment; None lets the system search for anything else."""
    own = environment.folder / "bin" / name
    if os.sep not in name and own.exists():
        return str(own)
    return None


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _translator(spec: ContainerSpec) -> Callable[[str], str]:
    """Turns absolute paths of the container into those of this machine; anything else stays."""

    def translate(word: str) -> str:
        if word == SAGEMAKER_BASE or word.startswith(f"{SAGEMAKER_BASE}/"):
            return f"{spec.base}{word[len(SAGEMAKER_BASE) :]}"
        # "//host/path" is what is left of a URL that was split at its colon.
        if word.startswith("/") and len(word) > 1 and not word.startswith("//"):
            place = spec.image.locate(os.path.normpath(word))
            if place.exists():
                return str(place)
        return word

    return translate


def tail(path: Path, *, lines: int = 20, characters: int = 4000) -> str:
    """The last whole lines of an output file that fit into `characters`, for messages."""
    if not path.exists():
        return ""
    with path.open("rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        start = handle.seek(max(0, end - _TAIL_BYTES))
        text = handle.read().decode(errors="replace")
    found = [line for line in text.splitlines()[1 if start else 0 :] if line.strip()]
    kept: list[str] = []
    room = characters
    for line in reversed(found[-lines:]):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    # One line that is longer than everything: its end says what went wrong (a Python exception).
    return "\n".join(reversed(kept)) if kept or not found else found[-1][-characters:]
