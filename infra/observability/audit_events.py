"""What in the audit trail must not wait until somebody reads it.

A few, after the CIS AWS Foundations Benchmark (section on monitoring), and two of our own about images. The
trail is of all regions, so these see what happens in any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.observability.alarms import Watch
from infra.observability.metrics import Metric

AUDIT_NAMESPACE = "MONAI/Audit"


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """Records to count, and when their number is an alarm."""

    name: str
    pattern: str
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html"""
    happened: str
    advice: str
    more_than: int = 0

    @property
    def metric(self) -> Metric:
        """What the filter makes of the records: a metric without dimensions."""
        return Metric(
            namespace=AUDIT_NAMESPACE,
            name=self.name,
            dimensions=(),
            source="infra/observability/audit_events.py",
            statistics=("Sum",),
        )


def _calls(source: str, *names: str) -> str:
    events = " || ".join(f'($.eventName = "{name}")' for name in names)
    return f'{{ ($.eventSource = "{source}") && ({events}) }}'


_LOGS_ENDED = _calls("logs.amazonaws.com", "DeleteLogGroup", "DeleteLogStream", "DeleteMetricFilter")
_TRAIL_CHANGED = _calls(
    "cloudtrail.amazonaws.com", "DeleteTrail", "PutEventSelectors", "StopLogging", "UpdateTrail"
)


AUDIT_EVENTS = (
    AuditEvent(
        name="RootUse",
        pattern='{ ($.userIdentity.type = "Root") && ($.userIdentity.invokedBy NOT EXISTS) && '
        '($.eventType != "AwsServiceEvent") }',
        happened="The root user of the account was used.",
        advice="If nobody with access to it says why: change its password, remove its keys, read the trail.",
    ),
    AuditEvent(
        name="TrailChanged",
        # Whoever wants to go unseen stops the trail, or takes away what looks at its records.
        pattern=f"{{ ({_TRAIL_CHANGED[2:-2]}) || ({_LOGS_ENDED[2:-2]}) }}",
        happened="The audit trail was stopped or changed, or logs or their filters were deleted.",
        advice="A deployment that changes the trail or takes a log group away does this; anything else is an "
        "incident. Start logging again first.",
    ),
    AuditEvent(
        name="KeyEnding",
        pattern=_calls("kms.amazonaws.com", "DisableKey", "PutKeyPolicy", "ScheduleKeyDeletion"),
        happened="A key was disabled or scheduled for deletion, and what is encrypted under it is lost with "
        "it; or who may use a key was changed.",
        advice="CancelKeyDeletion and EnableKey until it is certain that nothing needs it. A deployment that "
        "changes a key's policy does the last; undo anything else.",
    ),
    AuditEvent(
        name="BucketOpened",
        pattern=_calls(
            "s3.amazonaws.com",
            "DeleteBucketPolicy",
            "DeleteBucketPublicAccessBlock",
            "PutBucketAcl",
            "PutBucketLifecycle",
            "PutBucketPolicy",
            "PutBucketPublicAccessBlock",
            "PutBucketReplication",
            "PutBucketVersioning",
        ),
        happened="Who may read a bucket, or how long it keeps what is deleted, was changed.",
        advice="A deployment of the stack `data` that changes a bucket does this; undo anything else.",
    ),
    AuditEvent(
        name="ImagesDeleted",
        pattern=_calls("medical-imaging.amazonaws.com", "DeleteDatastore", "DeleteImageSet"),
        happened="Image sets or the data store were deleted.",
        advice="No role of the platform does this. Find out who did and why; what is gone has to be imported "
        "again.",
    ),
    AuditEvent(
        name="ImagesRefused",
        pattern='{ ($.eventSource = "medical-imaging.amazonaws.com") && ($.errorCode = "AccessDenied*") }',
        happened="Somebody was refused images ten times in five minutes.",
        advice="A workload that has lost a permission, or a person who tries: the trail says which.",
        more_than=9,
    ),
)


class AuditFilters(Construct):
    """Counts the records of `AUDIT_EVENTS` in the audit trail's log group."""

    def __init__(self, scope: Construct, id: str, *, log_group_name: str) -> None:
        super().__init__(scope, id)
        for event in AUDIT_EVENTS:
            logs.CfnMetricFilter(
                self,
                event.name,
                log_group_name=log_group_name,
                filter_pattern=event.pattern,
                metric_transformations=[
                    logs.CfnMetricFilter.MetricTransformationProperty(
                        metric_namespace=event.metric.namespace,
                        metric_name=event.metric.name,
                        metric_value="1",
                    )
                ],
            )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """One alarm for each."""
        return tuple(
            Watch(
                id=event.name,
                happened=event.happened,
                advice=event.advice,
                reading=event.metric.of(statistic="Sum", label=event.happened),
                threshold=event.more_than,
            )
            for event in AUDIT_EVENTS
        )
