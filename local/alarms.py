"""CloudWatch alarms, where MiniStack's are not as on AWS.

It lumps together all dimensions of a metric, and all periods. An alarm on an expression (metric math, a
query, an anomaly band) it refuses; here it is kept and described, and stays in INSUFFICIENT_DATA. An alarm is
evaluated when metrics arrive, not as time passes.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

ON_EXPRESSIONS = "AWS::CloudWatch::Alarm (on expressions)"
"""How `status` lists alarms that are never evaluated."""

_BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def install() -> None:
    """Put our evaluation in place of MiniStack's, and let templates make alarms on expressions."""
    from ministack.services import cloudwatch
    from ministack.services.cloudformation import provisioners

    record = provisioners._cw_metric_alarm_record

    def record_any(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        if not properties.get("Metrics"):
            made: dict[str, Any] = record(name, properties)
            return made
        # What stands in for the metric's name and threshold is taken out again.
        whole = {**properties, "Metrics": None, "MetricName": "-", "Namespace": "-"}
        made = record(name, whole | {"Threshold": properties.get("Threshold", 0)})
        without = (
            "MetricName",
            "Namespace",
            "Statistic",
            "ExtendedStatistic",
            "Period",
            "Unit",
            "Dimensions",
        )
        kept = {member: value for member, value in made.items() if member not in without}
        if "ThresholdMetricId" in properties:
            kept = {**kept, "ThresholdMetricId": properties["ThresholdMetricId"]}
            del kept["Threshold"]
        return kept | {"Metrics": properties["Metrics"]}

    provisioners._cw_metric_alarm_record = record_any
    cloudwatch._evaluate_alarm = _evaluate


def _evaluate(alarm: dict[str, Any]) -> None:
    """Look at the last periods of an alarm's metric, and do its actions when its state changes."""
    from ministack.services import cloudwatch

    breaches = _BREACHES.get(alarm.get("ComparisonOperator", ""))
    if not alarm.get("MetricName") or breaches is None:
        return
    values = _values(alarm)
    if not values:
        return
    periods = int(alarm.get("EvaluationPeriods") or 1)
    missing = periods - len(values)
    treatment = alarm.get("TreatMissingData") or "missing"
    breaching = sum(breaches(value, alarm["Threshold"]) for value in values)
    needed = int(alarm.get("DatapointsToAlarm") or periods)
    if treatment == "breaching":
        breaching += missing
    elif treatment in ("missing", "ignore"):
        needed = min(needed, len(values))
    state, before = "ALARM" if breaching >= needed else "OK", alarm["StateValue"]
    if state == before:
        return
    counted = f"{breaching} of the last {periods} datapoints {values}"
    reason = f"Threshold Crossed: {counted} breach {alarm['Threshold']}"
    alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def _values(alarm: Mapping[str, Any]) -> list[float]:
    """The statistic of each of the alarm's last periods that has data, newest first."""
    from ministack.services import cloudwatch

    dimensions = cloudwatch._dims_from_list(alarm.get("Dimensions") or [])
    key = (alarm["Namespace"], alarm["MetricName"], cloudwatch._dims_key(dimensions))
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
    period = int(alarm.get("Period") or 60)
    now = time.time()
    points: dict[int, list[Any]] = {}
    for point in list(cloudwatch._metrics.get(key) or []):
        age = int(max(now - point["Timestamp"], 0) // period)
        if age < int(alarm.get("EvaluationPeriods") or 1):
            points.setdefault(age, []).append(point)
    values = [
        cloudwatch._stat_value(cloudwatch._calc_stats(points[age]), statistic, points[age])
        for age in sorted(points)
    ]
    return [float(value) for value in values if value is not None]
