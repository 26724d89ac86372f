"""Nothing of a request that failed, wherever it failed, is left for the next one."""

from __future__ import annotations

import gc
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from inferring import BUCKET, start_container
from running_endpoint import Archive
from synthetic_patient import make_patient

from healthimaging import read_segmentation
from healthimaging.errors import FrameUnavailableError
from healthimaging.monai import load_metatensor
from runtime import application as application_module
from runtime.bundles.bundle import Bundle, load_bundle
from runtime.errors import NoMatchingSeriesError, StoreRefusedError, UnsuitablePredictionError
from runtime.operators import (
    bundle_inference,
    image_set_loader,
    report_writer,
    segmentation_writer,
    series_selection,
    volume_loader,
)
from runtime.operators.exchange import Exchange
from runtime.results.archive import ResultArchive
from runtime.results.outputs import Output
from runtime.results.result_files import ResultFiles
from runtime.results.results import Results

NETWORK = EndpointConnectionError(endpoint_url="http://archive")
DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
LOST_FRAME = FrameUnavailableError(
    "gone", code="InternalServerException", image_set_id="0" * 32, sop_instance_uid="1.2", frame_number=1
)

FAULTS: list[tuple[Any, str, BaseException]] = [
    (image_set_loader.ImageSet, "open", NETWORK),
    (Results, "find", NETWORK),
    (series_selection, "select", NoMatchingSeriesError("none")),
    (volume_loader, "load_volume", LOST_FRAME),
    (bundle_inference, "channel_masks", UnsuitablePredictionError("not finite")),
    (bundle_inference, "load_metatensor", SystemExit(3)),
    (segmentation_writer, "write_segmentation", MemoryError()),
    (ResultArchive, "_send", StoreRefusedError("refused")),
    (report_writer, "derive", ZeroDivisionError()),
    (ResultFiles, "put", DENIED),
]
"""What each operator works with, in their order, and how it fails."""


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    client = cloud.client("medical-imaging")
    datastore_id = client.create_datastore(datastoreName="runtime-isolation")["datastoreId"]
    deadline = time.monotonic() + 30
    while (
        client.get_datastore(datastoreId=datastore_id)["datastoreProperties"]["datastoreStatus"] != "ACTIVE"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    return Archive(client=client, datastore_id=datastore_id)


def _failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def _temporary_files() -> set[Path]:
    return {path for path in Path(tempfile.gettempdir()).iterdir() if path.is_file()}


def test_the_next_patient_gets_his_own_result_whatever_failed_before(
    cloud: Any, archive: Archive, bundle_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One application. For each operator: two requests that fail there, then one for another patient.

    Two in a row, with the first exception still referred to, is what holoscan does not survive
    (`runtime.operators.faults`).
    """
    exchanges: list[weakref.ref[Exchange]] = []

    def observed(**options: Any) -> Exchange:
        exchange = Exchange(**options)
        exchanges.append(weakref.ref(exchange))
        return exchange

    monkeypatch.setattr(application_module, "Exchange", observed)
    bundle: Bundle = load_bundle(bundle_directory)
    container = start_container(cloud, bundle, outputs=[Output.MEASUREMENT_REPORT], files=True)
    unlucky = archive.store(make_patient("LIMA-0", seed=100, shape=(12, 36, 32)))
    kept: list[BaseException] = []
    for number, (place, name, error) in enumerate(FAULTS, start=1):
        patient = make_patient(f"LIMA-{number}", seed=100 + number, shape=(12, 36, 32))
        image_set_id = archive.store(patient)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, _failing(error))
            for _ in range(2):
                with pytest.raises(type(error)) as caught:
                    container.infer(archive, unlucky)
                kept.append(caught.value)
        result = container.infer(archive, image_set_id)
        assert "network" in result.seconds, "computed, not found"
        assert result.image_set_id == image_set_id
        assert result.segmentation is not None
        dataset = archive.read(result.segmentation.image_set_id).datasets()[0]
        report = archive.read(str(result.reports[0].image_set_id)).datasets()[0]
        for stored in (dataset, report):
            assert stored.PatientID == patient.patient_id
            assert stored.StudyInstanceUID == patient.datasets[0].StudyInstanceUID
        (volume,) = archive.read(image_set_id).volumes()
        wanted = bundle.predict(load_metatensor(volume))[0].numpy().transpose(2, 1, 0).astype(bool)
        np.testing.assert_array_equal(read_segmentation(dataset, volume.geometry).array[0], wanted)
    kept.clear()
    del caught, error
    for _, _, one in FAULTS:
        one.__traceback__ = None
    gc.collect()
    assert len(exchanges) == 3 * len(FAULTS)
    assert [reference() for reference in exchanges] == [None] * len(exchanges)


def test_a_request_that_failed_is_right_the_next_time(
    cloud: Any, archive: Archive, bundle_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segmentation was stored before its copy failed: the next request completes it."""
    container = start_container(cloud, load_bundle(bundle_directory), files=True)
    image_set_id = archive.store(make_patient("MIKE-1", seed=200, shape=(12, 36, 32)))
    before = _temporary_files()
    with monkeypatch.context() as patched:
        patched.setattr(ResultFiles, "put", _failing(DENIED))
        with pytest.raises(ClientError):
            container.infer(archive, image_set_id)
    result = container.infer(archive, image_set_id)
    assert "network" not in result.seconds
    assert result.segmentation is not None
    assert result.segmentation.s3_uri is not None
    assert _temporary_files() <= before, "nothing goes through files"
