"""CUDA's runtime library for holoscan, which cannot be imported without it, not even to run on a CPU."""

from __future__ import annotations

import ctypes

_LIBRARY = "libcudart.so.13"
"""The name that holoscan-cu13's libraries ask the dynamic loader for."""


def load_cuda_runtime() -> None:
    """Load the library unless this machine has it. To be called before holoscan is imported.

    GPU images have their own, which torch and the driver agree with; it wins. CPU images have none: the
    package ``nvidia-cuda-runtime`` brings it, in a folder where the loader does not look. A library that is
    loaded already is the one that later libraries get, whoever loaded it.

    Raises
    ------
    cuda.pathfinder.DynamicLibNotFoundError
        It is nowhere, which is a mistake in the image's requirements.
    """
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-untyped]  # it has no types

        load_nvidia_dynamic_lib("cudart")
