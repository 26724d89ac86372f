"""What a classification says, as a structured report, and back from it."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    SourceImageForMeasurementGroup,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from runtime.bundles.class_scores import ClassScore
from runtime.reports.equipment import CLASSIFICATION_SERIES_NUMBER
from runtime.reports.structured_report import algorithm, tracking, write_report
from runtime.results.answer import ClassProbability, ModelIdentity
from runtime.results.identity import ResultIdentity
from runtime.results.outputs import CLASSIFICATION_REPORT

UNCODED_FINDING = Code("404684003", "SCT", "Clinical finding")
"""Finding of a class whose name has no coded term; its tracking identifier is the name."""

_DECIMALS = 6
"""Of a stated probability: more than any calibration means, and it fits DICOM's decimal text."""


def write_classification_report(
    *, scores: Sequence[ClassScore], source: Sequence[Dataset], model: ModelIdentity, result: ResultIdentity
) -> Dataset:
    """Report the probability of each class (PS3.16, TID 1500 with one TID 1501 a class).

    Parameters
    ----------
    scores
        Each class once, in the order of the bundle.
    source
        Headers of all instances that were looked at. Each group refers to each of them: what is said is said
        of the volume as a whole.
    model, result
        What looked at them, and the identity of the result.

    Returns
    -------
    pydicom.Dataset
        Enhanced SR. The tracking identifier of a group is the class's name, its finding the class's term, its
        only measurement the Probability (122157, DCM), 0 to 1.

    Raises
    ------
    ReportError
        When no report can be written about this source.
    """
    images = [
        SourceImageForMeasurementGroup(
            referenced_sop_class_uid=str(header.SOPClassUID),
            referenced_sop_instance_uid=str(header.SOPInstanceUID),
        )
        for header in source
    ]
    groups = [
        MeasurementsAndQualitativeEvaluations(
            source_images=images,
            tracking_identifier=tracking(result, number=number, label=score.label),
            finding_type=score.term or UNCODED_FINDING,
            algorithm_id=algorithm(model),
            measurements=[
                Measurement(
                    name=codes.DCM.Probability,
                    value=round(score.probability, _DECIMALS),
                    unit=codes.UCUM.NoUnits,
                )
            ],
        )
        for number, score in enumerate(scores, start=1)
    ]
    return write_report(
        source=source,
        evidence=[],
        groups=groups,
        model=model,
        result=result,
        identity=result.report(CLASSIFICATION_REPORT),
        series_number=CLASSIFICATION_SERIES_NUMBER,
        what="classification",
    )


def class_probabilities(report: Dataset) -> tuple[ClassProbability, ...]:
    """Read the classes of a stored classification report back, in the order in which they were written."""
    content = EnhancedSR.from_dataset(report).content
    if not isinstance(content, MeasurementReport):
        msg = f"instance {report.SOPInstanceUID} is no measurement report (PS3.16, TID 1500)"
        raise TypeError(msg)
    return tuple(
        ClassProbability(
            label=str(group.tracking_identifier),
            probability=float(group.get_measurements(name=codes.DCM.Probability)[0].value),
        )
        for group in content.get_image_measurement_groups()
    )
