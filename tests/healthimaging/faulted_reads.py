"""What is read through a faulty service: an image set whose right answer is known, the ways to read it, and
what a read must leave behind: no thread, no socket, no warning.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
import fake_healthimaging as fake
import numpy as np
import psutil
import pydicom
import pytest
from botocore.config import Config
from faulty_service import THREAD_NAME, FaultyService, StoredImageSet
from pydicom.data import get_testdata_file

from healthimaging import ImageSet, connect

SLICES = 6
FRAMES = 5
"""Of the second series' only instance."""
CT_SERIES, MR_SERIES = fake.SERIES_UID, "1.2.3.5"
MR_UID = "1.2.3.5.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"

SESSION = boto3.Session(
    aws_access_key_id="valid", aws_secret_access_key="secret", region_name="us-east-1"
)  # its loader keeps the service model, so that clients are cheap

Pixels = np.ndarray[Any, Any]
Failure = TypeVar("Failure", bound=Exception)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The right answer."""

    stored: Mapping[tuple[str, int], Pixels]
    """Stored values by SOP Instance UID and frame number."""
    volumes: Mapping[str, Pixels]
    """Rescaled values by Series Instance UID, slices from the feet up."""


def _real(name: str) -> Pixels:
    path = get_testdata_file(name, download=False)
    pixels: Pixels = pydicom.dcmread(str(path)).pixel_array
    return pixels


def image_set() -> tuple[StoredImageSet, Truth]:
    """A CT series of single slices, and an enhanced MR instance, of real pixels; slices differ by a roll."""
    ct, mr = _real("CT_small.dcm"), _real("MR_small.dcm")
    slices = [np.roll(ct, 3 * k, axis=0) for k in range(SLICES)]
    order = (3, 0, 5, 1, 4, 2)
    built = [fake.instance(slices[k], number=SLICES - k, position=(-60, -60, 2.5 * k)) for k in order]
    records = {record["DICOM"]["SOPInstanceUID"]: record for record, _ in built}
    frames = {record["ImageFrames"][0]["ID"]: data for record, data in built}
    stored = {
        (record["DICOM"]["SOPInstanceUID"], 1): slices[k] for (record, _), k in zip(built, order, strict=True)
    }
    document = fake.document(records)
    planes = [np.roll(mr, 2 * k, axis=1) for k in range(FRAMES)]
    parts = [
        fake.instance(plane, number=1, position=(0, 0, 0), RescaleIntercept="0", uid=f"mr{k}")
        for k, plane in enumerate(planes)
    ]
    enhanced = copy.deepcopy(parts[0][0])
    enhanced["ImageFrames"] = [part["ImageFrames"][0] for part, _ in parts]
    enhanced["DICOM"] |= {
        "SOPClassUID": ENHANCED_MR,
        "SOPInstanceUID": MR_UID,
        "NumberOfFrames": str(FRAMES),
        "SharedFunctionalGroupsSequence": [
            {
                "PixelMeasuresSequence": [{"PixelSpacing": ["1", "1"], "SliceThickness": "3"}],
                "PlaneOrientationSequence": [{"ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"]}],
            }
        ],
        "PerFrameFunctionalGroupsSequence": [
            {"PlanePositionSequence": [{"ImagePositionPatient": ["0", "0", str(3 * k)]}]}
            for k in range(FRAMES)
        ],
    }
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del enhanced["DICOM"][keyword]
    document["Study"]["Series"][MR_SERIES] = {
        "DICOM": {"SeriesInstanceUID": MR_SERIES, "Modality": "MR", "FrameOfReferenceUID": "1.2.3.10"},
        "Instances": {MR_UID: enhanced},
    }
    frames |= {part["ImageFrames"][0]["ID"]: data for part, data in parts}
    stored |= {(MR_UID, k + 1): plane for k, plane in enumerate(planes)}
    truth = Truth(
        stored=stored,
        volumes={CT_SERIES: np.stack(slices).astype(np.int32) - 1024, MR_SERIES: np.stack(planes)},
    )
    return StoredImageSet(documents={"1": document}, frames=frames), truth


def instance_record(stored: StoredImageSet, uid: str, version: str = "1") -> dict[str, Any]:
    """An instance's part of the metadata, to be changed."""
    (found,) = (
        series["Instances"][uid]
        for series in stored.documents[version]["Study"]["Series"].values()
        if uid in series["Instances"]
    )
    record: dict[str, Any] = found
    return record


