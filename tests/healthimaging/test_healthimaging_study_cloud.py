"""Studies against the local cloud: every page of the search, primary and non-primary image sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_archive import Archive, file_of
from cloud_under_test import CloudUnderTest, free_port
from pydicom.uid import generate_uid
from small_studies import ct_datasets

from healthimaging import ImageSet, Series, Study
from healthimaging.errors import SeriesNotFoundError, StudyNotFoundError

SERIES = 57
"""More image sets than a page of the search has."""


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


def test_a_study_of_more_image_sets_than_a_page_is_whole(archive: Archive) -> None:
    study_uid = generate_uid()
    source = [
        dataset
        for number in range(SERIES, 0, -1)
        for dataset in ct_datasets(2 if number == 7 else 1, study_uid=study_uid, SeriesNumber=number)
    ]
    other = ct_datasets(1, PatientID="SOMEBODY ELSE")
    found = archive.import_files({f"{k:03}.dcm": file_of(one) for k, one in enumerate([*source, *other])})
    assert len(set(found.values())) == SERIES + 1
    study = Study.open(archive.client, archive.datastore_id, study_uid)
    assert len(study.image_sets) == SERIES
    assert study.non_primary == ()
    numbers = [series.metadata.series[series.series_instance_uid].attributes for series in study.series()]
    assert [attributes.integer("SeriesNumber") for attributes in numbers] == list(range(1, SERIES + 1))
    back = {dataset.SOPInstanceUID: dataset for dataset in study.datasets()}
    assert set(back) == {dataset.SOPInstanceUID for dataset in source}
    assert all(back[one.SOPInstanceUID].PixelData == one.PixelData for one in source)
    seventh = next(one for one in source if one.SeriesNumber == 7)
    series = Series.open(archive.client, archive.datastore_id, seventh.SeriesInstanceUID)
    (volume,) = series.volumes()
    (of_study,) = study.volumes(series_instance_uid=seventh.SeriesInstanceUID)
    assert np.array_equal(volume.array, of_study.array)
    assert volume.array.shape == (2, 8, 8)


def test_what_contradicts_the_study_is_reported_beside_it(archive: Archive) -> None:
    first = ct_datasets(3)
    study_uid = first[0].StudyInstanceUID
    archive.import_files({f"{k}.dcm": file_of(one) for k, one in enumerate(first)})
    stray = ct_datasets(1, study_uid=study_uid, PatientID="MIXED UP")
    found = archive.import_files({"stray.dcm": file_of(stray[0])})
    study = Study.open(archive.client, archive.datastore_id, study_uid)
    assert study.non_primary == (found["stray.dcm"],)
    assert {str(dataset.PatientID) for dataset in study.datasets(pixels=False)} == {str(first[0].PatientID)}
    named = study.non_primary[0]
    opened = ImageSet.open(archive.client, named.datastore_id, named.image_set_id, named.version_id)
    assert not opened.is_primary
    with pytest.raises(SeriesNotFoundError, match="1 non-primary") as caught:
        Series.open(archive.client, archive.datastore_id, stray[0].SeriesInstanceUID)
    assert caught.value.non_primary == study.non_primary
    with pytest.raises(StudyNotFoundError, match="0 non-primary"):
        Study.open(archive.client, archive.datastore_id, generate_uid())


def test_an_opened_study_stays_as_it_was(archive: Archive) -> None:
    first = ct_datasets(2)
    archive.import_files({f"{k}.dcm": file_of(one) for k, one in enumerate(first)})
    study = Study.open(archive.client, archive.datastore_id, first[0].StudyInstanceUID)
    later = ct_datasets(1, study_uid=first[0].StudyInstanceUID)[0]
    later.SeriesInstanceUID, later.ImagePositionPatient = first[0].SeriesInstanceUID, [0, 0, 5]
    archive.import_files({"later.dcm": file_of(later)})
    assert study.image_sets[0].ref.version_id == "1"
    assert study.volumes()[0].array.shape[0] == 2
    again = Study.open(archive.client, archive.datastore_id, first[0].StudyInstanceUID)
    assert again.image_sets[0].ref.version_id == "2"
    assert again.volumes()[0].array.shape[0] == 3


LIMITS = "SearchImageSets=2/1,GetImageSetMetadata=20/4,GetDICOMInstance=20/4,SearchDICOMInstances=1/1"
"""Requests a second, and how many at once: below what a study of this test asks for."""


@pytest.fixture
def strict_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudUnderTest]:
    monkeypatch.setenv("LOCAL_HEALTHIMAGING_LIMITS", LIMITS)
    running = CloudUnderTest(root=tmp_path / "cloud", port=free_port())
    running.start()
    yield running
    running.stop()


def test_a_study_is_whole_although_the_service_throttles(strict_cloud: CloudUnderTest) -> None:
    archive = Archive.create(strict_cloud)
    study_uid = generate_uid()
    source = [ct_datasets(1, study_uid=study_uid, SeriesNumber=number)[0] for number in range(12)]
    archive.import_files({f"{k:02}.dcm": file_of(one) for k, one in enumerate(source)})
    for _ in range(2):
        study = Study.open(archive.client, archive.datastore_id, study_uid)
        assert len(study.image_sets) == 12
    with archive.web as web:
        got = list(web.retrieve_instances(study=study_uid, at_once=12))
    assert {one.SOPInstanceUID for one in got} == {one.SOPInstanceUID for one in source}
