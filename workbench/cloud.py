"""Starts and stops the cloud on this machine, as the program that it is: `python -m local ...`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workbench.environment import REPOSITORY, Environment, LocalEndpoint
from workbench.errors import EnvironmentInvalid, ProgramFailed
from workbench.program import run_program
from workbench.progress import Progress

DEFAULT_ROOT = REPOSITORY / "build" / "cloud"


@dataclass(frozen=True, kw_only=True)
class CloudStatus:
    """What `python -m local status --json` says."""

    running: bool
    ready: bool
    """False while it starts, or when it runs and does not answer."""
    endpoint_url: str
    root: str
    pid: int | None
    recorded_only: tuple[str, ...]
    """CloudFormation resource types of deployed stacks that the local cloud records without acting on them.
    """

    def to_json(self) -> dict[str, object]:
        return {
            "running": self.running,
            "ready": self.ready,
            "endpointUrl": self.endpoint_url,
            "root": self.root,
            "pid": self.pid,
            "recordedOnly": list(self.recorded_only),
        }


def cloud_up(environment: Environment, *, root: Path = DEFAULT_ROOT, progress: Progress) -> CloudStatus:
    """Start the local cloud and wait until it answers; it keeps running after this process."""
    _run("up", environment, root=root, progress=progress)
    return cloud_status(environment, root=root)


def cloud_down(environment: Environment, *, root: Path = DEFAULT_ROOT, progress: Progress) -> None:
    """Stop the local cloud; its state stays under `root`."""
    _run("down", environment, root=root, progress=progress)


def cloud_status(environment: Environment, *, root: Path = DEFAULT_ROOT) -> CloudStatus:
    """Whether the local cloud runs, where, and which resource types it only recorded."""
    command = [*_command("status", environment, root=root), "--json"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    try:
        document = json.loads(answer.stdout)
    except json.JSONDecodeError as error:
        raise ProgramFailed(
            "The local cloud's status could not be read.",
            advice=f"Run {' '.join(command)} and look at what it prints.",
            details=(answer.stdout + answer.stderr).splitlines()[-20:],
        ) from error
    pid = document.get("pid")
    return CloudStatus(
        running=bool(document["running"]),
        ready=bool(document["ready"]),
        endpoint_url=str(document.get("endpointUrl", "")),
        root=str(document.get("root", root)),
        pid=int(pid) if pid else None,
        recorded_only=tuple(sorted(set(document.get("recordedOnly", [])))),
    )


def _run(verb: str, environment: Environment, *, root: Path, progress: Progress) -> None:
    run_program(
        _command(verb, environment, root=root),
        what=f"The local cloud's `{verb}`",
        advice="Its last lines say what stands in the way (a port taken, a folder that is not writable); "
        f"its own log is under {root}.",
        environment=os.environ,
        folder=REPOSITORY,
        progress=progress,
    )


def _command(verb: str, environment: Environment, *, root: Path) -> Sequence[str]:
    port = urlsplit(_local(environment).endpoint_url).port or 80
    return [sys.executable, "-m", "local", verb, "--root", str(root), "--port", str(port)]


def _local(environment: Environment) -> LocalEndpoint:
    if environment.local is None:
        raise EnvironmentInvalid(
            f"Environment {environment.name!r} is an AWS account, not the cloud on this machine.",
            advice="Use --env local, or an environment file with a [local] section.",
        )
    return environment.local
