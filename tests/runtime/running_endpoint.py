"""A serving process and a datastore, as the endpoint's tests use them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from pydicom import Dataset
from synthetic_patient import Patient

from healthimaging import DicomWeb, ImageSet

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 180


@dataclass(kw_only=True)
class Endpoint:
    """A serving process with SageMaker's folder layout."""

    process: subprocess.Popen[bytes]
    url: str
    log_file: Path
    pings: list[int] = field(default_factory=list)

    def ping(self) -> int:
        try:
            return httpx.get(f"{self.url}/ping", timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def invoke(self, document: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/invocations", json=document, timeout=120, trust_env=False)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self) -> None:
        """End it as SageMaker does."""
        self.process.terminate()
        self.process.wait(timeout=60)


def start_endpoint(base: Path, environment: Mapping[str, str], *, wait: bool = True) -> Endpoint:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_file = base / "endpoint.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "serve"],
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **environment,
                "SAGEMAKER_BASE_DIR": str(base),
                "SAGEMAKER_BIND_TO_PORT": str(port),
            },
        )
    endpoint = Endpoint(process=process, url=f"http://127.0.0.1:{port}", log_file=log_file)
    deadline = time.monotonic() + START_SECONDS
    while wait and 200 not in endpoint.pings:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail("the endpoint did not start:\n" + endpoint.log[-3000:])
        endpoint.pings.append(endpoint.ping())
        time.sleep(0.05)
    return endpoint


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A datastore of the local cloud and what is in it."""

    client: Any
    datastore_id: str

    @classmethod
    def create(cls, cloud: Any, name: str) -> Self:
        """Make a datastore and wait until it can be used."""
        client = cloud.client("medical-imaging")
        datastore_id = client.create_datastore(datastoreName=name)["datastoreId"]
        deadline = time.monotonic() + 30
        while (
            client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"]
            != "ACTIVE"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return cls(client=client, datastore_id=datastore_id)

    def image_sets(self, series_instance_uid: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.search_image_sets(
            datastoreId=self.datastore_id,
            searchCriteria={
                "filters": [
                    {"values": [{"DICOMSeriesInstanceUID": series_instance_uid}], "operator": "EQUAL"}
                ]
            },
        )["imageSetsMetadataSummaries"]
        return found

    def store(self, patient: Patient) -> str:
        """Store a series by STOW-RS and return its image set."""
        outcomes = DicomWeb(self.client, self.datastore_id).store(patient.datasets)
        assert all(outcome.stored for outcome in outcomes)
        deadline = time.monotonic() + 30
        while not (found := self.image_sets(str(patient.datasets[0].SeriesInstanceUID))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return str(found[0]["imageSetId"])

    def request(self, image_set_id: str) -> dict[str, str]:
        return {"datastoreId": self.datastore_id, "imageSetId": image_set_id}

    def read(self, image_set_id: str) -> ImageSet:
        return ImageSet.open(self.client, self.datastore_id, image_set_id)

    def segmentation(self, result: Mapping[str, Any]) -> Dataset:
        (dataset,) = self.read(result["segmentation"]["imageSetId"]).datasets()
        return dataset
