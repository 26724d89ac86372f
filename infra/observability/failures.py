"""Jobs that fail are announced as events, not as metrics. Here they become alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.observability.alarms import Watch
from infra.observability.metrics import aws_metric


@dataclass(frozen=True, kw_only=True)
class _Kind:
    pattern: Mapping[str, Any]
    happened: str
    advice: str


def _kinds(datastore_id: str) -> dict[str, _Kind]:
    return {
        "ImportFailed": _Kind(
            pattern={
                "source": ["aws.medical-imaging"],
                "detail-type": ["Import Job Failed"],
                "detail": {"datastoreId": [datastore_id]},
            },
            happened="A DICOM import job failed as a whole.",
            advice="GetDICOMImportJob says why; start it again with the same input. (Jobs that lose single "
            "files end COMPLETED: see failure.ndjson in the import bucket.)",
        ),
        "TrainingFailed": _Kind(
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Training Job State Change"],
                "detail": {"TrainingJobStatus": ["Failed"]},
            },
            happened="A training job failed.",
            advice="Its FailureReason and /aws/sagemaker/TrainingJobs say why; retry the pipeline execution.",
        ),
        "ProcessingFailed": _Kind(
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Processing Job State Change"],
                "detail": {"ProcessingJobStatus": ["Failed"]},
            },
            happened="An evaluation (processing job) failed.",
            advice="Its FailureReason and /aws/sagemaker/ProcessingJobs say why; retry the execution.",
        ),
        "TransformFailed": _Kind(
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Transform Job State Change"],
                "detail": {"TransformJobStatus": ["Failed"]},
            },
            happened="A batch transform job failed.",
            advice="Its FailureReason and /aws/sagemaker/TransformJobs say why; start it again.",
        ),
        "CrawlFailed": _Kind(
            pattern={
                "source": ["aws.glue"],
                "detail-type": ["Glue Crawler State Change"],
                "detail": {"state": ["Failed"]},
            },
            happened="The catalog's crawler failed: nobody notices now if its objects leave their schema.",
            advice="/aws-glue/crawlers says why; queries go on with the tables as declared.",
        ),
    }


class Failures(Construct):
    """Catches events of failed jobs in a queue, one rule a kind, and says which alarms belong to them.

    A queue and not the topic itself: the events carry S3 URIs and job names, which may say more of a patient
    than belongs into a mail, and a topic cannot tell EventBridge's rules of this account from others'. The
    mail says what happened; the queue holds the events for 14 days, encrypted, for who has to repair it.
    """

    def __init__(self, scope: Construct, id: str, *, datastore_id: str, key: kms.IKey) -> None:
        super().__init__(scope, id)
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption_master_key=key,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        self._kinds = _kinds(datastore_id)
        self._rules = {name: self._rule(name, kind) for name, kind in self._kinds.items()}
        self.queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="FromRules",
                principals=[iam.ServicePrincipal("events.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn],
                conditions={"ArnEquals": {"aws:SourceArn": [r.attr_arn for r in self._rules.values()]}},
            )
        )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """One alarm a kind."""
        return tuple(
            Watch(
                id=name,
                happened=kind.happened,
                advice=f"{kind.advice} The event is in the failure queue of the stack.",
                reading=aws_metric("AWS/Events", "Invocations", "RuleName").of(
                    statistic="Sum", label=kind.happened, RuleName=self._rules[name].ref
                ),
                threshold=0,
            )
            for name, kind in self._kinds.items()
        )

    def _rule(self, name: str, kind: _Kind) -> events.CfnRule:
        return events.CfnRule(
            self,
            name,
            description=kind.happened,
            event_pattern=kind.pattern,
            targets=[events.CfnRule.TargetProperty(id="Queue", arn=self.queue.queue_arn)],
        )
