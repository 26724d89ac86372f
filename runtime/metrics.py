"""What the endpoint measures, as CloudWatch metrics embedded in its log (CloudWatch embedded metric format).

A document is one JSON line of the log; CloudWatch Logs takes the metrics out of it, so the container needs no
further permission and no further connection. Specification:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

The extraction takes an event that is one JSON object and nothing else. SageMaker sends what a container
writes to the log group of its endpoint; AWS does not say that each line arrives unchanged as one event. The
metrics `EMFParsingErrors` and `EMFValidationErrors` of the log group (namespace AWS/Logs) tell after the
first request. Should lines arrive changed, a metric filter takes the same values out of them:
`{ $.Slices = * }`, value `$.Slices`, dimensions `$.Endpoint` and `$.Modality`.

Dimensions are the names of the endpoint, of a model where it has several, of a modality, of a segment of the
model and of a type of error: each a short list that no patient adds to. Every combination of dimensions is
one metric, which costs money.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.results.answer import Result

_LOG = logging.getLogger(__name__)

NAMESPACE = "MONAI/Inference"

_OF_ENDPOINT = ("Endpoint",)
_OF_MODEL = ("Endpoint", "Model")
_OF_ERROR = ("Endpoint", "ErrorType")
_OF_INPUT = ("Endpoint", "Modality")
_OF_SEGMENT = ("Endpoint", "Segment")

PHASES = {
    "queue": "QueueSeconds",
    "open": "OpenSeconds",
    "lookup": "LookupSeconds",
    "select": "SelectSeconds",
    "fetch": "FetchSeconds",
    "decode": "DecodeSeconds",
    "preprocess": "PreprocessSeconds",
    "network": "NetworkSeconds",
    "postprocess": "PostprocessSeconds",
    "store": "StoreSeconds",
    "write": "WriteSeconds",
    "total": "TotalSeconds",
}
"""Phases of `Result.seconds`, by their metrics. Frames are decoded while others are fetched: `decode` is what
decoding took with every core at it, `fetch` the rest of the time until the volume was there. An image set
whose result is in the archive already has the first three, `write` and `total`."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, and each set of dimensions that it is emitted with."""

    name: str
    unit: str
    dimensions: tuple[tuple[str, ...], ...]


METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="Requests", unit="Count", dimensions=(_OF_ENDPOINT, _OF_MODEL)),
        Metric(name="Errors", unit="Count", dimensions=(_OF_ENDPOINT, _OF_MODEL, _OF_ERROR)),
        Metric(name="RequestSeconds", unit="Seconds", dimensions=(_OF_ENDPOINT, _OF_MODEL)),
        Metric(name="StoredResults", unit="Count", dimensions=(_OF_ENDPOINT, _OF_MODEL)),
        *(
            Metric(name=name, unit="Seconds", dimensions=(_OF_ENDPOINT, _OF_MODEL))
            for name in PHASES.values()
        ),
        Metric(name="Volumes", unit="Count", dimensions=(_OF_INPUT,)),
        Metric(name="Slices", unit="Count", dimensions=(_OF_INPUT,)),
        Metric(name="ColumnSpacingMillimetres", unit="None", dimensions=(_OF_INPUT,)),
        Metric(name="RowSpacingMillimetres", unit="None", dimensions=(_OF_INPUT,)),
        Metric(name="SliceSpacingMillimetres", unit="None", dimensions=(_OF_INPUT,)),
        Metric(name="SegmentVolumeMillilitres", unit="None", dimensions=(_OF_SEGMENT,)),
    )
}
"""All that is emitted. `Errors` is 0 for a request that was answered, so its average is the share of
failures; `StoredResults` is 1 where a result was in the archive already. Dimensions with `Model` are those of
multi-model endpoints alone."""

_MODALITY = re.compile(r"[A-Z]{2,16}")
"""Code String of Modality (0008,0060) as PS3.3, C.7.3.1.1.1 defines them."""

OTHER = "OTHER"
"""Modality of a volume whose header says something else: whatever it is, it becomes no dimension."""


@dataclass(frozen=True, kw_only=True)
class VolumeFigures:
    """What tells whether a volume is of the kind that the model was made for."""

    modality: str | None
    slices: int
    spacing: tuple[float, float, float]
    """mm along columns, rows and slices."""


class Metrics:
    """Writes the documents of one endpoint to the log."""

    def __init__(self, *, endpoint: str, of_models: bool = False) -> None:
        """``of_models``: whether requests and their phases are counted for each model, too."""
        self._endpoint = endpoint
        self._of_models = of_models

    def answered(self, *, seconds: float, model: str | None = None) -> None:
        """A request was answered, by the model of this name."""
        self._emit_with_model({"Requests": 1, "Errors": 0, "RequestSeconds": seconds}, model)

    def failed(self, *, error_type: str, seconds: float, model: str | None = None) -> None:
        """A request was refused or failed; `error_type` as in the answer, `model` None without one."""
        self._emit_with_model({"Requests": 1, "Errors": 1, "RequestSeconds": seconds}, model)
        self._emit([_OF_ERROR], {"Errors": 1}, ErrorType=error_type)

    def segmented(self, result: Result, figures: VolumeFigures | None) -> None:
        """An image set has its result. `figures` are None where the archive held it already: the volume was
        not looked at again, and was counted when it was."""
        phases = {PHASES[phase]: value for phase, value in result.seconds.items() if phase in PHASES}
        self._emit_with_model({"StoredResults": int(figures is None), **phases}, result.model.name)
        if figures is None:
            return
        column, row, slice_ = figures.spacing
        modality = figures.modality or ""
        self._emit(
            [_OF_INPUT],
            {
                "Volumes": 1,
                "Slices": figures.slices,
                "ColumnSpacingMillimetres": column,
                "RowSpacingMillimetres": row,
                "SliceSpacingMillimetres": slice_,
            },
            Modality=modality if _MODALITY.fullmatch(modality) else OTHER,
        )
        for segment in result.segments:
            self._emit(
                [_OF_SEGMENT], {"SegmentVolumeMillilitres": segment.volume_ml}, Segment=segment.label[:250]
            )

    def _emit_with_model(self, values: Mapping[str, float], model: str | None) -> None:
        if self._of_models and model:
            self._emit([_OF_ENDPOINT, _OF_MODEL], values, Model=model[:250])
        else:
            self._emit([_OF_ENDPOINT], values)

    def _emit(self, sets: Sequence[Sequence[str]], values: Mapping[str, float], **others: str) -> None:
        document = embedded(
            sets=sets,
            dimensions=others | {"Endpoint": self._endpoint},
            values=values,
            timestamp=round(time.time() * 1000),
        )
        _LOG.info("metrics", extra={"fields": document})


def embedded(
    *,
    sets: Sequence[Sequence[str]],
    dimensions: Mapping[str, str],
    values: Mapping[str, float],
    timestamp: int,
) -> dict[str, Any]:
    """A document of the embedded metric format with values of metrics in `METRICS`.

    Parameters
    ----------
    sets
        Names of dimensions; each value becomes one metric for each of these sets.
    dimensions
        The values of the dimensions.
    values
        The metrics.
    timestamp
        Milliseconds since 1970.
    """
    return {
        "_aws": {
            "Timestamp": timestamp,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [list(names) for names in sets],
                    "Metrics": [{"Name": name, "Unit": METRICS[name].unit} for name in values],
                }
            ],
        },
        **dimensions,
        **values,
    }
