"""The volumes of a segmentation as a structured report."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
from highdicom.sr import (
    FindingSite,
    Measurement,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from runtime.reports.equipment import MEASUREMENT_SERIES_NUMBER
from runtime.reports.structured_report import algorithm, tracking, write_report
from runtime.results.answer import ModelIdentity
from runtime.results.identity import ResultIdentity
from runtime.results.outputs import Output
from runtime.results.segment_volumes import segment_volumes

MILLILITRE = Code("ml", "UCUM", "Milliliter")
"""PS3.16, CID 7461 "Units of Volume Measurement"."""


def write_measurement_report(
    *, segmentation: Dataset, source: Sequence[Dataset], model: ModelIdentity, result: ResultIdentity
) -> Dataset:
    """Report the volume of each segment (PS3.16, TID 1500 with one TID 1411 a segment).

    Parameters
    ----------
    segmentation
        The DICOM SEG with its pixels, as it is stored: the volumes are those of
        `runtime.results.segment_volumes`, which the answer states too.
    source
        Headers of the instances that were segmented.
    model, result
        What segmented them, and the identity of the result.

    Returns
    -------
    pydicom.Dataset
        Enhanced SR. Each group refers to the segment and to the source series; the finding is the segment's
        type, the finding site too where the segment is an anatomical structure.

    Raises
    ------
    ReportError
        When no report can be written about this source.
    """
    series = SourceSeriesForSegmentation(str(source[0].SeriesInstanceUID))
    groups = []
    for segment, volume in zip(
        sorted(segmentation.SegmentSequence, key=lambda item: int(item.SegmentNumber)),
        segment_volumes(segmentation),
        strict=True,
    ):
        number = int(segment.SegmentNumber)
        category = _code(segment.SegmentedPropertyCategoryCodeSequence[0])
        finding = _code(segment.SegmentedPropertyTypeCodeSequence[0])
        groups.append(
            VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=tracking(result, number=number, label=volume.label),
                referenced_segment=ReferencedSegment(
                    sop_class_uid=segmentation.SOPClassUID,
                    sop_instance_uid=segmentation.SOPInstanceUID,
                    segment_number=number,
                    source_series=series,
                ),
                finding_category=category,
                finding_type=finding,
                # Of a lesion, the type says what it is; where it is, the model does not say.
                finding_sites=(
                    [FindingSite(anatomic_location=finding)]
                    if category == codes.SCT.AnatomicalStructure
                    else None
                ),
                algorithm_id=algorithm(model),
                measurements=[
                    Measurement(
                        name=codes.SCT.Volume,
                        value=volume.volume_ml,
                        unit=MILLILITRE,
                        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
                    )
                ],
            )
        )
    return write_report(
        source=source,
        evidence=[segmentation],
        groups=groups,
        model=model,
        result=result,
        identity=result.report(Output.MEASUREMENT_REPORT),
        series_number=MEASUREMENT_SERIES_NUMBER,
        what="measurements",
    )


def _code(item: Dataset) -> highdicom.sr.CodedConcept:
    return highdicom.sr.CodedConcept(
        value=str(item.CodeValue),
        scheme_designator=str(item.CodingSchemeDesignator),
        meaning=str(item.CodeMeaning),
    )
