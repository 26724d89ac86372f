"""What an engine is: it starts an image's entry point and gives the running container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from local.containers.image import Image


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """What to start.

    `arguments` follow the entry point as in `docker run IMAGE arguments` (None: the image's CMD);
    `entrypoint` replaces it. `base` is the folder that the container sees as /opt/ml. `output` takes stdout
    and stderr.
    """

    name: str
    image: Image
    base: Path
    output: Path
    arguments: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None


class Container(Protocol):
    """A started container."""

    name: str

    def poll(self) -> int | None:
        """The exit code, or None while it runs. A signal is a negative code, as `subprocess` has it."""

    def wait(self, seconds: float) -> int | None:
        """Wait at most this long for the end; the exit code, or None."""

    def stop(self, *, grace: float) -> int:
        """SIGTERM to everything in the container, SIGKILL after `grace` seconds; the exit code."""


class Engine(Protocol):
    """Starts containers."""

    def start(self, spec: ContainerSpec) -> Container:
        """Start a container.

        Raises:
            ContainerError: it cannot be started; the message says why.
        """

    def stop_leftovers(self) -> list[str]:
        """Stop what an earlier life of this cloud left running; the names of what was stopped."""
