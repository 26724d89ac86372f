"""The connector against the local cloud: what was imported is what is read, in every transfer syntax."""

from __future__ import annotations

import warnings
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from cloud_archive import Archive, file_of
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from healthimaging import ImageSetRef, SegmentDescription, read_segmentation, write_segmentation
from healthimaging.errors import FrameDecodeError, HealthImagingError, ImageSetNotFoundError, MetadataError

LUNG = SegmentDescription(
    number=1,
    label="lung",
    category=Code("123037004", "SCT", "Anatomical Structure"),
    type=Code("39607008", "SCT", "Lung"),
)


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


def ct_series(slices: int = 9, rows: int = 24, columns: int = 32) -> tuple[list[Dataset], Any]:
    """An oblique CT series with non-square pixels, in shuffled order, and its HU (slices, rows, columns)."""
    rng = np.random.default_rng(11)
    stored = rng.integers(0, 4096, (slices, rows, columns), dtype=np.uint16)
    template = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    normal = np.array([0, -0.6, 0.8])
    made = []
    for k in rng.permutation(slices):
        one = Dataset()
        one.update({e.tag: deepcopy(e) for e in template if e.tag.group < 0x7FE0 and not e.tag.is_private})
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = generate_uid()
        one.InstanceNumber = int(slices - k)
        x, y, z = np.array([-120.5, 33.25, 10]) + 2.5 * k * normal
        one.ImagePositionPatient = [f"{v:.4f}" for v in (x, y, z)]
        one.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]
        one.PixelSpacing = [0.75, 0.5]
        one.Rows, one.Columns = rows, columns
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
            one.pop(keyword, None)
        one.PixelData = stored[k].tobytes()
        made.append(one)
    return made, stored.astype(np.int16) - 1024


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


CHANGED_BY_DECODING = {
    "PixelData",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "SpecificCharacterSet",
}


def differences(original: Dataset, found: Dataset, path: str = "") -> list[str]:
    """Names of attributes that differ, sequences included; pixel attributes are compared elsewhere."""
    named: list[str] = []
    for tag in sorted({*original.keys(), *found.keys()}):
        keyword = pydicom.datadict.keyword_for_tag(tag) or str(tag)
        if keyword in CHANGED_BY_DECODING or tag.element == 0:
            continue
        one, two = original.get(tag), found.get(tag)
        if one is None or two is None:
            named.append(f"{path}{keyword}: only in the {'found' if one is None else 'original'}")
        elif one.VR == "SQ":
            if len(one.value) != len(two.value):
                named.append(f"{path}{keyword}: items")
            for k, (a, b) in enumerate(zip(one.value, two.value, strict=False)):
                named += differences(a, b, f"{path}{keyword}[{k}].")
        elif _plain(one.value) != _plain(two.value):
            named.append(f"{path}{keyword}: {one.VR} {two.VR}")
    return named


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0):
        return b""
    if isinstance(value, pydicom.multival.MultiValue | list):
        return [_plain(item) for item in value]
    if isinstance(value, str | pydicom.valuerep.PersonName):
        return str(value).rstrip(" \0")
    return value


FOLDER = Path(pydicom.data.data_manager.DATA_ROOT) / "test_files"
REAL_FILES = sorted(path.name for path in FOLDER.glob("*.dcm"))

NOT_PART_10 = {"ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm", "rtstruct.dcm"}
TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
WITHOUT_REQUIRED_ATTRIBUTES = {
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"),
    *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm"),
    *("UN_sequence.dcm", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"),
    *("no_meta_group_length.dcm", "priv_SQ.dcm"),
}
NOT_IMPORTED = NOT_PART_10 | TRUNCATED | WITHOUT_REQUIRED_ATTRIBUTES
"""What an import job refuses."""

NOT_READ: dict[str, type[HealthImagingError]] = {
    "JPEG2000-embedded-sequence-delimiter.dcm": FrameDecodeError,  # the frame is cut at the delimiter
    "badVR.dcm": MetadataError,  # NumberOfFrames is not a number
}
"""What is imported and then refused with a typed error instead of a guess."""

WITHOUT_ORACLE = {"GDCMJ2K_TextGBR.dcm", "JPEG-lossy.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm"}
"""What pydicom cannot decode with the decoders at hand; only the attributes are compared."""


@pytest.fixture(scope="module")
def real_files(archive: Archive) -> dict[str, ImageSetRef]:
    """What every real file became; files of one SOP Instance UID are versions of one image set."""
    batches: list[dict[str, bytes]] = []
    taken: list[set[str]] = []
    # What cannot be read comes last: a later version of an image set of others must not hold it.
    for name in sorted(REAL_FILES, key=lambda name: name in NOT_READ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            uid = str(pydicom.dcmread(FOLDER / name, force=True).get("SOPInstanceUID"))
        free = (k for k, uids in enumerate(taken) if uid not in uids and name not in NOT_READ)
        k = next(free, len(taken))
        if k == len(taken):
            batches.append({})
            taken.append(set())
        batches[k][name] = (FOLDER / name).read_bytes()
        taken[k].add(uid)
    found: dict[str, ImageSetRef] = {}
    for batch in batches:
        found.update(archive.import_files(batch))
    return found


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_come_back_as_they_went(
    archive: Archive, real_files: dict[str, ImageSetRef], name: str
) -> None:
    assert (name not in real_files) == (name in NOT_IMPORTED)
    if name in NOT_IMPORTED:
        return
    opened = archive.open(real_files[name].image_set_id, real_files[name].version_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what the files are here for
        original = pydicom.dcmread(FOLDER / name)
        if name in NOT_READ:
            with pytest.raises(NOT_READ[name]):
                opened.datasets()
            return
        (found,) = [d for d in opened.datasets() if d.SOPInstanceUID == original.SOPInstanceUID]
        read = through_a_file(found)
        assert differences(original, read) == []
        if "PixelData" in original and name not in WITHOUT_ORACLE:
            expected, got = original.pixel_array, read.pixel_array
            assert got.shape == expected.shape
            lossy = original.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
            assert np.abs(got.astype(np.int64) - expected).max() <= (3 if lossy else 0)


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
