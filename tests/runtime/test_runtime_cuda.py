"""Holoscan's CUDA runtime on a machine without CUDA."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"

PROGRAM = """
from pathlib import Path
from runtime import cuda_runtime

cuda_runtime._LIBRARY = "libcudart.so.none"  # as if the loader knew of no CUDA
cuda_runtime.load_cuda_runtime()
print(*{line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libcudart" in line})
"""


def test_a_machine_without_cuda_gets_the_library_of_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(Path(sys.prefix, _SITE, "nvidia/cu13/lib/libcudart.so.13"))]
