"""The built images, and a local cloud that is all they can reach.

`make test-images` runs these tests in a network namespace of their own, where there is nothing but the
loopback interface: the local cloud, the containers and the tests share it, and nothing else answers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# What made-up patients, phantoms and bundles are, the images' own tests have said already.
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests" / "runtime"), str(REPOSITORY / "tests" / "training")]

from container_under_test import ImageUnderTest  # noqa: E402 - found on the path above
from running_endpoint import Archive  # noqa: E402 - found on the path above

from local.containers.buildah import tool  # noqa: E402 - found on the path above

CONTRACT = REPOSITORY / "build" / "images" / "contract.json"
"""What was measured: `{"startSeconds": {"firstAnswer", "healthy"}}`."""


@pytest.fixture(scope="session", autouse=True)
def _nothing_but_loopback() -> None:
    interfaces = [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    if interfaces != ["lo"]:
        pytest.exit(f"these tests need a network of their own (make test-images), found {interfaces}", 2)


def _image(name: str) -> Iterator[ImageUnderTest]:
    found = tool.image(name)
    if found is None:
        pytest.exit(f"there is no image {name}; build it with buildah: make test-images", 2)
    with tool.container(name) as container:
        yield ImageUnderTest(name=name, container=container, config=found["config"])


@pytest.fixture(scope="session")
def runtime_image() -> Iterator[ImageUnderTest]:
    yield from _image("localhost/monai-on-aws/runtime")


@pytest.fixture(scope="session")
def training_image() -> Iterator[ImageUnderTest]:
    yield from _image("localhost/monai-on-aws/training")


@pytest.fixture(scope="session")
def arrival_image() -> Iterator[ImageUnderTest]:
    yield from _image("localhost/monai-on-aws/arrival")


@pytest.fixture(scope="session")
def archive(cloud: Any) -> Archive:
    client = cloud.client("medical-imaging")
    datastore_id = client.create_datastore(datastoreName="image-tests")["datastoreId"]
    deadline = time.monotonic() + 30
    while (
        client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"] != "ACTIVE"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return Archive(client=client, datastore_id=datastore_id)


@pytest.fixture(scope="session")
def record() -> Iterator[dict[str, Any]]:
    """Measurements, written to `CONTRACT` at the end."""
    measured: dict[str, Any] = {}
    yield measured
    CONTRACT.parent.mkdir(parents=True, exist_ok=True)
    CONTRACT.write_text(json.dumps(measured, indent=1) + "\n")
