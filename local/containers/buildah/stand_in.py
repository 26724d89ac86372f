"""The stand-in for the base image, under the base image's own name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from local.containers.buildah import debian, tool
from local.containers.buildah.pip_settings import Mount

LABEL = "monai-on-aws.stand-in"
"""Marks a stand-in; its value says what it was made of."""

_RECIPE = Path(__file__).with_name("stand_in.Dockerfile")


def ensure(
    name: str, *, requirements: Path, folder: Path, mounts: Sequence[Mount], log: Callable[[str], None]
) -> None:
    """Make sure that there is an image `name`: the real one if it was pulled, else a current stand-in.

    Args:
        name: the base image's name.
        requirements: what the stand-in has to bring: lines of pip.
        folder: where to keep the Debian between builds.
        mounts: this machine's pip settings.
        log: takes one line.
    """
    recipe = hashlib.sha256(
        b"\0".join((_RECIPE.read_bytes(), requirements.read_bytes(), debian.SUITE.encode()))
    ).hexdigest()[:16]
    found = tool.image(name)
    if found is not None:
        made_of = (found["config"].get("Labels") or {}).get(LABEL)
        if made_of is None:
            log(f"FROM {name}, which is in the image store")
            return
        if made_of == recipe:
            log(f"FROM {name}: a stand-in with this name, made before")
            return
    tool.require("debootstrap")
    log(f"FROM {name}: making a stand-in with this name (a minute or two, once)")
    folder.mkdir(parents=True, exist_ok=True)
    system = folder / "debian.tar"
    if not system.exists():
        debian.make(system, address=debian.mirror(os.environ))
    shutil.copyfile(requirements, folder / "requirements-base.txt")
    tool.build(
        "--pull-never",
        "--label",
        f"{LABEL}={recipe}",
        "--file",
        str(_RECIPE),
        *(word for mount in mounts for word in ("--volume", mount.option)),
        "--tag",
        name,
        str(folder),
    )
