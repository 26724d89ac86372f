"""The local cloud for tests that need one, on a free port, with a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_under_test import CloudUnderTest, free_port

TOGETHER = ("acceptance", "infra")
"""Folders whose tests share what takes long to make: deployed stacks, synthesized environments."""


# Before pytest-xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one process has to run when several share the work: those of a file, or of a folder."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else item.path.name))


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
