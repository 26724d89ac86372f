"""Rows of the dashboards that have no alarm of their own: arrivals, training, cost."""

from __future__ import annotations

from infra.data.archive import Archive
from infra.environment import Environment
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import aws_metric
from infra.observability.training_runs import pipeline_reading

_DAY = 86_400
_BILLING_REGION = "us-east-1"
"""Charges are measured here, whatever region they arise in."""


def arrivals(archive: Archive) -> Row:
    """What is in the data store."""

    def count(metric: str, label: str) -> Graph:
        reading = aws_metric("AWS/HealthImaging", metric, "DatastoreId").of(
            statistic="Average", label=label, DatastoreId=archive.datastore_id
        )
        return Graph(title=label, lines=(reading,), period_seconds=3600)

    storage = aws_metric("AWS/HealthImaging", "StorageBytes", "DatastoreId", "StorageTier")
    return Row(
        title="Archive",
        text="HealthImaging counts only once its service-linked role exists: `aws iam "
        "create-service-linked-role --aws-service-name medical-imaging.amazonaws.com`.",
        graphs=(
            count("TotalImageSetCount", "Image sets"),
            count("PrimaryImageSetCount", "Primary image sets"),
            count("DICOMStudyCount", "Studies"),
            Graph(
                title="Storage by tier",
                lines=tuple(
                    storage.of(
                        statistic="Average",
                        label=label,
                        DatastoreId=archive.datastore_id,
                        StorageTier=tier,
                    )
                    for tier, label in (
                        ("FrequentAccessStorage", "frequent access"),
                        ("ArchiveInstantAccessStorage", "archive instant access"),
                    )
                ),
                unit="bytes",
                period_seconds=3600,
                stacked=True,
            ),
        ),
    )


def training(environment: Environment) -> Row:
    """Pipelines and the machines of their jobs."""
    namespace = "/aws/sagemaker/TrainingJobs"
    executions = tuple(
        pipeline_reading(environment, task, metric, label=f"{task.name} {label}")
        for task in environment.training.tasks
        for metric, label in (
            ("ExecutionStarted", "started"),
            ("ExecutionSucceeded", "succeeded"),
            ("ExecutionFailed", "failed"),
        )
    )
    return Row(
        title="Training",
        text="Executions of the pipelines, and how busy the machines of training jobs are. An idle GPU waits "
        "for data.",
        graphs=(
            # CloudWatch refuses a graph without lines.
            *([Graph(title="Executions", lines=executions, period_seconds=3600)] if executions else []),
            Graph(
                title="Machines of training jobs",
                lines=tuple(
                    aws_metric(namespace, metric, "Host").everywhere(statistic="Average")
                    for metric in ("GPUUtilization", "GPUMemoryUtilization", "MemoryUtilization")
                ),
                unit="%",
            ),
        ),
    )


def cost() -> Row:
    """What the account has cost since the first of the month."""
    return Row(
        title="Cost",
        text="Since the first of the month, for the whole account. Needs CloudWatch billing alerts to be on "
        "(Billing preferences). The budget mails at 80 % forecast and 100 % actual.",
        graphs=(
            Graph(
                title="Total",
                lines=(
                    aws_metric("AWS/Billing", "EstimatedCharges", "Currency").of(
                        statistic="Maximum", label="USD", Currency="USD"
                    ),
                ),
                unit="USD",
                period_seconds=_DAY,
                region=_BILLING_REGION,
            ),
            Graph(
                title="By service",
                lines=(
                    aws_metric("AWS/Billing", "EstimatedCharges", "ServiceName", "Currency").everywhere(
                        statistic="Maximum"
                    ),
                ),
                unit="USD",
                period_seconds=_DAY,
                region=_BILLING_REGION,
                stacked=True,
            ),
        ),
    )
