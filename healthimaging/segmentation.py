"""DICOM Segmentation objects (PS3.3 section A.51) from masks on a source's grid, and back onto a given grid.

A segmentation must repeat the source's grouping attributes exactly: HealthImaging files it beside the
source as a primary image set only then, and DICOMweb shows primary image sets only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from healthimaging.errors import GeometryMismatchError, SegmentationError
from healthimaging.grouping import GROUPING_ATTRIBUTES, repeat_grouping_attributes, with_empty_attributes
from healthimaging.volumes.geometry import MATCH_TOLERANCE, Geometry, plane_directions
from healthimaging.volumes.slices import SIDEWAYS_TOLERANCE, SPACING_TOLERANCE

__all__ = [
    "GROUPING_ATTRIBUTES",
    "LabelVolume",
    "SegmentDescription",
    "read_segmentation",
    "write_segmentation",
]

BoolArray = npt.NDArray[np.bool_]

SEGMENTATION_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"

_SMALLEST_FRAME = 8
"""Pixels. highdicom 0.28.2 pads smaller frames to bytes, which is not DICOM (PS3.5 section 8.1.1)."""

ARTIFICIAL_INTELLIGENCE: Code = codes.cid7162.ArtificialIntelligence


@dataclass(frozen=True, kw_only=True)
class SegmentDescription:
    """What one segment is.

    Attributes:
        number: Segment number, from 1 without gaps.
        label: For people.
        category: For example `Code("123037004", "SCT", "Anatomical Structure")` (PS3.16 CID 7150).
        type: For example `Code("39607008", "SCT", "Lung")` (PS3.16 CID 7151 and its extensions).
        color: (red, green, blue), 0 to 255, for display; None leaves it to the viewer. DICOM stores CIELab,
            so that reading back may differ by a step or two.
    """

    number: int
    label: str
    category: Code
    type: Code
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelVolume:
    """Masks on a grid.

    Attributes:
        array: (segments, slices, rows, columns) of bool, segments in the order of `segments`; segments may
            overlap.
        geometry: The grid of each mask.
        segments: What each mask is, by segment number.
    """

    array: BoolArray
    geometry: Geometry
    segments: tuple[SegmentDescription, ...]


def write_segmentation(
    *,
    source: Sequence[Dataset],
    masks: npt.NDArray[np.generic],
    grid: Geometry | None = None,
    segments: Sequence[SegmentDescription],
    series_instance_uid: str,
    sop_instance_uid: str,
    series_number: int,
    algorithm_name: str,
    algorithm_version: str,
    algorithm_family: Code = ARTIFICIAL_INTELLIGENCE,
    series_description: str | None = None,
    manufacturer: str = "MONAI on AWS",
    manufacturer_model_name: str = "MONAI on AWS",
    software_version: str = "1",
    device_serial_number: str = "1",
) -> Dataset:
    """A binary segmentation of a source series.

    Frames without a voxel are left out, except that a segmentation without any voxel keeps them all: it
    says that nothing was found, and a DICOM image needs a frame.

    Args:
        source: The source's instances, header only or with pixels.
        masks: (segments, slices, rows, columns), bool or 0 and 1: `masks[s, k]` lies on slice k of `grid`.
            Without a grid, on `source[k]`, or on frame k + 1 of a multi-frame source, whatever order its
            frames have in space.
        grid: The grid that the masks lie on, as `Volume.geometry` of the source. Each slice of the source
            must lie on a slice of it: a volume that was resampled, masks of another grid and those of
            another series are refused, and the order of `source` means nothing.
        segments: One description a mask, numbered 1, 2, ... in order.
        series_instance_uid: Of the new series.
        sop_instance_uid: Of the new instance.
        series_number: Of the new series.
        algorithm_name: What made the masks.
        algorithm_version: Its version.
        algorithm_family: Its kind (PS3.16 CID 7162).
        series_description: Of the new series.
        manufacturer: Of the equipment that made the segmentation, that is the software.
        manufacturer_model_name: Likewise.
        software_version: Likewise.
        device_serial_number: Likewise.

    Raises:
        SegmentationError: Masks, segments and source do not fit together, or the source lacks what a
            segmentation must repeat.
        GeometryMismatchError: A slice of the source does not lie on the grid.
    """
    _check_masks(source, masks, segments)
    if grid is not None:
        masks = masks[:, _slices_of_source(source, grid)]
    binary = masks.astype(bool, copy=False)
    try:
        dataset: Dataset = highdicom.seg.Segmentation(
            source_images=[with_empty_attributes(source[0]), *source[1:]],
            pixel_array=np.ascontiguousarray(np.moveaxis(binary, 0, -1)).astype(np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _to_highdicom(
                    segment,
                    highdicom.AlgorithmIdentificationSequence(
                        name=algorithm_name, family=algorithm_family, version=algorithm_version
                    ),
                )
                for segment in segments
            ],
            series_instance_uid=series_instance_uid,
            series_number=series_number,
            sop_instance_uid=sop_instance_uid,
            instance_number=1,
            manufacturer=manufacturer,
            manufacturer_model_name=manufacturer_model_name,
            software_versions=software_version,
            device_serial_number=device_serial_number,
            omit_empty_frames=bool(binary.any()),
            content_label="SEGMENTATION",
            series_description=series_description,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # Without the cause: it may quote the source's header, which is patient data.
        msg = f"The segmentation cannot be built from this source: {type(error).__name__}"
        raise SegmentationError(msg, sop_instance_uid=source[0].get("SOPInstanceUID")) from None
    repeat_grouping_attributes(source[0], dataset)
    _measure_slice_spacing(source, dataset)
    if len(dataset.PixelData) * 8 >= binary[0, 0].size * int(dataset.NumberOfFrames) + 8:
        # The padding of odd pixel data is a null byte (PS3.5 section 8.1.1); highdicom 0.28.2 writes the
        # digit 0.
        dataset.PixelData = dataset.PixelData[:-1] + b"\0"
    return dataset


def _check_masks(
    source: Sequence[Dataset], masks: npt.NDArray[np.generic], segments: Sequence[SegmentDescription]
) -> None:
    if not source or not segments:
        msg = "A segmentation needs a source and at least one segment"
        raise SegmentationError(msg)
    slices = sum(int(dataset.get("NumberOfFrames") or 1) for dataset in source)
    expected = (len(segments), slices, int(source[0].Rows), int(source[0].Columns))
    if masks.shape != expected:
        msg = f"Masks have shape {masks.shape}; segments and source ask for {expected}"
        raise SegmentationError(msg)
    if masks.dtype != np.bool_ and not np.isin(np.unique(masks), (0, 1)).all():
        msg = "Masks hold other values than 0 and 1"
        raise SegmentationError(msg)
    if masks.shape[2] * masks.shape[3] < _SMALLEST_FRAME:
        msg = f"Frames of {masks.shape[2]} x {masks.shape[3]} pixels cannot be packed"
        raise SegmentationError(msg)
    numbers = [segment.number for segment in segments]
    if numbers != list(range(1, len(segments) + 1)):
        msg = f"Segments must be numbered from 1 in order, got {numbers}"
        raise SegmentationError(msg)


def _to_highdicom(
    segment: SegmentDescription, algorithm: highdicom.AlgorithmIdentificationSequence
) -> highdicom.seg.SegmentDescription:
    return highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.type,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=None if segment.color is None else highdicom.color.CIELabColor.from_rgb(*segment.color),
    )


def _slices_of_source(source: Sequence[Dataset], grid: Geometry) -> list[int]:
    """The slice of the grid that each frame of the source lies on, in the order of the source.

    Slices may be as far off their regular places as those of a volume may (`healthimaging.volumes.slices`).
    """
    _require_frame_of_reference(source[0], grid)
    column_mm, row_mm, slice_mm = grid.spacing
    allowed = SIDEWAYS_TOLERANCE * min(column_mm, row_mm) + SPACING_TOLERANCE * slice_mm
    order = [
        _slice_index(macros, grid.shape[1:], grid, allowed_mm=allowed, uid=uid, number=number)
        for macros, uid, number in _source_frames(source)
    ]
    if sorted(order) != list(range(grid.shape[0])):
        msg = f"The source's {len(order)} slices are not those of the grid, which has {grid.shape[0]}"
        raise GeometryMismatchError(msg, sop_instance_uid=str(source[0].get("SOPInstanceUID")))
    return order


def _source_frames(source: Sequence[Dataset]) -> Iterator[tuple[tuple[Dataset, ...], str, int]]:
    """(functional groups, SOP Instance UID, frame number) of each frame."""
    for dataset in source:
        uid = str(dataset.get("SOPInstanceUID"))
        groups = dataset.get("PerFrameFunctionalGroupsSequence")
        if groups:
            shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
            for number, group in enumerate(groups, start=1):
                yield (group, shared[0]), uid, number
        else:
            yield (_as_functional_groups(dataset),), uid, 1


def _as_functional_groups(dataset: Dataset) -> Dataset:
    """The place of a single-frame image, in the form that frames of a multi-frame image have it."""
    groups = Dataset()
    for sequence, keyword in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        if dataset.get(keyword) is not None:
            item = Dataset()
            item[keyword] = dataset[keyword]
            setattr(groups, sequence, [item])
    return groups


def _measure_slice_spacing(source: Sequence[Dataset], segmentation: Dataset) -> None:
    """Writes the distance of the source's slices, which readers take for the height of a voxel.

    highdicom repeats SpacingBetweenSlices of the source's header, which some scanners fill with the gap
    between slices, and leaves it out where positions jitter: readers then take the slice thickness. Both give
    wrong volumes beside right masks, so positions alone decide (as in `healthimaging.volumes.slices`).
    """
    groups = [item for dataset in source for item in dataset.get("PerFrameFunctionalGroupsSequence") or []]
    planes = [group.PlanePositionSequence[0] for group in groups] or source
    if len(planes) < 2:
        return
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    normal = plane_directions(shared.PlaneOrientationSequence[0].ImageOrientationPatient)[2]
    distances = np.array([plane.ImagePositionPatient for plane in planes], dtype=np.float64) @ normal
    spacing = float(np.ptp(distances)) / (len(planes) - 1)
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = DSfloat(spacing, auto_format=True)


def read_segmentation(dataset: Dataset, like: Geometry, *, tolerance: float = MATCH_TOLERANCE) -> LabelVolume:
    """The masks of a binary segmentation on a grid; nothing is resampled, each frame must lie on a slice.

    Args:
        dataset: The segmentation, with pixel data.
        like: The grid, usually that of the source volume; slices without a frame are empty.
        tolerance: Largest distance of corresponding voxels, as a fraction of the smallest voxel side.

    Raises:
        SegmentationError: Not a binary segmentation, or a damaged one.
        GeometryMismatchError: A frame does not lie on the grid.
    """
    uid = str(dataset.get("SOPInstanceUID"))
    if dataset.get("SOPClassUID") != SEGMENTATION_SOP_CLASS or dataset.get("SegmentationType") != "BINARY":
        msg = "The instance is not a binary segmentation"
        raise SegmentationError(msg, sop_instance_uid=uid)
    _require_frame_of_reference(dataset, like)
    segments = tuple(_segment(item) for item in dataset.SegmentSequence)
    rank = {segment.number: s for s, segment in enumerate(segments)}
    frames = _frames(dataset, uid)
    groups = dataset.PerFrameFunctionalGroupsSequence
    if len(groups) != len(frames):
        msg = f"{len(frames)} frames have {len(groups)} functional groups"
        raise SegmentationError(msg, sop_instance_uid=uid)
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    array = np.zeros((len(segments), *like.shape), dtype=bool)
    filled: set[tuple[int, int]] = set()
    for number, (group, frame) in enumerate(zip(groups, frames, strict=True), start=1):
        macros = (group, shared[0])
        segment_number = int(
            _macro(macros, "SegmentIdentificationSequence", uid, number).ReferencedSegmentNumber
        )
        allowed = tolerance * min(like.spacing)
        k = _slice_index(macros, frame.shape, like, allowed_mm=allowed, uid=uid, number=number)
        if segment_number not in rank or (segment_number, k) in filled:
            msg = f"Segment {segment_number} is not described, or has two frames in one slice"
            raise SegmentationError(msg, sop_instance_uid=uid, frame_number=number)
        filled.add((segment_number, k))
        array[rank[segment_number], k] = frame
    return LabelVolume(array=array, geometry=like, segments=segments)


def _require_frame_of_reference(dataset: Dataset, like: Geometry) -> None:
    theirs = dataset.get("FrameOfReferenceUID")
    if theirs and like.frame_of_reference_uid and theirs != like.frame_of_reference_uid:
        msg = "The instance belongs to another frame of reference than the grid"
        raise GeometryMismatchError(msg, sop_instance_uid=dataset.get("SOPInstanceUID"))


def _frames(dataset: Dataset, uid: str) -> BoolArray:
    """(frames, rows, columns)"""
    try:
        pixels = dataset.pixel_array
    except (ValueError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
        msg = f"The pixel data cannot be decoded: {type(error).__name__}"
        raise SegmentationError(msg, sop_instance_uid=uid) from error
    frames: BoolArray = (pixels[None] if pixels.ndim == 2 else pixels).astype(bool)
    return frames


def _macro(macros: Sequence[Dataset], keyword: str, uid: str, number: int) -> Dataset:
    """The functional group item of a frame: its own, else the shared one (PS3.3 section C.7.6.16)."""
    for macro in macros:
        items = macro.get(keyword)
        if items:
            item: Dataset = items[0]
            return item
    msg = f"A frame has no {keyword}"
    raise SegmentationError(msg, sop_instance_uid=uid, frame_number=number)


def _slice_index(
    macros: Sequence[Dataset],
    shape: tuple[int, ...],
    like: Geometry,
    *,
    allowed_mm: float,
    uid: str,
    number: int,
) -> int:
    """The slice of the grid that a frame lies on: three of its corners must be those of the slice."""
    position = np.array(
        _macro(macros, "PlanePositionSequence", uid, number).ImagePositionPatient, dtype=float
    )
    orientation = _macro(macros, "PlaneOrientationSequence", uid, number).ImageOrientationPatient
    spacing = _macro(macros, "PixelMeasuresSequence", uid, number).PixelSpacing
    slices, rows, columns = like.shape
    if shape != (rows, columns):
        msg = f"A frame has {shape} (rows, columns), the grid has {(rows, columns)}"
        raise GeometryMismatchError(msg, sop_instance_uid=uid, frame_number=number)
    along_row, along_column, _ = plane_directions([float(x) for x in orientation])
    corners = np.array(
        [
            position,
            position + along_row * float(spacing[1]) * (columns - 1),
            position + along_column * float(spacing[0]) * (rows - 1),
        ]
    )
    k = int(np.round(like.to_index(position)[2]))
    expected = like.to_patient([(0, 0, k), (columns - 1, 0, k), (0, rows - 1, k)])
    shift = float(np.linalg.norm(corners - expected, axis=1).max())
    if not 0 <= k < slices or shift > allowed_mm:
        msg = f"A frame lies {shift:.3f} mm off the nearest slice of the grid (slice {k} of {slices})"
        raise GeometryMismatchError(msg, sop_instance_uid=uid, frame_number=number)
    return k


def _segment(item: Dataset) -> SegmentDescription:
    lab = item.get("RecommendedDisplayCIELabValue")
    color = None
    if lab:
        red, green, blue = highdicom.color.CIELabColor.from_dicom_value(lab).to_rgb()
        color = (int(red), int(green), int(blue))
    return SegmentDescription(
        number=int(item.SegmentNumber),
        label=str(item.SegmentLabel),
        category=_code(item.SegmentedPropertyCategoryCodeSequence[0]),
        type=_code(item.SegmentedPropertyTypeCodeSequence[0]),
        color=color,
    )


def _code(item: Dataset) -> Code:
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))
