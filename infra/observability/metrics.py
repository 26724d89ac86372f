"""Every metric that the platform looks at: who emits it, under which name, with exactly which dimensions.

CloudWatch takes any combination of names for an alarm or a graph, and one that nobody emits stays silent for
ever. So alarms, scaling policies and dashboards may only use what is in these tables, and a test holds every
template against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PERCENTILES = "percentiles"
"""Stands for p50, p90, ... in `Metric.statistics`."""

_ALL = ("Average", "Sum", "Minimum", "Maximum", "SampleCount", PERCENTILES)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as its service emits it."""

    namespace: str
    name: str
    dimensions: tuple[str, ...]
    """Exactly these: CloudWatch knows the same name with other dimensions as another metric."""
    source: str
    """Where it is documented; for metrics of our own, the file that emits them."""
    statistics: tuple[str, ...] = _ALL

    def of(self, *, statistic: str, label: str | None = None, **dimensions: str) -> Reading:
        """The metric of one resource.

        Raises:
            ValueError: These are not the metric's dimensions, or it does not have the statistic.
        """
        if set(dimensions) != set(self.dimensions):
            raise ValueError(
                f"{self.namespace} {self.name} has the dimensions {sorted(self.dimensions)}, "
                f"not {sorted(dimensions)}"
            )
        if not self.allows(statistic):
            raise ValueError(f"{self.namespace} {self.name} has no statistic {statistic}")
        ordered = {name: dimensions[name] for name in self.dimensions}
        return Reading(metric=self, statistic=statistic, dimensions=ordered, label=label)

    def everywhere(self, *, statistic: str) -> Search:
        """The metric of every resource that emits it, for graphs of what has no name beforehand."""
        if not self.allows(statistic):
            raise ValueError(f"{self.namespace} {self.name} has no statistic {statistic}")
        return Search(metric=self, statistic=statistic)

    def allows(self, statistic: str) -> bool:
        """Whether CloudWatch computes the statistic for this metric."""
        percentile = statistic.startswith("p") and statistic[1:].replace(".", "").isdigit()
        return (PERCENTILES if percentile else statistic) in self.statistics


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A metric of one resource, and what is computed of it."""

    metric: Metric
    statistic: str
    dimensions: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """A metric of all resources at once, as CloudWatch's search expression."""

    metric: Metric
    statistic: str

    @property
    def expression(self) -> str:
        """See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html"""
        schema = ",".join([f'"{self.metric.namespace}"', *self.metric.dimensions])
        return f"SEARCH('{{{schema}}} MetricName=\"{self.metric.name}\"', '{self.statistic}')"


def _metrics(
    namespace: str,
    names: tuple[str, ...],
    *,
    dimensions: tuple[str, ...],
    source: str,
    statistics: tuple[str, ...] = _ALL,
) -> list[Metric]:
    return [
        Metric(namespace=namespace, name=name, dimensions=dimensions, source=source, statistics=statistics)
        for name in names
    ]


_SAGEMAKER = "https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html"
_ASYNCHRONOUS = "https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-monitor.html"
_HEALTHIMAGING = "https://docs.aws.amazon.com/healthimaging/latest/devguide/monitoring-cloudwatch.html"
_SQS = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html"
_LAMBDA = "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html"
_NETWORK_ELB = (
    "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html"
)
_EVENTS = "https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html"
_BILLING = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/monitor_estimated_charges_with_cloudwatch.html"
_COUNTED = ("Average", "Sum")
_TIMED = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")

