"""Series and studies: whole, of one patient, in order, and nothing non-primary among them."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError
from fake_archive import COLUMNS, ROWS, FakeArchive
from fake_healthimaging import DATASTORE, client_error

from healthimaging import ImageSet, ImageSetRef, Series, Study, primary_image_sets
from healthimaging.errors import (
    DuplicateInstanceError,
    ImageSetNotFoundError,
    MetadataError,
    MissingSliceError,
    MixedPatientsError,
    SeriesNotFoundError,
    ServiceError,
    StudyNotFoundError,
)

STUDY, SERIES = "1.2.3", "1.2.3.4"


def ident(k: int) -> str:
    return f"{k:032}"


def ref(image_set_id: str, version: str = "1") -> ImageSetRef:
    return ImageSetRef(datastore_id=DATASTORE, image_set_id=image_set_id, version_id=version)


def ids(found: Series | Study) -> list[str]:
    return [image_set.ref.image_set_id for image_set in found.image_sets]


# Whole
# ----------------------------------------------------------------------------------------------------------


def test_a_study_of_more_image_sets_than_a_page_is_whole_and_in_order() -> None:
    archive = FakeArchive()
    numbers = np.random.default_rng(5).permutation(130)
    for k, number in enumerate(numbers):
        archive.add(ident(k), series=f"1.2.3.{100 + number}", number=int(number), slices=[0])
    archive.add(ident(900), study="1.9", series="1.9.1")
    found = Study.open(archive, DATASTORE, STUDY)
    assert ids(found) == [ident(int(k)) for k in np.argsort(numbers)]
    assert [series.series_instance_uid for series in found.series()] == [
        f"1.2.3.{100 + k}" for k in range(130)
    ]
    assert [(search.get("nextToken"), search["maxResults"]) for search in archive.searches] == [
        (None, 50),
        ("50", 50),
        ("100", 50),
    ]
    assert archive.searches[0]["searchCriteria"]["sort"] == {"sortField": "createdAt", "sortOrder": "ASC"}
    assert sorted(archive.opened) == sorted(ids(found))
    assert 1 < archive.most_at_once <= primary_image_sets.OPENED_AT_ONCE
    assert not any(thread.name.startswith("header") for thread in threading.enumerate())


def test_volumes_frames_and_datasets_of_a_study_are_those_of_its_series() -> None:
    archive = FakeArchive()
    archive.add(ident(1), series="1.2.3.20", number=20, slices=[2, 0, 1])
    archive.add(ident(2), series="1.2.3.10", number=10, slices=[1, 0])
    found = Study.open(archive, DATASTORE, STUDY)
    first, second = found.volumes()
    assert (first.series_instance_uid, second.series_instance_uid) == ("1.2.3.10", "1.2.3.20")
    assert second.array.shape == (3, ROWS, COLUMNS)
    assert [int(plane[0, 0]) for plane in second.array] == [0, 1, 2]
    (only,) = found.volumes(series_instance_uid="1.2.3.20")
    assert np.array_equal(only.array, second.array)
    assert sum(1 for _ in found.frames()) == 5
    assert [dataset.SOPInstanceUID for dataset in found.datasets()] == [
        f"1.2.3.{series}.{k}" for series, count in ((10, 2), (20, 3)) for k in range(1, count + 1)
    ]
    by_series = [series.volumes()[0] for series in found.series()]
    assert [volume.series_instance_uid for volume in by_series] == ["1.2.3.10", "1.2.3.20"]
    assert found.timings.frames == 5 * 4 + 3
    assert found.timings.header_seconds > 0


def test_reading_takes_the_options_of_an_image_set() -> None:
    archive = FakeArchive()
    archive.add(ident(1), series="1.2.3.10", slices=[0, 1])
    archive.add(ident(2), series="1.2.3.20", slices=[0, 1, 2])
    found = Study.open(archive, DATASTORE, STUDY, workers=2)
    told: list[Any] = []
    volumes = found.volumes(level=1, progress=told.append)
    assert [volume.array.shape for volume in volumes] == [(2, 2, 3), (3, 2, 3)]
    assert {frame.pixels.shape for frame in found.frames(level=1)} == {(2, 3)}
    assert [one.frames for one in told] == [1, 2, 3, 4, 5]
    assert {one.total for one in told} == {5}
    archive.add(ident(3), series="1.2.3.30", slices=[0, 1, 3])
    series = Series.open(archive, DATASTORE, "1.2.3.30")
    with pytest.raises(MissingSliceError):
        series.volumes()


def test_a_series_is_opened_alone() -> None:
    archive = FakeArchive()
    archive.add(ident(1), series=SERIES)
    archive.add(ident(2), series="1.2.3.5")
    found = Series.open(archive, DATASTORE, SERIES)
    assert ids(found) == [ident(1)]
    assert archive.opened == [ident(1)]
    assert (found.series_instance_uid, found.study_instance_uid) == (SERIES, STUDY)
    (volume,) = found.volumes()
    assert volume.series_instance_uid == SERIES
    assert found.non_primary == ()


def test_of_an_image_set_with_several_series_only_the_one_is_read() -> None:
    archive = FakeArchive()
    held = archive.add(ident(1), series=SERIES, slices=range(2))
    other = archive.add(ident(2), series="1.2.3.5", slices=range(4))
    held.document["Study"]["Series"] |= other.document["Study"]["Series"]
    archive.frames |= {(ident(1), frame): data for (_, frame), data in archive.frames.items()}
    del archive.held[ident(2)]
    found = Series.open(archive, DATASTORE, SERIES)
    assert len(list(found.frames())) == 2
    assert len(found.datasets(pixels=False)) == 2
    assert [len(series.datasets()) for series in Study.open(archive, DATASTORE, STUDY).series()] == [2, 4]


# One series in several image sets
# ----------------------------------------------------------------------------------------------------------


def split_series(archive: FakeArchive) -> None:
    archive.add(ident(2), slices=[0, 3, 4])
    archive.add(ident(1), slices=[1, 2, 5])


def test_a_series_in_several_image_sets_is_one_volume() -> None:
    archive = FakeArchive()
    split_series(archive)
    found = Series.open(archive, DATASTORE, SERIES)
    assert ids(found) == [ident(1), ident(2)]
    (volume,) = found.volumes()
    assert [int(plane[0, 0]) for plane in volume.array] == list(range(6))
    assert [dataset.InstanceNumber for dataset in found.datasets()] == [1, 2, 3, 4, 5, 6]
    (of_study,) = Study.open(archive, DATASTORE, STUDY).volumes()
    assert np.array_equal(of_study.array, volume.array)
    with pytest.raises(MissingSliceError):
        ImageSet.open(archive, DATASTORE, ident(2)).volumes()


def test_what_the_image_sets_say_differently_stays_with_their_instances() -> None:
    archive = FakeArchive()
    split_series(archive)
    levels = archive.held[ident(1)].document
    levels["Patient"]["DICOM"]["PatientComments"] = "of the second visit"
    levels["Study"]["DICOM"]["StudyDescription"] = "FOLLOW UP"
    levels["Study"]["Series"][SERIES]["DICOM"]["SeriesDescription"] = "thin"
    archive.held[ident(2)].document["Study"]["Series"][SERIES]["DICOM"]["SeriesDescription"] = "thick"
    found = Series.open(archive, DATASTORE, SERIES)
    told = {
        int(dataset.InstanceNumber): (
            dataset.SeriesDescription,
            dataset.get("StudyDescription"),
            dataset.get("PatientComments"),
            dataset.BodyPartExamined,
        )
        for dataset in found.datasets(pixels=False)
    }
    own, other = ("thin", "FOLLOW UP", "of the second visit", "CHEST"), ("thick", None, None, "CHEST")
    assert told == {1: other, 2: own, 3: own, 4: other, 5: other, 6: own}
    assert found.metadata.series[SERIES].attributes.text("SeriesDescription") is None
    assert found.metadata.series[SERIES].attributes.text("Modality") == "CT"


def test_an_instance_that_is_the_same_in_two_image_sets_is_read_once() -> None:
    archive = FakeArchive()
    archive.add(ident(1), slices=[0, 1])
    archive.add(ident(2), slices=[1, 2])
    found = Series.open(archive, DATASTORE, SERIES)
    (volume,) = found.volumes()
    assert [int(plane[0, 0]) for plane in volume.array] == [0, 1, 2]
    assert len(list(found.frames())) == 3


@pytest.mark.parametrize("what", ["attribute", "series attribute", "pixels", "no checksum"])
def test_an_instance_that_differs_between_two_image_sets_is_an_error(what: str) -> None:
    archive = FakeArchive()
    archive.add(ident(1), slices=[0, 1])
    held = archive.add(ident(2), slices=[1, 2])
    series = held.document["Study"]["Series"][SERIES]
    record = series["Instances"][f"{SERIES}.2"]
    checksums = record["ImageFrames"][0]["PixelDataChecksumFromBaseToFullResolution"]
    if what == "attribute":
        record["DICOM"]["SliceThickness"] = "3"
    elif what == "series attribute":
        series["DICOM"]["FrameOfReferenceUID"] = "1.2.3.8"
    elif what == "pixels":
        checksums[0]["Checksum"] += 1
    else:
        for one in archive.held.values():
            for found in one.document["Study"]["Series"][SERIES]["Instances"].values():
                found["ImageFrames"][0]["PixelDataChecksumFromBaseToFullResolution"] = []
    with pytest.raises(DuplicateInstanceError) as caught:
        Series.open(archive, DATASTORE, SERIES)
    assert caught.value.sop_instance_uid == f"{SERIES}.2"
    assert {ident(1), ident(2)} <= set(str(caught.value).replace("[", " ").replace(",", " ").split())
    with pytest.raises(DuplicateInstanceError):
        Study.open(archive, DATASTORE, STUDY)


def test_one_instance_in_two_series_of_a_study_is_an_error() -> None:
    archive = FakeArchive()
    archive.add(ident(1), series="1.2.3.4")
    held = archive.add(ident(2), series="1.2.3.5")
    instances = held.document["Study"]["Series"]["1.2.3.5"]["Instances"]
    instances["1.2.3.4.1"] = instances.pop("1.2.3.5.1")
    instances["1.2.3.4.1"]["DICOM"]["SOPInstanceUID"] = "1.2.3.4.1"
    with pytest.raises(DuplicateInstanceError, match=r"in series 1\.2\.3\.4, too"):
        Study.open(archive, DATASTORE, STUDY)


# Primary and not
# ----------------------------------------------------------------------------------------------------------


def test_non_primary_image_sets_are_reported_and_not_read() -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    archive.add(ident(3), patient="P2", is_primary=False, version="4")
    archive.add(ident(2), is_primary=False)
    for found in (Study.open(archive, DATASTORE, STUDY), Series.open(archive, DATASTORE, SERIES)):
        assert ids(found) == [ident(1)]
        assert found.non_primary == (ref(ident(2)), ref(ident(3), "4"))
        assert len(list(found.frames())) == 3
    assert set(archive.opened) == {ident(1)}
    named = found.non_primary[1]
    other = ImageSet.open(archive, named.datastore_id, named.image_set_id, named.version_id)
    assert not other.is_primary
    assert len(other.volumes()) == 1


def test_an_image_set_that_lost_its_place_since_the_search_is_not_mixed_in() -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    archive.add(ident(2), patient="P2", is_primary=False, told_primary=True)
    found = Study.open(archive, DATASTORE, STUDY)
    assert ids(found) == [ident(1)]
    assert found.non_primary == (ref(ident(2)),)


def test_what_is_pinned_is_what_was_opened_not_what_the_search_knows() -> None:
    archive = FakeArchive()
    archive.add(ident(1), version="3", told_version=1)
    found = Study.open(archive, DATASTORE, STUDY)
    archive.held[ident(1)].version = "4"
    assert found.image_sets[0].ref == ref(ident(1), "3")


def test_a_datastore_that_does_not_know_primary_image_sets_serves_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    summary, properties = archive._summary, archive.get_image_set

    def without(answer: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in answer.items() if key != "isPrimary"}

    monkeypatch.setattr(archive, "_summary", lambda image_set_id: without(summary(image_set_id)))
    monkeypatch.setattr(archive, "get_image_set", lambda **params: without(properties(**params)))
    assert ids(Study.open(archive, DATASTORE, STUDY)) == [ident(1)]


def test_nothing_found_names_the_uid_and_what_there_is_besides() -> None:
    archive = FakeArchive()
    archive.add(ident(1), is_primary=False)
    archive.add(ident(2), is_primary=False)
    with pytest.raises(StudyNotFoundError, match=r"study 1\.2\.3; 2 non-primary") as of_study:
        Study.open(archive, DATASTORE, STUDY)
    assert of_study.value.non_primary == (ref(ident(1)), ref(ident(2)))
    with pytest.raises(SeriesNotFoundError, match="2 non-primary") as of_series:
        Series.open(archive, DATASTORE, SERIES)
    assert of_series.value.series_instance_uid == SERIES
    assert SERIES in str(of_series.value)
    with pytest.raises(ImageSetNotFoundError, match=r"study 1\.2\.99; 0 non-primary"):
        Study.open(archive, DATASTORE, "1.2.99")
    with pytest.raises(ImageSetNotFoundError, match="0 non-primary"):
        Series.open(archive, DATASTORE, "1.2.99")


# Never mixed
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", ["P2", "p1", "", None])
def test_image_sets_of_different_patients_are_never_one(patient: str | None) -> None:
    archive = FakeArchive()
    archive.add(ident(1), slices=[0])
    archive.add(ident(2), slices=[1], patient=patient)
    for opening in (
        lambda: Study.open(archive, DATASTORE, STUDY),
        lambda: Series.open(archive, DATASTORE, SERIES),
    ):
        with pytest.raises(MixedPatientsError) as caught:
            opening()
        assert caught.value.image_set_id == ident(2)
        assert "P1" not in str(caught.value)
        assert "P2" not in str(caught.value)


def test_padding_and_missing_patient_ids_make_no_difference() -> None:
    archive = FakeArchive()
    archive.add(ident(1), slices=[0], patient="P1 ")
    archive.add(ident(2), slices=[1], patient="P1")
    assert len(Study.open(archive, DATASTORE, STUDY).image_sets) == 2
    for held in archive.held.values():
        held.document["Patient"]["DICOM"]["PatientID"] = None
    assert len(Study.open(archive, DATASTORE, STUDY).image_sets) == 2


def test_an_image_set_of_another_study_or_series_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    archive.add(ident(2), study="1.9", series="1.9.1")
    monkeypatch.setattr(archive, "_values", lambda _held, _name: [STUDY, SERIES])
    with pytest.raises(MetadataError, match=r"is of study 1\.9, not of study 1\.2\.3") as caught:
        Study.open(archive, DATASTORE, STUDY)
    assert caught.value.image_set_id == ident(2)
    with pytest.raises(MetadataError, match="does not hold") as caught:
        Series.open(archive, DATASTORE, SERIES)
    assert caught.value.image_set_id == ident(2)


def test_one_series_uid_in_two_studies_is_refused() -> None:
    archive = FakeArchive()
    archive.add(ident(1), slices=[0])
    archive.add(ident(2), slices=[1], study="1.9")
    with pytest.raises(MetadataError, match="is of study"):
        Series.open(archive, DATASTORE, SERIES)


# Faults
# ----------------------------------------------------------------------------------------------------------


def test_an_image_set_that_is_deleted_since_the_search_is_named() -> None:
    archive = FakeArchive()
    for k in range(1, 30):
        archive.add(ident(k), series=f"1.2.3.{k}", number=k)
    archive.held[ident(7)].state = "DELETED"
    archive.held[ident(9)].state = "DELETED"
    for _ in range(3):
        with pytest.raises(ImageSetNotFoundError) as caught:
            Study.open(archive, DATASTORE, STUDY)
        assert caught.value.image_set_id == ident(7)  # the first one, however the threads went
    assert not any(thread.name.startswith("header") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (client_error("AccessDeniedException", "SearchImageSets"), "AccessDeniedException"),
        (EndpointConnectionError(endpoint_url="http://x"), "EndpointConnectionError"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_a_search_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, code: str
) -> None:
    archive = FakeArchive(page=2)
    for k in range(5):
        archive.add(ident(k), series=f"1.2.3.{k}")
    search = archive.search_image_sets

    def failing(**request: Any) -> dict[str, Any]:
        if "nextToken" in request:
            raise fault
        return search(**request)

    monkeypatch.setattr(archive, "search_image_sets", failing)
    with pytest.raises(ServiceError) as caught:
        Study.open(archive, DATASTORE, STUDY)
    assert (caught.value.operation, caught.value.code) == ("SearchImageSets", code)


def test_pages_that_never_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    search = archive.search_image_sets
    monkeypatch.setattr(
        archive, "search_image_sets", lambda **request: search(**request) | {"nextToken": "0"}
    )
    with pytest.raises(ServiceError, match="again and again"):
        Study.open(archive, DATASTORE, STUDY)


def test_an_image_set_on_two_pages_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FakeArchive()
    archive.add(ident(1))
    (summary,) = archive.search_image_sets(
        searchCriteria={"filters": [{"values": [{"DICOMStudyInstanceUID": STUDY}], "operator": "EQUAL"}]},
        maxResults=50,
    )["imageSetsMetadataSummaries"]
    pages = [
        {"imageSetsMetadataSummaries": [summary], "nextToken": "1"},
        {"imageSetsMetadataSummaries": [copy.deepcopy(summary)]},
    ]
    monkeypatch.setattr(archive, "search_image_sets", lambda **_request: pages.pop(0))
    assert ids(Study.open(archive, DATASTORE, STUDY)) == [ident(1)]
    assert archive.opened == [ident(1)]


def test_a_search_result_without_identity_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FakeArchive()
    monkeypatch.setattr(
        archive, "search_image_sets", lambda **_request: {"imageSetsMetadataSummaries": [{"version": 1}]}
    )
    with pytest.raises(ServiceError, match="no image set id or version"):
        Study.open(archive, DATASTORE, STUDY)
