"""Every frame of a series as a slice: where it lies, how its pixels are laid out, what its values mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from healthimaging.errors import FrameLayoutError, MetadataError, MissingGeometryError, VolumeError
from healthimaging.frames.codecs import CODECS, FrameLayout
from healthimaging.metadata import Attributes, InstanceRecord, SeriesRecord
from healthimaging.volumes.slices import SlicePlane, slice_plane

_RESCALED_MODALITIES = frozenset({"CT", "PT"})
"""Where RescaleSlope and RescaleIntercept are type 1 (DICOM PS3.3 sections C.8.2.1 and C.8.9.4). To
take 1 and 0 for missing ones would shift the HU of most scanners by 1024.
"""

_RESCALED_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "2.1", "2.2", "128", "128.1", "130")
)
"""The same by SOP class, for headers without Modality: CT and PET, their enhanced and legacy kinds (PS3.4
section B.5).
"""

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture Image Storage, and the root of its multi-frame kinds (PS3.4 section B.5)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesSlice:
    """One frame of a series."""

    plane: SlicePlane
    instance: InstanceRecord
    attributes: Attributes
    """The instance's attributes over its series'."""
    groups: tuple[Attributes, ...]
    """Functional groups that hold for the frame, its own first (DICOM PS3.3 section C.7.6.16)."""
    layout: FrameLayout
    slope: float
    """value = stored x slope + intercept (PS3.3 section C.11.1); 1 for colour."""
    intercept: float
    frame_of_reference_uid: str | None

    def texts(self, keyword: str, *macro: str) -> list[str] | None:
        """Values of an attribute: the frame's own, else the instance's; None when absent or empty.

        Args:
            keyword: The attribute.
            macro: The sequences of the functional group that it lies in, from the outside.
        """
        items = list(self.groups) if macro else []
        for sequence in macro:
            items = [inner for item in items for inner in item.sequence(sequence)]
        for place in (*items, self.attributes):
            if (texts := place.texts(keyword)) is not None:
                return texts
        return None


def read_slices(series: SeriesRecord) -> tuple[list[SeriesSlice], tuple[str, ...]]:
    """The slices of a series, and the instances that are none.

    An instance is no slice when it is no image at all (a report, a presentation state, raw data), or a
    secondary capture without a place among slices that have one (a dose sheet, a screenshot). Everything
    else must be a slice: an image whose frames or position are missing may be the one that matters.

    Returns:
        The slices in the metadata's order; SOP Instance UIDs of the instances that are none, likewise.

    Raises:
        VolumeError: No frames, indices of colours, a lookup table or a dose scale instead of a rescale, a
            mosaic, or no rescale where the modality's values mean nothing without one.
        MetadataError: An instance has more or fewer frames than its header announces.
        MissingGeometryError: A slice lacks position, orientation or pixel spacing.
        FrameLayoutError: The header does not say how pixels are laid out.
    """
    headers = {uid: instance.attributes.over(series.attributes) for uid, instance in series.instances.items()}
    images = [uid for uid in headers if _is_image(headers[uid], series.instances[uid])]
    placed = [uid for uid in images if not _is_capture_without_place(headers[uid])] or images
    if not placed:
        msg = "The series has no frames"
        raise VolumeError(msg, series_instance_uid=series.series_instance_uid)
    slices = [one for uid in placed for one in _slices(series.instances[uid], headers[uid])]
    is_slice = set(placed)
    return slices, tuple(uid for uid in headers if uid not in is_slice)


def _is_image(attributes: Attributes, instance: InstanceRecord) -> bool:
    return bool(instance.frames) or any(
        attributes.get(keyword) is not None for keyword in ("Rows", "Columns", "BitsAllocated")
    )


def _is_capture_without_place(attributes: Attributes) -> bool:
    sop_class = attributes.text("SOPClassUID") or ""
    place = ("ImagePositionPatient", "ImageOrientationPatient", "PerFrameFunctionalGroupsSequence")
    return (sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")) and not any(
        attributes.get(keyword) for keyword in place
    )


def _slices(instance: InstanceRecord, attributes: Attributes) -> list[SeriesSlice]:
    uid = instance.sop_instance_uid
    _require_frames(instance, attributes)
    layout = _layout(attributes, instance)
    shared = attributes.sequence("SharedFunctionalGroupsSequence")
    per_frame = attributes.sequence("PerFrameFunctionalGroupsSequence")
    if per_frame and len(per_frame) != len(instance.frames):
        msg = f"{len(per_frame)} per-frame groups for {len(instance.frames)} frames"
        raise MissingGeometryError(msg, sop_instance_uid=uid)
    if not per_frame and len(instance.frames) > 1:
        msg = f"The {len(instance.frames)} frames of an instance have no position each"
        raise MissingGeometryError(msg, sop_instance_uid=uid)
    found = []
    for number in range(1, len(instance.frames) + 1):
        groups = (*per_frame[number - 1 : number], *shared)
        plane = slice_plane(attributes, sop_instance_uid=uid, frame_number=number, frame=groups)
        colour = layout.samples_per_pixel > 1
        slope, intercept = (1.0, 0.0) if colour else _rescale(attributes, groups, instance)
        found.append(
            SeriesSlice(
                plane=plane,
                instance=instance,
                attributes=attributes,
                groups=groups,
                layout=layout,
                slope=slope,
                intercept=intercept,
                frame_of_reference_uid=attributes.text("FrameOfReferenceUID"),
            )
        )
    return found


def _require_frames(instance: InstanceRecord, attributes: Attributes) -> None:
    uid = instance.sop_instance_uid
    if not instance.frames:
        msg = "An image without frames lies in the series: the datastore does not have its pixels"
        raise VolumeError(msg, sop_instance_uid=uid)
    announced = attributes.integer("NumberOfFrames")
    if announced is not None and announced != len(instance.frames):
        msg = f"The header announces {announced} frames, the datastore holds {len(instance.frames)}"
        raise MetadataError(msg, sop_instance_uid=uid)


def _layout(attributes: Attributes, instance: InstanceRecord) -> FrameLayout:
    uid = instance.sop_instance_uid
    try:
        layout = FrameLayout.from_attributes(attributes)
    except ValueError as error:
        raise FrameLayoutError(str(error), sop_instance_uid=uid) from error
    colours = layout.photometric_interpretation
    if layout.samples_per_pixel == 1:
        if colours not in _GREY:
            msg = f"Pixels are {colours}, not one quantity; frames() gives them as they are stored"
            raise VolumeError(msg, sop_instance_uid=uid)
        for reason, applies in (
            ("Stored values are mapped by a Modality LUT", attributes.sequence("ModalityLUTSequence")),
            ("Stored values are scaled by DoseGridScaling", attributes.text("DoseGridScaling")),
            ("Slices are tiled in a mosaic", "MOSAIC" in (attributes.texts("ImageType") or [])),
        ):
            if applies:
                msg = f"{reason}, which is not supported"
                raise VolumeError(msg, sop_instance_uid=uid)
        return layout
    codec = CODECS.get(instance.transfer_syntax_uid)
    becomes_rgb = colours == "RGB" or (codec is not None and colours in codec.undoes)
    if layout.samples_per_pixel != 3 or not becomes_rgb:
        samples = layout.samples_per_pixel
        msg = f"Pixels are {samples} samples of {colours}, not RGB; frames() gives them as they are stored"
        raise VolumeError(msg, sop_instance_uid=uid)
    return layout


def _rescale(
    attributes: Attributes, groups: Sequence[Attributes], instance: InstanceRecord
) -> tuple[float, float]:
    """(slope, intercept) of one slice: value = stored x slope + intercept (DICOM PS3.3 section C.11.1)."""
    transformations = [
        item for group in groups for item in group.sequence("PixelValueTransformationSequence")
    ]
    place = transformations[0] if transformations else attributes
    modality = attributes.text("Modality")
    needed = (
        attributes.text("SOPClassUID") in _RESCALED_CLASSES
        if modality is None
        else modality in _RESCALED_MODALITIES
    )
    numbers = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        number = place.decimal(keyword)
        if number is None and place.text(keyword) is not None:
            msg = f"{keyword} is not a number"
            raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
        if number is None and needed:
            msg = f"{keyword} is missing: stored values of this modality mean nothing without it"
            raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
        numbers.append(default if number is None else number)
    slope, intercept = numbers
    if slope == 0:
        msg = "RescaleSlope is 0"
        raise VolumeError(msg, sop_instance_uid=instance.sop_instance_uid)
    return slope, intercept
