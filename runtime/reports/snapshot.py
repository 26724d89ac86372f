"""A picture of a segmentation, for readers whose viewer shows none."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.sc import ConversionTypeValues, SCImage
from pydicom import Dataset
from pydicom.sr.codedict import codes

from healthimaging import Volume
from healthimaging.grouping import repeat_grouping_attributes, with_empty_attributes
from runtime.errors import ReportError
from runtime.reports.drawing import LegendEntry, draw
from runtime.reports.equipment import SNAPSHOT_SERIES_NUMBER, equipment, series_description
from runtime.reports.planes import Plane, three_planes
from runtime.results.answer import ModelIdentity, SegmentVolume
from runtime.results.identity import ResultIdentity
from runtime.results.outputs import Output
from runtime.results.segment_volumes import segment_volumes

SOFT_TISSUE_WINDOW = (-160.0, 240.0)
LUNG_WINDOW = (-1350.0, 150.0)
"""HU that become black and white: level 40, width 400, and level -600, width 1500."""

_AIR_FILLED = -300.0
"""HU. A segment whose median is below it is seen with the lung window."""

_PERCENTILES = (1.0, 99.5)
"""Of the values of other modalities, which have no fixed scale."""

_PLAIN_COLOR = (255, 220, 0)
"""Of a segment that has no display color."""


def write_snapshot(
    *,
    segmentation: Dataset,
    source: Sequence[Dataset],
    volume: Volume,
    model: ModelIdentity,
    result: ResultIdentity,
) -> Dataset:
    """Draw the contours of a SEG on three planes through its largest segment, where that is widest.

    Parameters
    ----------
    segmentation
        The DICOM SEG with its pixels, as it is stored.
    source, volume
        Headers of the instances that were segmented, and the volume that they are.
    model, result
        What segmented it, and the identity of the result.

    Returns
    -------
    pydicom.Dataset
        Secondary Capture Image (PS3.3, A.8.1), RGB. Nothing that identifies the patient is drawn. It claims
        no patient orientation: its three planes have three.

    Raises
    ------
    ReportError
        When no picture can be made of this source.
    """
    volumes = segment_volumes(segmentation)
    numbers = sorted(int(segment.SegmentNumber) for segment in segmentation.SegmentSequence)
    largest = max(range(len(numbers)), key=lambda index: volumes[index].volume_ml)
    planes = three_planes(volume=volume, segmentation=segmentation, segment_number=numbers[largest])
    picture = draw(
        planes=planes,
        window=_window(volume, planes, numbers[largest]),
        legend=_legend(segmentation, volumes),
        title=f"{model.name} {model.version}",
        caption=_caption(volumes[largest]),
    )
    first = with_empty_attributes(source[0])
    try:
        snapshot: Dataset = SCImage.from_ref_dataset(
            ref_dataset=first,
            pixel_array=picture,
            photometric_interpretation=highdicom.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
            series_instance_uid=result.report(Output.SNAPSHOT).series_instance_uid,
            series_number=SNAPSHOT_SERIES_NUMBER,
            sop_instance_uid=result.report(Output.SNAPSHOT).sop_instance_uid,
            instance_number=1,
            patient_orientation=("L", "P"),
            series_description=series_description(model, "snapshot"),
            **equipment(model),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # Without the cause: it may quote the source's header, which is patient data.
        msg = f"no snapshot can be made of series {first.get('SeriesInstanceUID')}: {type(error).__name__}"
        raise ReportError(msg) from None
    snapshot.PatientOrientation = None
    snapshot.Laterality = None
    snapshot.ConversionType = ConversionTypeValues.WSD.value
    snapshot.BurnedInAnnotation = "NO"
    snapshot.DerivationDescription = "Contours of a segmentation on three planes, not for diagnostic use"
    snapshot.SourceImageSequence = [_source_image(segmentation)]
    repeat_grouping_attributes(source[0], snapshot)
    return snapshot


def _source_image(segmentation: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = segmentation.SOPClassUID
    item.ReferencedSOPInstanceUID = segmentation.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [
        highdicom.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    return item


def _window(volume: Volume, planes: Sequence[Plane], segment_number: int) -> tuple[float, float]:
    if volume.modality == "CT":
        inside = [
            plane.values[plane.masks[segment_number]] for plane in planes if segment_number in plane.masks
        ]
        if inside and float(np.median(np.concatenate(inside))) < _AIR_FILLED:
            return LUNG_WINDOW
        return SOFT_TISSUE_WINDOW
    black, white = np.percentile(np.concatenate([plane.values.ravel() for plane in planes]), _PERCENTILES)
    return float(black), float(white)


def _legend(segmentation: Dataset, volumes: Sequence[SegmentVolume]) -> list[LegendEntry]:
    """The segments by falling volume, so that the smallest are those that find no place."""
    segments = sorted(segmentation.SegmentSequence, key=lambda segment: int(segment.SegmentNumber))
    entries = zip(segments, volumes, strict=True)
    return [
        LegendEntry(
            number=int(segment.SegmentNumber),
            text=f"{volume.label}  {volume.volume_ml:.1f} ml",
            color=_color(segment),
        )
        for segment, volume in sorted(entries, key=lambda entry: -entry[1].volume_ml)
    ]


def _color(segment: Dataset) -> tuple[int, int, int]:
    lab = segment.get("RecommendedDisplayCIELabValue")
    if not lab:
        return _PLAIN_COLOR
    red, green, blue = CIELabColor.from_dicom_value(lab).to_rgb()
    return int(red), int(green), int(blue)


def _caption(largest: SegmentVolume) -> list[str]:
    if largest.volume_ml == 0:
        return ["No voxel was segmented.", "Planes through the middle of the volume"]
    return ["Planes where this is widest:", largest.label]