AWS_METRICS: tuple[Metric, ...] = (
    # Only for data stores made after 9 February 2026, and with the service-linked role of HealthImaging.
    *_metrics(
        "AWS/HealthImaging",
        (
            "TotalImageSetCount",
            "PrimaryImageSetCount",
            "SmallImageSetCount",
            "DICOMStudyCount",
            "DICOMSeriesCount",
            "DICOMInstanceCount",
        ),
        dimensions=("DatastoreId",),
        source=_HEALTHIMAGING,
        statistics=_COUNTED,
    ),
    *_metrics(
        "AWS/HealthImaging",
        ("StorageBytes",),
        dimensions=("DatastoreId", "StorageTier"),
        source=_HEALTHIMAGING,
        statistics=_COUNTED,
    ),
    *_metrics(
        "AWS/SQS",
        (
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesVisible",
            "NumberOfMessagesDeleted",
            "NumberOfMessagesSent",
        ),
        dimensions=("QueueName",),
        source=_SQS,
    ),
    *_metrics(
        "AWS/Lambda",
        ("Duration", "Errors", "Invocations", "Throttles"),
        dimensions=("FunctionName",),
        source=_LAMBDA,
    ),
    # Reported while targets are registered.
    *_metrics(
        "AWS/NetworkELB",
        ("HealthyHostCount", "UnHealthyHostCount"),
        dimensions=("TargetGroup", "LoadBalancer"),
        source=_NETWORK_ELB,
        statistics=("Average", "Minimum", "Maximum"),
    ),
    *_metrics(
        "AWS/NetworkELB",
        ("ActiveFlowCount", "NewFlowCount"),
        dimensions=("LoadBalancer",),
        source=_NETWORK_ELB,
        statistics=("Average", "Sum", "Minimum", "Maximum"),
    ),
    *_metrics(
        "AWS/ECS",
        ("CPUUtilization", "MemoryUtilization"),
        dimensions=("ClusterName", "ServiceName"),
        source="https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html",
    ),
    *_metrics("AWS/Events", ("Invocations",), dimensions=("RuleName",), source=_EVENTS),
    # What asynchronous endpoints emit is listed exhaustively: neither Invocations nor
    # InvocationsPerInstance.
    *_metrics(
        "AWS/SageMaker",
        (
            "ApproximateAgeOfOldestRequest",
            "ApproximateBacklogSize",
            "ApproximateBacklogSizePerInstance",
            "HasBacklogWithoutCapacity",
        ),
        dimensions=("EndpointName",),
        source=_ASYNCHRONOUS,
        statistics=_TIMED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("ExpiredRequests", "InvocationFailures", "InvocationsProcessed", "NotificationFailures"),
        dimensions=("EndpointName", "VariantName"),
        source=_ASYNCHRONOUS,
        statistics=_TIMED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("TimeInBacklog",),
        dimensions=("EndpointName", "VariantName"),
        source=_ASYNCHRONOUS,
        statistics=_TIMED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("Invocation4XXErrors", "Invocation5XXErrors"),
        dimensions=("EndpointName", "VariantName"),
        source=_SAGEMAKER,
        statistics=_COUNTED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("Invocations", "InvocationsPerInstance"),
        dimensions=("EndpointName", "VariantName"),
        source=_SAGEMAKER,
        statistics=("Sum",),
    ),
    *_metrics(
        "AWS/SageMaker",
        ("ModelLatency", "ModelSetupTime", "OverheadLatency"),
        dimensions=("EndpointName", "VariantName"),
        source=_SAGEMAKER,
        statistics=(*_TIMED, PERCENTILES),
    ),
    *_metrics(
        "AWS/SageMaker",
        ("ModelCacheHit", "ModelLoadingWaitTime"),
        dimensions=("EndpointName", "VariantName"),
        source=_SAGEMAKER,
        statistics=_TIMED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("Invocation4XXErrors", "Invocation5XXErrors"),
        dimensions=("InferenceComponentName",),
        source=_SAGEMAKER,
        statistics=_COUNTED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("NoCapacityInvocationFailures",),
        dimensions=("InferenceComponentName",),
        source="https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html",
        statistics=_COUNTED,
    ),
    *_metrics(
        "AWS/SageMaker",
        ("Invocations", "InvocationsPerCopy"),
        dimensions=("InferenceComponentName",),
        source=_SAGEMAKER,
        statistics=("Sum",),
    ),
    *_metrics(
        "AWS/SageMaker",
        ("ModelLatency",),
        dimensions=("InferenceComponentName",),
        source=_SAGEMAKER,
        statistics=(*_TIMED, PERCENTILES),
    ),
    *_metrics(
        "/aws/sagemaker/Endpoints",
        (
            "CPUUtilization",
            "DiskUtilization",
            "GPUMemoryUtilization",
            "GPUUtilization",
            "LoadedModelCount",
            "MemoryUtilization",
        ),
        dimensions=("EndpointName", "VariantName"),
        source=_SAGEMAKER,
    ),
    *_metrics(
        "/aws/sagemaker/InferenceComponents",
        ("GPUMemoryUtilizationNormalized", "GPUUtilizationNormalized", "MemoryUtilizationNormalized"),
        dimensions=("InferenceComponentName",),
        source=_SAGEMAKER,
    ),
    *_metrics(
        "/aws/sagemaker/TrainingJobs",
        ("CPUUtilization", "GPUMemoryUtilization", "GPUUtilization", "MemoryUtilization"),
        dimensions=("Host",),
        source=_SAGEMAKER,
    ),
    *_metrics(
        "AWS/Sagemaker/ModelBuildingPipeline",
        ("ExecutionFailed", "ExecutionStarted", "ExecutionSucceeded"),
        dimensions=("PipelineName",),
        source=_SAGEMAKER,
        statistics=_COUNTED,
    ),
    # In us-east-1 alone, for the whole account, and only once somebody has switched them on in the account's
    # billing preferences.
    *_metrics("AWS/Billing", ("EstimatedCharges",), dimensions=("Currency",), source=_BILLING),
    *_metrics(
        "AWS/Billing",
        ("EstimatedCharges",),
        dimensions=("ServiceName", "Currency"),
        source=_BILLING,
    ),
)
"""What AWS emits."""


def aws_metric(namespace: str, name: str, *dimensions: str) -> Metric:
    """The metric of the table.

    Raises:
        KeyError: AWS does not emit it. Look it up, and add it to the table with its source.
    """
    for metric in AWS_METRICS:
        if (metric.namespace, metric.name) == (namespace, name) and set(metric.dimensions) == set(dimensions):
            return metric
    raise KeyError(f"{namespace} {name} with dimensions {', '.join(dimensions) or 'none'}")