def frame_id(stored: StoredImageSet, uid: str = MR_UID, number: int = 3) -> str:
    return str(instance_record(stored, uid)["ImageFrames"][number - 1]["ID"])


# Reads
# ----------------------------------------------------------------------------------------------------------


def _frames(source: ImageSet, truth: Truth) -> None:
    arrived = {(frame.instance_uid, frame.number): frame.pixels for frame in source.frames()}
    assert arrived.keys() == truth.stored.keys()
    for key, pixels in truth.stored.items():
        assert arrived[key].dtype == pixels.dtype
        assert np.array_equal(arrived[key], pixels)


def _volumes(source: ImageSet, truth: Truth) -> None:
    arrived = {volume.series_instance_uid: volume.array for volume in source.volumes()}
    assert arrived.keys() == truth.volumes.keys()
    for uid, values in truth.volumes.items():
        assert np.array_equal(arrived[uid], values)


def _datasets(source: ImageSet, truth: Truth) -> None:
    arrived = source.datasets()
    assert {dataset.SOPInstanceUID for dataset in arrived} == {uid for uid, _ in truth.stored}
    for dataset in arrived:
        uid = dataset.SOPInstanceUID
        frames = [pixels for (one, _), pixels in truth.stored.items() if one == uid]
        assert np.array_equal(dataset.pixel_array, frames[0] if len(frames) == 1 else np.stack(frames))
        assert (dataset.PatientID, dataset.StudyInstanceUID) == ("P1", fake.STUDY_UID)


READS: Mapping[str, Callable[[ImageSet, Truth], None]] = {
    "frames": _frames,
    "volumes": _volumes,
    "datasets": _datasets,
}
"""Each opened image set read in a way, and compared with the truth."""


# What a read leaves behind
# ----------------------------------------------------------------------------------------------------------


def client_threads() -> set[threading.Thread]:
    """All threads but the server's own."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.name != THREAD_NAME and "process_request_thread" not in thread.name
    }


def client_sockets(service: FaultyService) -> int:
    """Sockets of this process that lead to the service, in whatever state they are."""
    return sum(
        1
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == service.port
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def settles(value: Callable[[], object], wanted: object, seconds: float = 5.0) -> None:
    """Waits until a value is what it should be: the kernel and other threads may take a moment."""
    deadline = time.monotonic() + seconds
    while (found := value()) != wanted:
        assert time.monotonic() < deadline, f"{found} remain where {wanted} are expected"
        time.sleep(0.005)


@contextlib.contextmanager
def only_what_is_new_is_collected() -> Iterator[None]:
    """Lets garbage collection pass over all that exists already, so that each test can afford it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def client_of(service: FaultyService, *, session: boto3.Session = SESSION, **config: Any) -> Iterator[Any]:
    """A client of the service, closed at the end: then nothing may be left of it.

    No socket, no thread, no file descriptor and no ResourceWarning, whatever happened in between.
    """
    threads = client_threads()
    settings: dict[str, Any] = {"connect_timeout": 1, "read_timeout": 5, **config}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        client = connect(session, endpoint_url=service.endpoint_url, config=Config(**settings))
        assert client_sockets(service) == 0
        opened = descriptors()
        try:
            yield client
            settles(client_threads, threads)  # those of the read end before the client is closed
        finally:
            client.close()
            del client
        gc.collect()  # urllib3 closes the connections of a pool when the pool goes
        settles(lambda: client_sockets(service), 0)
        settles(client_threads, threads)
    settles(lambda: descriptors() <= opened, True)
    assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []


def each_read(service: FaultyService, seconds: float) -> Iterator[Callable[[ImageSet, Truth], None]]:
    """Each way to read, for the same client and service one after the other, none of which takes longer.

    The threads of one have ended when the next begins.
    """
    for read in READS.values():
        threads = client_threads()
        service.forget()
        with within(seconds):
            yield read
        settles(client_threads, threads)


def failure(expected: type[Failure], call: Callable[..., object], *arguments: Any) -> Failure:
    """The error that a call raises, as someone has it who has let go of where it came from.

    A traceback keeps everything alive that it has seen, connections included.
    """
    with pytest.raises(expected) as caught:
        call(*arguments)
    error = caught.value
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails when the block, however it ends, takes longer."""
    started = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - started
        assert took <= seconds, f"it took {took:.1f} s, at most {seconds} s were promised"
