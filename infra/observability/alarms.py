"""Alarms: what is watched, and what the person who gets the mail has to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.observability.metrics import Reading

Comparison = Literal[
    "GreaterThanThreshold",
    "GreaterThanOrEqualToThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """One thing that must not happen."""

    id: str
    """Of the construct: unique in its scope."""
    happened: str
    """What is wrong, as the mail says it. One sentence."""
    advice: str
    """What to do now."""
    reading: Reading
    threshold: float
    comparison: Comparison = "GreaterThanThreshold"
    period_seconds: int = 300
    periods: int = 1
    """How many of them in a row."""
    silence_is_bad: bool = False
    """For what reports itself as long as it works: no data are then as bad as bad data."""


def add_alarm(scope: Construct, watch: Watch, *, topic: sns.ITopic) -> cloudwatch.CfnAlarm:
    """The alarm of `watch`, announced on `topic`.

    Silence is not an alarm unless the watch says so: an endpoint at zero instances, a queue that nobody wrote
    to for six hours and an account without misuse emit nothing.
    """
    statistic = watch.reading.statistic
    percentile = statistic.startswith("p")
    return cloudwatch.CfnAlarm(
        scope,
        watch.id,
        alarm_description=f"{watch.happened} {watch.advice}",
        namespace=watch.reading.metric.namespace,
        metric_name=watch.reading.metric.name,
        dimensions=[
            cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
            for name, value in watch.reading.dimensions.items()
        ],
        statistic=None if percentile else statistic,
        extended_statistic=statistic if percentile else None,
        period=watch.period_seconds,
        evaluation_periods=watch.periods,
        datapoints_to_alarm=watch.periods,
        threshold=watch.threshold,
        comparison_operator=watch.comparison,
        treat_missing_data="breaching" if watch.silence_is_bad else "notBreaching",
        alarm_actions=[topic.topic_arn],
    )
