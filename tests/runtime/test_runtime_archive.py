"""Storing and finding results, where the datastore does not do what one hopes for; volumes of a SEG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from synthetic_patient import make_patient

from healthimaging import SegmentDescription, StoreOutcome, write_segmentation
from runtime.bundles.segment_terms import segment_terms
from runtime.errors import SegmentationNotPrimaryError, StoredSegmentationMissingError, StoreRefusedError
from runtime.results import archive as archive_module
from runtime.results.answer import SegmentVolume
from runtime.results.archive import SegmentationArchive, StoredSeries
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

    def __init__(self, client: object, datastore_id: str) -> None:
        assert datastore_id == STORE

    def store(self, datasets: Sequence[Dataset]) -> list[StoreOutcome]:
        return [self.outcome for _ in datasets]


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(archive_module, "DicomWeb", _DicomWeb)
    monkeypatch.setattr(archive_module, "_FIRST_PAUSE_SECONDS", 0.001)
    dataset = Dataset()
    dataset.SeriesInstanceUID = UID
    return dataset


def _store(client: _Client, dataset: Dataset) -> StoredSeries:
    return SegmentationArchive(client, wait_seconds=0.1).store(datastore_id=STORE, dataset=dataset)


def test_waits_until_the_series_is_found(dataset: Dataset) -> None:
    client = _Client([], [], [_summary("a", primary=True)])
    assert _store(client, dataset) == StoredSeries(image_set_id="a" * 32, version_id="1")


def test_a_series_that_never_appears_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(StoredSegmentationMissingError, match=rf"series {UID} was accepted"):
        _store(_Client([]), dataset)


def test_a_non_primary_result_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(SegmentationNotPrimaryError, match="b" * 32):
        _store(_Client([_summary("b", primary=False)]), dataset)


def test_the_primary_image_set_is_chosen_on_any_page() -> None:
    client = _Client([_summary("b", primary=False), _summary("a", primary=True)])
    found = SegmentationArchive(client, wait_seconds=1).find(datastore_id=STORE, series_instance_uid=UID)
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
