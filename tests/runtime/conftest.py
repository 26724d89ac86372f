"""Fixtures of the inference image's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_bundle import write_bundle

from runtime.cuda_runtime import load_cuda_runtime

load_cuda_runtime()  # as the program does, before any test's module imports holoscan


@pytest.fixture(scope="session")
def bundle_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle for every test that does not change it."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))
