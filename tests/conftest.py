"""The local cloud for tests that need one, on a free port, with a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_under_test import CloudUnderTest, free_port


@pytest.fixture(scope="session", autouse=True)
def own_cdk_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The CDK command line keeps its state in files of the user's home that it neither locks nor replaces at
    once: two that start together have been seen to fail. So each process of tests has a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_HOME", str(tmp_path_factory.mktemp("cdk-home")))
        yield


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
