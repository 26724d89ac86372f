"""What a read says of itself: progress, timings, and one line in the log without patient data."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, ct_series

from healthimaging import ImageSet
from healthimaging.timings import Progress


def opened(service: FakeService) -> ImageSet:
    return ImageSet.open(service, DATASTORE, IMAGE_SET)


@pytest.mark.parametrize("read", ["volumes", "datasets", "frames"])
def test_progress_counts_every_frame(read: str) -> None:
    service, _ = ct_series()
    told: list[Progress] = []
    list(getattr(opened(service), read)(progress=told.append))
    assert [progress.frames for progress in told] == list(range(1, 8))
    assert {progress.total for progress in told} == {7}
    sizes = sum(len(data) for data in service.frames.values() if isinstance(data, bytes))
    assert told[-1].stored_bytes == sizes
    assert [progress.seconds for progress in told] == sorted(progress.seconds for progress in told)


def test_a_callback_that_raises_ends_the_read() -> None:
    service, _ = ct_series()

    def enough(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(service).volumes(progress=enough)


def test_timings_add_up_over_the_reads_of_an_object() -> None:
    service, hu = ct_series()
    image_set = opened(service)
    assert image_set.timings.header_seconds > 0
    assert image_set.timings.frames == 0
    image_set.volumes()
    once = image_set.timings
    assert once.frames == 7
    assert once.retries == 0
    assert once.decoded_bytes == hu.nbytes
    assert once.stored_bytes == sum(len(d) for d in service.frames.values() if isinstance(d, bytes))
    assert once.decode_seconds > 0
    image_set.datasets()
    assert image_set.timings.frames == 14


def test_attempts_that_failed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    service, _ = ct_series()
    answer = service.get_image_frame
    failed: set[str] = set()

    def unsteady(**params: Any) -> Any:
        frame_id = params["imageFrameInformation"]["imageFrameId"]
        if frame_id not in failed:
            failed.add(frame_id)
            raise ConnectionResetError
        return answer(**params)

    monkeypatch.setattr(service, "get_image_frame", unsteady)
    image_set = opened(service)
    image_set.volumes()
    assert image_set.timings.retries == 7


def test_the_log_names_the_image_set_and_no_patient(caplog: pytest.LogCaptureFixture) -> None:
    service, _ = ct_series()
    with caplog.at_level(logging.DEBUG):
        opened(service).volumes()
    (record,) = [record for record in caplog.records if record.name.startswith("healthimaging")]
    assert IMAGE_SET in record.getMessage()
    assert "7 frames" in record.getMessage()
    for value in ("P1", "Test^Case", "20240102", "101112"):
        assert value not in caplog.text
