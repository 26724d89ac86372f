"""The connector against the local cloud: a series, its segmentation and its versions, there and back."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from cloud_archive import Archive, file_of
from dicom_equality import differences
from oblique_series import LUNG, ct_series
from pydicom import Dataset
from pydicom.uid import generate_uid

from healthimaging import read_segmentation, write_segmentation
from healthimaging.errors import ImageSetNotFoundError


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


def test_volume_equals_the_source(archive: Archive) -> None:
    source, hu = ct_series()
    found = archive.image_set(source)
    assert found.is_primary
    (volume,) = found.volumes()
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, hu)
    by_slice = sorted(source, key=lambda dataset: -dataset.InstanceNumber)
    assert volume.instance_uids == tuple(dataset.SOPInstanceUID for dataset in by_slice)
    assert volume.geometry.spacing == pytest.approx((0.5, 0.75, 2.5))
    for k, dataset in enumerate(by_slice):
        assert volume.geometry.to_patient((0, 0, k)) == pytest.approx(
            list(dataset.ImagePositionPatient), abs=1e-3
        )
    assert volume.geometry.direction[:, 1] == pytest.approx([0, 0.8, 0.6])
    assert volume.geometry.frame_of_reference_uid == source[0].FrameOfReferenceUID


def test_datasets_equal_the_source(archive: Archive) -> None:
    source, _ = ct_series(3)
    found = archive.image_set(source)
    originals = {dataset.SOPInstanceUID: dataset for dataset in source}
    for dataset in found.datasets():
        original = originals[dataset.SOPInstanceUID]
        assert differences(original, through_a_file(dataset)) == []
        assert through_a_file(dataset).pixel_array.tobytes() == original.PixelData


def through_a_file(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(file_of(dataset)))


def test_segmentation_is_stored_beside_its_source_and_reads_back(archive: Archive) -> None:
    source, hu = ct_series()
    found = archive.image_set(source)
    (volume,) = found.volumes()
    masks = (volume.array > 800)[None]
    headers = found.datasets(pixels=False)
    written = write_segmentation(
        source=headers,
        masks=masks,
        segments=[LUNG],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=900,
        algorithm_name="threshold",
        algorithm_version="1",
    )
    (outcome,) = archive.web.store([written])
    assert outcome.stored
    study = source[0].StudyInstanceUID
    series = {d.SeriesInstanceUID: d for d in archive.web.search("series", study=study)}
    assert set(series) == {source[0].SeriesInstanceUID, written.SeriesInstanceUID}
    summaries = archive.client.search_image_sets(
        datastoreId=archive.datastore_id,
        searchCriteria={
            "filters": [
                {"operator": "EQUAL", "values": [{"DICOMSeriesInstanceUID": written.SeriesInstanceUID}]}
            ]
        },
    )["imageSetsMetadataSummaries"]
    (summary,) = summaries
    stored = archive.open(summary["imageSetId"])
    assert stored.is_primary
    (read,) = stored.datasets()
    assert np.array_equal(read_segmentation(through_a_file(read), volume.geometry).array, masks)
    retrieved = archive.web.retrieve(
        study=study, series=written.SeriesInstanceUID, instance=written.SOPInstanceUID
    )
    assert np.array_equal(read_segmentation(retrieved, volume.geometry).array, masks)
    assert hu.shape == volume.array.shape


def test_jpeg_2000_datastore(cloud: Any) -> None:
    archive = Archive.create(cloud, losslessStorageFormat="JPEG_2000_LOSSLESS")
    source, hu = ct_series(4)
    found = archive.image_set(source)
    assert {i.transfer_syntax_uid for i in found.metadata.instances} == {"1.2.840.10008.1.2.4.90"}
    assert np.array_equal(found.volumes()[0].array, hu)


def test_version_pin_and_absence(archive: Archive) -> None:
    source, _ = ct_series(2)
    found = archive.image_set(source)
    again = type(found).open(
        archive.client, archive.datastore_id, found.ref.image_set_id, found.ref.version_id
    )
    assert again.ref == found.ref
    with pytest.raises(ImageSetNotFoundError):
        type(found).open(archive.client, archive.datastore_id, found.ref.image_set_id, "9")
    with pytest.raises(ImageSetNotFoundError):
        archive.open("0" * 32)
