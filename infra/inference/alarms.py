"""What tells that an endpoint is unwell: the alarms that undo an update and call a person.

Metrics and their dimensions:
https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html (invocations, components) and
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-monitor.html (asynchronous endpoints).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns
from constructs import Construct

METRICS = "AWS/SageMaker"

VARIANT = "main"
"""Every endpoint has one production variant. A blue/green update needs the same name before and after."""

PERIOD_SECONDS = 300
"""Volumes come one at a time: in a shorter period most would be without any request."""

_ANSWER_SECONDS = 60
"""SageMaker ends a synchronous invocation after this."""

_ASYNCHRONOUS_ANSWER_SECONDS = 900
"""Time of an asynchronous invocation unless the request says otherwise (InvokeEndpointAsync)."""

_NEARLY = 0.75
"""Part of the time that may pass before somebody has to know."""

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A threshold on one of SageMaker's metrics."""

    id: str
    metric: str
    statistic: str
    threshold: float
    says: str
    """What is wrong and what to do, after the endpoint's name."""


FAILING = Watch(
    id="Failing",
    metric="Invocation5XXErrors",
    statistic="Average",
    # One is sent for each failed request and zero for each other, so the average is the part that fails.
    threshold=0.1,
    says="answers more than a tenth of its requests with an error of its own: read its log group, and "
    "approve the previous model package again if a new one is the cause",
)
"""Requests that the container refuses for what is in them are 4XX, and not the model's fault."""

SLOW = Watch(
    id="Slow",
    metric="ModelLatency",
    statistic="Average",
    threshold=_ANSWER_SECONDS * _NEARLY * _MICROSECONDS,
    says=f"needs nearly the {_ANSWER_SECONDS} s after which SageMaker gives up: look at what it is sent, or "
    "use an asynchronous endpoint",
)

SLOW_ASYNCHRONOUS = Watch(
    id="Slow",
    metric="ModelLatency",
    statistic="Average",
    threshold=_ASYNCHRONOUS_ANSWER_SECONDS * _NEARLY * _MICROSECONDS,
    says=f"needs nearly the {_ASYNCHRONOUS_ANSWER_SECONDS} s after which SageMaker gives up: look at what "
    "it is sent, or use a faster machine",
)

LOSING = Watch(
    id="Losing",
    metric="InvocationFailures",
    statistic="Sum",
    # For whatever reason, refusals included: one strange image set must not undo an update.
    threshold=3,
    says="failed three requests within five minutes, be it in the container, at S3 or at the topics: read "
    "the messages of the failure topic and the log group",
)

SYNCHRONOUS = (FAILING, SLOW)
ASYNCHRONOUS = (FAILING, SLOW_ASYNCHRONOUS, LOSING)


def of_variant(endpoint_name: str) -> Mapping[str, str]:
    """The dimensions under which an endpoint's requests are counted."""
    return {"EndpointName": endpoint_name, "VariantName": VARIANT}


def of_component(component_name: str) -> Mapping[str, str]:
    """The dimension under which an inference component's requests are counted."""
    return {"InferenceComponentName": component_name}


def guard(
    scope: Construct,
    *,
    named: str,
    dimensions: Mapping[str, str],
    watches: tuple[Watch, ...],
    topic: sns.ITopic,
) -> list[cloudwatch.CfnAlarm]:
    """One alarm for each of the watches, which notifies the topic.

    They are there whether a model is deployed or not: their dimensions are names that are known before, the
    role of the container names them, and without requests they are quiet.
    """
    return [
        cloudwatch.CfnAlarm(
            scope,
            watch.id,
            alarm_description=f"{named} {watch.says}",
            namespace=METRICS,
            metric_name=watch.metric,
            dimensions=[
                cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
                for name, value in dimensions.items()
            ],
            statistic=watch.statistic,
            period=PERIOD_SECONDS,
            evaluation_periods=1,
            threshold=watch.threshold,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[topic.topic_arn],
        )
        for watch in watches
    ]
