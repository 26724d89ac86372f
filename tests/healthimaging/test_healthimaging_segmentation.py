"""Segmentations: what is written reads back voxel for voxel, and repeats the identity of its study."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, ct_series, image_set, instance
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.coding import Code

from healthimaging import (
    Geometry,
    ImageSet,
    SegmentDescription,
    Volume,
    read_segmentation,
    write_segmentation,
)
from healthimaging.errors import GeometryMismatchError, SegmentationError
from healthimaging.segmentation import GROUPING_ATTRIBUTES

ORGAN = Code("123037004", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
LESION = Code("52988006", "SCT", "Lesion")


def segment(number: int = 1, label: str = "lung", **changed: Any) -> SegmentDescription:
    return SegmentDescription(
        **{"number": number, "label": label, "category": ORGAN, "type": LUNG, **changed}
    )


def write(
    source: list[pydicom.Dataset], masks: Any, segments: list[SegmentDescription] | None = None
) -> pydicom.Dataset:
    return write_segmentation(
        source=source,
        masks=masks,
        segments=segments or [segment(k + 1, f"s{k}") for k in range(masks.shape[0])],
        series_instance_uid="1.2.3.77",
        sop_instance_uid="1.2.3.77.1",
        series_number=900,
        algorithm_name="test",
        algorithm_version="1.0",
        series_description="Segmentation",
    )


def through_a_file(dataset: pydicom.Dataset) -> pydicom.Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def opened(service: FakeService) -> tuple[Volume, list[pydicom.Dataset]]:
    found = ImageSet.open(service, DATASTORE, IMAGE_SET)
    return found.volumes()[0], found.datasets(pixels=False)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(3, 17),
    st.integers(3, 17),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.integers(0, 2**16),
)
def test_writing_and_reading_is_the_identity(
    segments: int, slices: int, rows: int, columns: int, density: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-0.4, 0.4)
    orientation = (np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0)
    built = [
        instance(
            np.zeros((rows, columns), np.int16),
            number=k + 1,
            position=(-3.5, 7.25, 2.5 * k),
            orientation=orientation,
            spacing=(0.7, 0.9),
        )
        for k in rng.permutation(slices)
    ]
    volume, source = opened(image_set(built))
    masks = rng.random((segments, slices, rows, columns)) < density
    read = read_segmentation(through_a_file(write(source, masks)), volume.geometry)
    assert read.array.dtype == np.bool_
    assert np.array_equal(read.array, masks)
    assert read.geometry is volume.geometry


def test_source_in_another_order_keeps_each_mask_on_its_slice() -> None:
    volume, source = opened(ct_series()[0])
    masks = np.zeros((1, *volume.geometry.shape), bool)
    masks[0, 2, 1:4, 2:9] = True
    order = [4, 2, 0, 6, 5, 3, 1]
    written = write([source[k] for k in order], masks[:, order])
    assert np.array_equal(read_segmentation(written, volume.geometry).array, masks)


def write_on(grid: Geometry, source: list[pydicom.Dataset], masks: Any) -> pydicom.Dataset:
    return write_segmentation(
        source=source,
        masks=masks,
        grid=grid,
        segments=[segment()],
        series_instance_uid="1.2.3.77",
        sop_instance_uid="1.2.3.77.1",
        series_number=900,
        algorithm_name="test",
        algorithm_version="1.0",
    )


def test_masks_on_a_grid_find_their_slices_whatever_the_order_of_the_source() -> None:
    volume, source = opened(ct_series()[0])
    masks = np.zeros((1, *volume.geometry.shape), bool)
    masks[0, 2, 1:4, 2:9] = True
    written = write_on(volume.geometry, [source[k] for k in (4, 2, 0, 6, 5, 3, 1)], masks)
    assert np.array_equal(read_segmentation(written, volume.geometry).array, masks)


@pytest.mark.parametrize("moved", ["aside", "along", "rotated", "frame of reference", "part"])
def test_masks_on_another_grid_than_the_source_are_refused(moved: str) -> None:
    volume, source = opened(ct_series()[0])
    own = volume.geometry
    affine, shape, frame = own.affine.copy(), own.shape, own.frame_of_reference_uid
    if moved == "aside":
        affine[0, 3] += 0.6 * own.spacing[0]
    elif moved == "along":
        affine[:3, 3] += affine[:3, 2]  # by a whole slice: all but one still lie on slices of the source
    elif moved == "rotated":
        affine[:3, 0] *= -1
    elif moved == "part":
        shape, source = (shape[0] - 1, *shape[1:]), source[:-2] + source[-1:]
    else:
        frame = "1.2.3.4.5"
    masks = np.ones((1, *shape), bool)
    with pytest.raises(GeometryMismatchError):
        write_on(Geometry(affine, shape, frame), source, masks)
    if moved != "part":
        assert write_on(own, source, masks)


def test_segments_carry_their_codes_and_colours() -> None:
    volume, source = opened(ct_series()[0])
    masks = np.ones((2, *volume.geometry.shape), bool)
    described = [
        segment(1, "lung", color=(250, 120, 10)),
        segment(
            2, "lesion", category=Code("49755003", "SCT", "Morphologically Abnormal Structure"), type=LESION
        ),
    ]
    written = through_a_file(write(source, masks, described))
    read = read_segmentation(written, volume.geometry)
    assert [s.label for s in read.segments] == ["lung", "lesion"]
    assert [s.type for s in read.segments] == [LUNG, LESION]
    assert read.segments[0].color == pytest.approx((250, 120, 10), abs=2)
    assert read.segments[1].color is None
    item = written.SegmentSequence[0]
    assert item.SegmentAlgorithmType == "AUTOMATIC"
    assert item.SegmentAlgorithmName == "test"
    assert written.SeriesDescription == "Segmentation"


def test_grouping_attributes_are_repeated_exactly() -> None:
    service, _ = ct_series()
    service.document["Study"]["DICOM"]["StudyID"] = "S-17"
    service.document["Study"]["DICOM"]["AccessionNumber"] = "A/1"
    volume, source = opened(service)
    written = through_a_file(write(source, np.ones((1, *volume.geometry.shape), bool)))
    for keyword in GROUPING_ATTRIBUTES:
        assert written[keyword].value == source[0][keyword].value, keyword
    assert written.FrameOfReferenceUID == source[0].FrameOfReferenceUID


def test_what_the_source_lacks_is_empty_and_the_source_is_not_changed() -> None:
    service, _ = ct_series()
    for keyword in ("StudyID", "AccessionNumber", "StudyDate"):
        service.document["Study"]["DICOM"].pop(keyword)
    volume, source = opened(service)
    before = [dataset.to_json() for dataset in source]
    written = through_a_file(write(source, np.ones((1, *volume.geometry.shape), bool)))
    assert not written.StudyID
    assert not written.AccessionNumber
    assert [dataset.to_json() for dataset in source] == before


def test_references_every_source_instance() -> None:
    volume, source = opened(ct_series()[0])
    written = write(source, np.ones((1, *volume.geometry.shape), bool))
    referenced = {
        item.ReferencedSOPInstanceUID
        for series in written.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    assert referenced == {dataset.SOPInstanceUID for dataset in source}


def test_highdicom_reads_it_as_the_same_volume() -> None:
    volume, source = opened(ct_series()[0])
    masks = np.zeros((1, *volume.geometry.shape), bool)
    masks[0, 1:5, 2:6, 3:8] = True
    theirs = highdicom.seg.Segmentation.from_dataset(through_a_file(write(source, masks))).get_volume(
        combine_segments=True
    )
    index = np.argwhere(theirs.array)
    coordinates = theirs.map_indices_to_reference(index)
    ours = np.argwhere(masks[0])
    expected = volume.geometry.to_patient(ours[:, ::-1])
    assert sorted(map(tuple, np.round(coordinates, 3))) == sorted(map(tuple, np.round(expected, 3)))


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (7, 9, 13)},
        {"shape": (3, 9, 12)},
        {"shift": (0, 0, 1.0)},
        {"shift": (0.3, 0, 0)},
        {"scale": 1.05},
        {"frame": "9.9.9"},
        {"flip": True},
    ],
)
def test_other_grids_are_refused(changed: dict[str, Any]) -> None:
    volume, source = opened(ct_series()[0])
    written = write(source, np.ones((1, *volume.geometry.shape), bool))
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += changed.get("shift", 0)
    affine[:3, 0] *= changed.get("scale", 1)
    if changed.get("flip"):
        affine[:3, 1] *= -1
    other = Geometry(
        affine,
        changed.get("shape", volume.geometry.shape),
        changed.get("frame", volume.geometry.frame_of_reference_uid),
    )
    with pytest.raises(GeometryMismatchError):
        read_segmentation(written, other)


def test_grid_with_more_slices_has_empty_ones() -> None:
    volume, source = opened(ct_series()[0])
    masks = np.ones((1, *volume.geometry.shape), bool)
    slices, rows, columns = volume.geometry.shape
    longer = Geometry(volume.geometry.affine, (slices + 2, rows, columns))
    read = read_segmentation(write(source, masks), longer)
    assert read.array[0, :slices].all()
    assert not read.array[0, slices:].any()


@pytest.mark.parametrize(
    ("shape", "dtype", "fill", "message"),
    [
        ((1, 6, 9, 12), bool, 1, "shape"),
        ((2, 7, 9, 12), bool, 1, "shape"),
        ((1, 7, 12, 9), bool, 1, "shape"),
        ((1, 7, 9, 12), np.uint8, 2, "other values"),
        ((1, 7, 9, 12), np.float32, 0.5, "other values"),
    ],
)
def test_masks_that_do_not_fit_are_refused(shape: Any, dtype: Any, fill: float, message: str) -> None:
    _, source = opened(ct_series()[0])
    with pytest.raises(SegmentationError, match=message):
        write(source, np.full(shape, fill, dtype), [segment()])


def test_frames_too_small_to_pack_are_refused() -> None:
    built = [instance(np.zeros((1, 7), np.int16), number=1, position=(0, 0, 0))]
    _, source = opened(image_set(built))
    with pytest.raises(SegmentationError, match="cannot be packed"):
        write(source, np.ones((1, 1, 1, 7), bool))


def test_padding_is_a_null_byte() -> None:
    built = [instance(np.zeros((3, 3), np.int16), number=1, position=(0, 0, 0))]
    _, source = opened(image_set(built))
    assert write(source, np.ones((1, 1, 3, 3), bool)).PixelData == b"\xff\x01"
    built = [instance(np.zeros((2, 4), np.int16), number=1, position=(0, 0, 0))]
    _, source = opened(image_set(built))
    assert write(source, np.ones((1, 1, 2, 4), bool)).PixelData == b"\xff\x00"


def test_damaged_pixel_data_is_refused() -> None:
    volume, source = opened(ct_series()[0])
    written = write(source, np.ones((1, *volume.geometry.shape), bool))
    written.PixelData = written.PixelData[:10]
    with pytest.raises(SegmentationError, match="cannot be decoded"):
        read_segmentation(written, volume.geometry)


def test_segments_are_numbered_from_one() -> None:
    volume, source = opened(ct_series()[0])
    with pytest.raises(SegmentationError, match="numbered"):
        write(source, np.ones((1, *volume.geometry.shape), bool), [segment(2)])
    with pytest.raises(SegmentationError, match="at least one"):
        write([], np.ones((1, 1, 1, 1), bool), [segment()])


def test_source_without_what_a_segmentation_needs_is_refused_without_patient_data() -> None:
    volume, source = opened(ct_series()[0])
    for dataset in source:
        del dataset.Rows
        dataset.Rows = volume.geometry.shape[1]
        del dataset.ImageOrientationPatient
    with pytest.raises(SegmentationError) as caught:
        write(source, np.ones((1, *volume.geometry.shape), bool))
    assert caught.value.__cause__ is None
    assert "P1" not in str(caught.value)


def test_only_binary_segmentations_are_read() -> None:
    volume, source = opened(ct_series()[0])
    with pytest.raises(SegmentationError, match="not a binary segmentation"):
        read_segmentation(source[0], volume.geometry)
    written = write(source, np.ones((1, *volume.geometry.shape), bool))
    written.SegmentationType = "FRACTIONAL"
    with pytest.raises(SegmentationError, match="not a binary segmentation"):
        read_segmentation(written, volume.geometry)


def test_two_frames_of_one_segment_in_one_slice_are_refused() -> None:
    volume, source = opened(ct_series()[0])
    written = write(source, np.ones((1, *volume.geometry.shape), bool))
    groups = written.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
    with pytest.raises(SegmentationError, match="two frames"):
        read_segmentation(written, volume.geometry)


def test_one_slice() -> None:
    built = [instance(np.zeros((4, 6), np.int16), number=1, position=(0, 0, 0))]
    volume, source = opened(image_set(built))
    masks = np.eye(4, 6, dtype=bool)[None, None]
    assert np.array_equal(
        read_segmentation(through_a_file(write(source, masks)), volume.geometry).array, masks
    )


@pytest.mark.parametrize("header", [None, 9.0])
@pytest.mark.parametrize("jitter", [0.0, 0.04])
def test_voxel_height_comes_from_the_positions(header: float | None, jitter: float) -> None:
    heights = [2.5 * k + jitter * (k in (2, 5)) for k in range(8)]
    built = [
        instance(np.zeros((5, 6), np.int16), number=k + 1, position=(0, 0, z), SliceThickness="5")
        for k, z in enumerate(heights)
    ]
    volume, source = opened(image_set(built))
    for one in source:
        one.SpacingBetweenSlices = header
    measures = write(source, np.ones((1, *volume.geometry.shape), bool)).SharedFunctionalGroupsSequence[0]
    assert measures.PixelMeasuresSequence[0].SpacingBetweenSlices == pytest.approx(2.5)


def test_single_slice_keeps_the_spacing_of_its_header() -> None:
    built = [instance(np.zeros((5, 6), np.int16), number=1, position=(0, 0, 0), SpacingBetweenSlices="4")]
    volume, source = opened(image_set(built))
    measures = write(source, np.ones((1, *volume.geometry.shape), bool)).SharedFunctionalGroupsSequence[0]
    assert measures.PixelMeasuresSequence[0].SpacingBetweenSlices == volume.geometry.spacing[2] == 4
