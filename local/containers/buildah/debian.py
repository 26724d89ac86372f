"""A minimal Debian in a tar file, from the mirror that this machine uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from local.containers.errors import ContainerError

SUITE = "bookworm"
"""Debian 12: its Python is 3.11, the one that the lock files are made with."""
PACKAGES = ("ca-certificates", "python3", "python3-venv")
MIRROR_VARIABLE = "DEBIAN_MIRROR"
_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))


def mirror(environment: Mapping[str, str], sources: Iterable[Path] = _SOURCES) -> str:
    """The address of a Debian mirror: DEBIAN_MIRROR, else the first one in apt's sources.

    Raises:
        ContainerError: there is none, as on a machine that is no Debian.
    """
    named = environment.get(MIRROR_VARIABLE)
    if named:
        return named
    files = [file for place in sources for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    for file in files:
        if not file.is_file() or file.suffix not in (".list", ".sources"):
            continue
        lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
        for address in re.findall(r"\b(?:https?|file|ftp)://\S+", "\n".join(lines)):
            # Security updates and other vendors' packages are elsewhere and hold no whole system.
            if address.rstrip("/").endswith("/debian"):
                return str(address)
    raise ContainerError(f"apt's sources name no Debian mirror; name one: {MIRROR_VARIABLE}=<address>")


def make(target: Path, *, address: str) -> None:
    """Install Debian from a mirror and write its files to the tar file `target`.

    Raises:
        ContainerError: debootstrap or tar failed; the message ends with their last lines.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="debian-", dir=target.parent))
    try:
        _run(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(folder),
            address,
        )
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "var/log"):
            shutil.rmtree(folder / waste, ignore_errors=True)
            (folder / waste).mkdir(parents=True)
        new = target.with_suffix(".new")
        _run("tar", "-C", str(folder), "-cf", str(new), ".")
        os.replace(new, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace").splitlines()[-5:]
        raise ContainerError(f"{command[0]} ended with {done.returncode}: {' | '.join(tail)}")
