"""A batch of messages: each stands for itself, in errors, in memory and in time."""

from __future__ import annotations

import gzip
import json
import logging
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from dispatch_documents import DATASTORE, IMAGE_SET, PATIENT, document, refusal

from healthimaging.errors import MetadataError
from healthimaging.reference import ImageSetRef
from runtime.functions.batches.batch import RESERVE_SECONDS, work_off
from runtime.functions.batches.errors import FunctionError
from runtime.functions.image_sets import reading
from runtime.functions.image_sets.reading import MetadataTooLargeError, metadata_of

REF = ImageSetRef(datastore_id=DATASTORE, image_set_id=IMAGE_SET, version_id="1")


@dataclass(frozen=True)
class Word:
    subject: str


class Clock:
    """An invocation's time limit, of which every message takes a part."""

    def __init__(self, seconds: float, *, each: float) -> None:
        self._seconds, self._each = seconds, each

    def spend(self) -> None:
        self._seconds -= self._each

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def batch(*bodies: str) -> dict[str, Any]:
    return {"Records": [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]}


def failures(answer: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_one_message_that_fails_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    def work(word: Word) -> bool:
        if word.subject == "memory":
            raise MemoryError
        if word.subject == "value":
            raise ValueError(PATIENT)
        if word.subject == "refused":
            raise refusal("ThrottlingException", "GetImageSet")
        if word.subject == "ours":
            raise FunctionError("image set 1 is as it should not be")
        done.append(word.subject)
        return True

    bodies = ("memory", "a", "value", "refused", "b", "ours")
    answer = work_off(batch(*bodies), context=None, doing="working", read=Word, work=work)
    assert failures(answer) == ["0", "2", "3", "5"]
    assert done == ["a", "b"]
    for said in (
        "memory, MemoryError",
        "value, ValueError",
        "GetImageSet: Throttling",
        "as it should not be",
    ):
        assert said in caplog.text
    assert PATIENT not in caplog.text


def test_what_settled_a_subject_settles_the_messages_after_it() -> None:
    done: list[str] = []

    def work(word: Word) -> bool:
        done.append(word.subject)
        return word.subject == "a"

    assert not failures(work_off(batch("a", "b", "a", "b"), context=None, doing="", read=Word, work=work))
    assert done == ["a", "b", "b"]


def test_what_the_time_does_not_suffice_for_is_handed_back(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is begun that could be cut off, and what is done is not done again."""
    clock = Clock(RESERVE_SECONDS + 25, each=10)

    def work(word: Word) -> bool:
        clock.spend()
        return True

    answer = work_off(batch("a", "b", "c", "d", "e"), context=clock, doing="working", read=Word, work=work)
    assert failures(answer) == ["3", "4"]
    assert "working failed: d, TimeIsUpError" in caplog.text


class Archive:
    """GetImageSetMetadata."""

    def __init__(self, blob: bytes) -> None:
        self.blob = BytesIO(blob)

    def get_image_set_metadata(self, **params: str) -> dict[str, Any]:
        assert params == {"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "1"}
        return {"imageSetMetadataBlob": self.blob}


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_metadata_is_read_with_and_without_compression(compress: Any) -> None:
    metadata = metadata_of(Archive(compress(json.dumps(document()).encode())), REF)
    assert metadata is not None
    assert metadata.image_set_id == IMAGE_SET


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_metadata_that_do_not_fit_are_refused_before_they_are_parsed(
    monkeypatch: pytest.MonkeyPatch, compress: Any
) -> None:
    monkeypatch.setattr(reading, "MOST_METADATA_BYTES", 3 * 2**20)
    # Compressed, 20 MB of zeros are 20 kB: what counts is what would be unpacked.
    archive = Archive(compress(b"0" * 20 * 2**20))
    with pytest.raises(MetadataTooLargeError, match=f"image set {IMAGE_SET}: its metadata is larger than 3"):
        metadata_of(archive, REF)
    if compress is bytes:
        assert archive.blob.tell() <= 4 * 2**20, "the rest is not even read"


def test_metadata_that_are_cut_off_are_named() -> None:
    with pytest.raises(MetadataError):
        metadata_of(Archive(gzip.compress(json.dumps(document()).encode())[:-20]), REF)


def test_the_largest_image_set_that_the_archive_allows_is_read() -> None:
    assert reading.MOST_METADATA_BYTES > 50 * 10**6


def test_errors_of_a_message_are_not_logged_with_its_body(caplog: pytest.LogCaptureFixture) -> None:
    def read(body: str) -> Word:
        raise KeyError(body)

    with caplog.at_level(logging.DEBUG):
        assert failures(work_off(batch(PATIENT), context=None, doing="x", read=read, work=bool)) == ["0"]
    assert "message 0, KeyError" in caplog.text
    assert PATIENT not in caplog.text
