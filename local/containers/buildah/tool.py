"""The `buildah` program: found, called, and its failures told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.containers.errors import BuildError, ContainerError

ISOLATION = ("--isolation", "chroot")
"""Needs neither namespaces nor cgroups: it works where this machine is a container itself."""


class BuildahMissingError(ContainerError):
    """buildah cannot be used on this machine; the message says what to do."""


def require(*programs: str) -> None:
    """Check that we may use buildah and that the programs are installed.

    Raises:
        BuildahMissingError: a program is missing, or we are not root.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise BuildahMissingError(
            f"{' and '.join(missing)} not found; install with: apt-get install buildah debootstrap"
        )
    if os.geteuid() != 0:
        raise BuildahMissingError("chroot isolation and debootstrap need root: run as root (or with sudo)")


def call(*arguments: str, cwd: Path | None = None) -> str:
    """Run a buildah command and return what it prints, stripped.

    Raises:
        ContainerError: it failed; the message ends with its own.
    """
    done = subprocess.run(
        ["buildah", *arguments],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise ContainerError(f"buildah {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def build(*arguments: str) -> None:
    """Run `buildah build`, with its output on stderr as docker's progress is.

    Raises:
        BuildError: a step failed; what it said is on stderr.
    """
    # stdout is the image id there, as docker's --quiet has it; steps print there too.
    done = subprocess.run(
        ["buildah", "build", *ISOLATION, "--layers", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=2,
    )
    if done.returncode != 0:
        raise BuildError(f"buildah build ended with {done.returncode}")


def image(name: str) -> dict[str, Any] | None:
    """An image of the store as `{"id", "config"}` (the OCI image configuration's `config`), or None.

    Source of the members: github.com/opencontainers/image-spec, config.md.
    """
    done = subprocess.run(
        ["buildah", "inspect", "--type", "image", name], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        return None
    document = json.loads(done.stdout)
    return {"id": document["FromImageID"], "config": document["OCIv1"]["config"]}


@contextmanager
def container(image_name: str, *, options: Sequence[str] = ()) -> Iterator[str]:
    """A working container of an image, removed afterwards; its id."""
    identity = call("from", "--pull-never", *options, image_name)
    try:
        yield identity
    finally:
        call("rm", identity)


@contextmanager
def root_folder(identity: str) -> Iterator[Path]:
    """The file system of a working container, as a folder of this machine."""
    folder = Path(call("mount", identity))
    try:
        yield folder
    finally:
        call("umount", identity)
