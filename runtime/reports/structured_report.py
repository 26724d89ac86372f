"""What both kinds of structured report have in common: who observed, by which algorithm, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom
from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from healthimaging.grouping import repeat_grouping_attributes, with_empty_attributes
from healthimaging.segmentation import ARTIFICIAL_INTELLIGENCE
from runtime.errors import ReportError
from runtime.reports.equipment import MANUFACTURER, algorithm_version, equipment, series_description
from runtime.results.answer import ModelIdentity
from runtime.results.identity import InstanceIdentity, ResultIdentity

_PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "NM": codes.LN.NMUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
}
"""Procedure Reported (121058, DCM) by modality: the body region is what the model looked for, not what was
ordered, so none is claimed (PS3.16, CID 100)."""

_ANY_PROCEDURE: Code = codes.SCT.ImagingProcedure


def write_report(
    *,
    source: Sequence[Dataset],
    evidence: Sequence[Dataset],
    groups: Sequence[Any],
    model: ModelIdentity,
    result: ResultIdentity,
    identity: InstanceIdentity,
    series_number: int,
    what: str,
) -> Dataset:
    """Write a measurement report (PS3.16, TID 1500) as Enhanced SR (PS3.3, A.35.2), which every reader knows.

    The report is complete, final and unverified: nobody has looked at it.

    Parameters
    ----------
    source
        Headers of the source's instances: patient and study are those of the first.
    evidence
        Instances that the report is about besides ``source``.
    groups
        Measurement groups of highdicom.
    model, result
        What measured, and the identity of its result.
    identity, series_number
        Of the report.
    what
        Ends the description of the series.

    Raises
    ------
    ReportError
        When highdicom cannot write a report about this source.
    """
    first = with_empty_attributes(source[0])
    try:
        content = MeasurementReport(
            observation_context=ObservationContext(
                observer_device_context=ObserverContext(
                    observer_type=codes.DCM.Device,
                    observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                        uid=result.device_uid,
                        name=model.name,
                        manufacturer_name=MANUFACTURER,
                        model_name=f"{model.name} {model.version}",
                        serial_number=model.sha256,
                    ),
                )
            ),
            procedure_reported=_PROCEDURES.get(str(first.get("Modality")), _ANY_PROCEDURE),
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        report: Dataset = EnhancedSR(
            evidence=[first, *source[1:], *evidence],
            content=content[0],
            series_instance_uid=identity.series_instance_uid,
            series_number=series_number,
            sop_instance_uid=identity.sop_instance_uid,
            instance_number=1,
            is_complete=True,
            is_final=True,
            series_description=series_description(model, what),
            **equipment(model),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # Without the cause: it may quote the source's header, which is patient data.
        msg = (
            f"no {what} can be written about series {first.get('SeriesInstanceUID')}: {type(error).__name__}"
        )
        raise ReportError(msg) from None
    repeat_grouping_attributes(source[0], report)
    return report


def algorithm(model: ModelIdentity) -> AlgorithmIdentification:
    """Algorithm Identification (PS3.16, TID 4019): name and version of the bundle, hash of its weights."""
    return AlgorithmIdentification(
        name=model.name,
        version=algorithm_version(model),
        parameters=[f"weights SHA-256 {model.sha256}"],
        family=ARTIFICIAL_INTELLIGENCE,
    )


def tracking(result: ResultIdentity, *, number: int, label: str) -> highdicom.sr.TrackingIdentifier:
    """Tracking Identifier and its UID (PS3.16, TID 4108), both the same whenever the result is computed."""
    return highdicom.sr.TrackingIdentifier(uid=result.tracking_uid(number), identifier=label)
