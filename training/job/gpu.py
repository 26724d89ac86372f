"""A GPU that is there must be used: a training that runs on the CPU for days helps nobody.

The Deep Learning Containers set up CUDA's forward compatibility in an entry script, which ours takes the
place of: with a driver older than the CUDA release of the image, the compatibility library has to be loaded
instead of the driver's (docs.nvidia.com/deploy/cuda-compatibility, "Forward Compatibility").
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from training.errors import JobConfigurationError
from training.job.cluster import GPU_DEVICE

COMPATIBILITY = Path("/usr/local/cuda/compat")
DRIVER_VERSION = Path("/proc/driver/nvidia/version")

_MARK = "TRAINING_CUDA_COMPATIBILITY"
"""Set once the program was started anew: the loader reads its path only then."""


def compatibility_path(
    environ: Mapping[str, str], *, folder: Path = COMPATIBILITY, driver: Path = DRIVER_VERSION
) -> str | None:
    """LD_LIBRARY_PATH with the compatibility library first; None where the driver does not need it.

    The library is named after the newest driver that it can stand in for, as libcuda.so.580.65.06.
    """
    library = folder / "libcuda.so.1"
    if not library.is_symlink() or not driver.is_file():
        return None
    offered = _version(library.readlink().name)
    installed = _version(driver.read_text(encoding="utf-8", errors="replace"), "Kernel Module")
    if not offered or not installed or installed > offered:
        return None
    before = environ.get("LD_LIBRARY_PATH")
    return f"{folder}:{before}" if before else str(folder)


def adopt_compatibility(arguments: list[str]) -> None:
    """Starts this program anew with the compatibility library, if the driver needs it."""
    path = None if _MARK in os.environ else compatibility_path(os.environ)
    if path is not None:
        environment = {**os.environ, "LD_LIBRARY_PATH": path, _MARK: "1"}
        os.execve(sys.executable, [sys.executable, "-m", "training", *arguments], environment)  # noqa: S606 - itself


def require_usable_gpu(*, device: Path = GPU_DEVICE) -> None:
    """Makes sure that a GPU of the machine can be used.

    Raises:
        JobConfigurationError: There is one, and torch cannot use it.
    """
    import torch

    if device.exists() and not torch.cuda.is_available():
        msg = (
            f"This machine has an NVIDIA GPU that CUDA {torch.version.cuda or '(none: a CPU build)'} of the "
            "image cannot use: take the GPU base image (images.training_base in the environment file), or an "
            "instance type whose driver it works with, or one without a GPU"
        )
        raise JobConfigurationError(msg)


def _version(text: str, after: str = "") -> tuple[int, ...]:
    found = re.search(r"(\d+(?:\.\d+)+)", text.partition(after)[2] if after else text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
