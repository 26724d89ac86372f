"""Storing and finding results, where the datastore does not do what one hopes for; volumes of a SEG."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from synthetic_patient import make_patient

from healthimaging import SegmentDescription, StoreOutcome, write_segmentation
from runtime.bundles.segment_terms import segment_terms
from runtime.errors import ResultNotPrimaryError, StoredResultMissingError, StoreRefusedError
from runtime.results import archive as archive_module
from runtime.results.answer import SegmentVolume
from runtime.results.archive import ResultArchive, StoredInstance, StoredSeries
from runtime.results.segment_volumes import segment_volumes

STORE, UID = "d" * 32, "2.25.5"


class _Client:
    """Answers SearchImageSets with one prepared answer a call; the last one is repeated."""

    def __init__(self, *answers: Sequence[dict[str, Any]]) -> None:
        self._answers = list(answers)

    def get_paginator(self, operation: str) -> _Client:
        assert operation == "search_image_sets"
        return self

    def paginate(self, **parameters: Any) -> list[dict[str, Any]]:
        assert parameters["searchCriteria"]["filters"][0]["values"] == [{"DICOMSeriesInstanceUID": UID}]
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [{"imageSetsMetadataSummaries": [one]} for one in answer] or [
            {"imageSetsMetadataSummaries": []}
        ]


def _summary(name: str, *, primary: bool) -> dict[str, Any]:
    return {"imageSetId": name * 32, "version": 1, "isPrimary": primary}


class _DicomWeb:
    outcome = StoreOutcome(sop_class_uid="1", sop_instance_uid="2", stored=True)
    requests = 0

    def __init__(self, client: object, datastore_id: str) -> None:
        assert datastore_id == STORE

    def __enter__(self) -> _DicomWeb:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def store(self, datasets: Sequence[Dataset]) -> list[StoreOutcome]:
        type(self).requests += 1
        return [self.outcome for _ in datasets]


class _ImageSet:
    """Holds what another container has stored under the same UIDs."""

    @staticmethod
    def open(_client: object, datastore_id: str, image_set_id: str, version: str) -> Any:
        assert datastore_id == STORE
        return SimpleNamespace(
            datasets=lambda: [_instance("2.25.7", ""), _instance("2.25.6", f"{image_set_id[0]}{version}")]
        )


def _instance(uid: str, label: str) -> Dataset:
    dataset = Dataset()
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID, dataset.SeriesDescription = UID, uid, label
    return dataset


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(archive_module, "DicomWeb", _DicomWeb)
    monkeypatch.setattr(archive_module, "ImageSet", _ImageSet)
    monkeypatch.setattr(archive_module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(_DicomWeb, "requests", 0)
    return _instance("2.25.6", "ours")


def _store(client: _Client, dataset: Dataset) -> StoredInstance:
    (stored,) = ResultArchive(client, wait_seconds=0.1).store(datastore_id=STORE, datasets=[dataset])
    return stored


def test_waits_until_the_series_is_found(dataset: Dataset) -> None:
    stored = _store(_Client([], [], [], [_summary("a", primary=True)]), dataset)
    assert stored.series == StoredSeries(image_set_id="a" * 32, version_id="1")
    assert (stored.dataset.SeriesDescription, _DicomWeb.requests) == ("ours", 1)


def test_what_is_there_is_not_stored_again(dataset: Dataset) -> None:
    """Another container was faster: its object is the result."""
    stored = _store(_Client([_summary("a", primary=True)]), dataset)
    assert (stored.dataset.SeriesDescription, _DicomWeb.requests) == ("a1", 0)


def test_what_was_stored_twice_at_once_is_read_back(dataset: Dataset) -> None:
    """Both stored; whose object is the second version is not known, so it is read."""
    stored = _store(_Client([], [_summary("a", primary=True) | {"version": 2}]), dataset)
    assert stored.series == StoredSeries(image_set_id="a" * 32, version_id="2")
    assert (stored.dataset.SeriesDescription, _DicomWeb.requests) == ("a2", 1)


def test_a_copy_that_is_not_primary_is_waited_out_and_named(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two image sets that are made at once, the one that is not primary may show first."""
    both = [_summary("b", primary=False), _summary("a", primary=True)]
    with caplog.at_level(logging.WARNING):
        stored = _store(_Client([], [_summary("b", primary=False)], both), dataset)
    assert stored.series.image_set_id == "a" * 32
    (record,) = caplog.records
    assert record.fields == {"series": UID, "imageSets": ["b" * 32]}  # type: ignore[attr-defined]  # an extra


def test_a_series_that_never_appears_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(StoredResultMissingError, match=rf"series {UID} was accepted"):
        _store(_Client([]), dataset)


def test_a_non_primary_result_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(ResultNotPrimaryError, match="b" * 32):
        _store(_Client([], [_summary("b", primary=False)]), dataset)


def test_an_image_set_without_the_instance_is_an_error(dataset: Dataset) -> None:
    dataset.SOPInstanceUID = "2.25.8"
    with pytest.raises(StoredResultMissingError, match=r"does not hold instance 2\.25\.8"):
        _store(_Client([_summary("a", primary=True)]), dataset)


def test_the_primary_image_set_is_chosen_on_any_page() -> None:
    client = _Client([_summary("b", primary=False), _summary("a", primary=True)])
    found = ResultArchive(client, wait_seconds=1).find(datastore_id=STORE, series_instance_uid=UID)
    assert found == StoredSeries(image_set_id="a" * 32, version_id="1")


def test_a_refused_instance_is_an_error(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = StoreOutcome(sop_class_uid="1", sop_instance_uid="2.25.6", stored=False, failure_reason=0xC000)
    monkeypatch.setattr(_DicomWeb, "outcome", refused)
    with pytest.raises(StoreRefusedError, match=r"2\.25\.6 was not stored: failure reason 0xc000"):
        _store(_Client([]), dataset)


@pytest.mark.parametrize("names", [("liver", "tumor"), ("lung",)])
@pytest.mark.parametrize("empty", [False, True])
def test_volumes_of_segments(names: tuple[str, ...], empty: bool) -> None:
    source = sorted(make_patient("X", seed=1).datasets, key=lambda one: one.ImagePositionPatient[2])
    masks = np.zeros((len(names), 20, 56, 48), dtype=bool)
    if not empty:
        masks[0, 3:5, 10:20, 10:20] = True
    segmentation = write_segmentation(
        source=source,
        masks=masks,
        segments=[
            SegmentDescription(number=n, label=name, category=codes.SCT.Organ, type=codes.SCT.Lung)
            for n, name in enumerate(names, start=1)
        ],
        series_instance_uid="2.25.1",
        sop_instance_uid="2.25.2",
        series_number=1,
        algorithm_name="a",
        algorithm_version="1",
    )
    wanted = [0.0 if empty or number else 200 * 1.25 * 1.5 * 4 / 1000 for number in range(len(names))]
    assert segment_volumes(segmentation) == tuple(
        SegmentVolume(label=name, volume_ml=volume) for name, volume in zip(names, wanted, strict=True)
    )


def test_terms_are_found_however_the_channel_is_spelled() -> None:
    terms = segment_terms(["Lung", "left_kidney", " Pancreas "])
    assert [term.type.value for term in terms.values()] == ["39607008", "18639004", "15776009"]
    assert terms["Lung"].category == codes.SCT.AnatomicalStructure
    assert terms["Lung"].color == (0x8E, 0xCA, 0xE6)
