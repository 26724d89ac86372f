"""The local cloud for tests that need one, on a free port, with a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_under_test import CloudUnderTest, free_port


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudUnderTest]:
    """A local cloud for the whole session; tests share it, so they name their resources apart."""
    running = CloudUnderTest(root=tmp_path_factory.mktemp("cloud"), port=free_port())
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_cloud(tmp_path: Path) -> Iterator[CloudUnderTest]:
    """A local cloud of one test's own, to restart, kill or break."""
    running = CloudUnderTest(root=tmp_path / "cloud", port=free_port())
    running.start()
    yield running
    running.stop()
