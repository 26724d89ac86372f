"""Metrics embedded in log events: whatever reaches CloudWatch Logs, CloudWatch gets the metrics in it.

As on AWS, an event counts that is one JSON object with the metadata of the embedded metric format, whoever
sent it:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

_MARK = '"CloudWatchMetrics"'
_MOST_DIMENSIONS = 30
_MOST_METRICS = 100
_MOST_VALUES = 100


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Values of one metric in one set of dimensions."""

    namespace: str
    name: str
    unit: str
    dimensions: Mapping[str, str]
    values: tuple[float, ...]
    seconds: float
    """When, since 1970."""


def install() -> None:
    """Make MiniStack look for metrics in what is logged; it stores log events in one function."""
    from ministack.services import cloudwatch, cloudwatch_logs

    append = cloudwatch_logs._append_log_events

    def append_and_extract(stream: dict[str, Any], events: list[dict[str, Any]]) -> None:
        append(stream, events)
        found = False
        for event in events:
            for reading in readings(event["message"]):
                found = True
                cloudwatch._store_datum(
                    reading.namespace,
                    reading.name,
                    dict(reading.dimensions),
                    reading.seconds,
                    reading.unit,
                    None,
                    list(reading.values),
                    None,
                    None,
                )
        if found:
            cloudwatch._evaluate_all_alarms()

    cloudwatch_logs._append_log_events = append_and_extract


def readings(message: str) -> Iterator[Reading]:
    """The metrics in a log event. A document that breaks the specification has none; the log says why."""
    if _MARK not in message:
        return
    try:
        document = json.loads(message)
        yield from list(_readings(document))
    except json.JSONDecodeError:
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("a log event with embedded metrics is not as specified: %r", error)


def _readings(document: Mapping[str, Any]) -> Iterator[Reading]:
    metadata = document["_aws"]
    seconds = metadata["Timestamp"] / 1000
    for directive in metadata["CloudWatchMetrics"]:
        metrics = directive["Metrics"]
        if len(metrics) > _MOST_METRICS:
            raise ValueError(f"{len(metrics)} metrics in a directive")
        for names in directive["Dimensions"]:
            dimensions = {name: document[name] for name in names}
            if len(names) > _MOST_DIMENSIONS or not all(isinstance(one, str) for one in dimensions.values()):
                raise ValueError(f"dimensions {names}: at most {_MOST_DIMENSIONS}, and of text")
            for metric in metrics:
                value = document[metric["Name"]]
                values = tuple(float(one) for one in (value if isinstance(value, list) else [value]))
                if len(values) > _MOST_VALUES:
                    raise ValueError(f"{len(values)} values of {metric['Name']}")
                yield Reading(
                    namespace=directive["Namespace"],
                    name=metric["Name"],
                    unit=metric.get("Unit", "None"),
                    dimensions=dimensions,
                    values=values,
                    seconds=seconds,
                )
