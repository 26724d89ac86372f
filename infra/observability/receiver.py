"""Whether devices can send, and what becomes of what they sent."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_elasticloadbalancingv2 as elb

from infra.environment import Receiver
from infra.observability.alarms import Watch
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Metric, Reading, aws_metric

NAMESPACE = "MONAI/Arrival"
_SOURCE = "arrival/receiving/metrics.py"


def _own(name: str) -> Metric:
    return Metric(namespace=NAMESPACE, name=name, dimensions=("Receiver",), source=_SOURCE)


RECEIVED = _own("Received")
RECEIVED_BYTES = _own("ReceivedBytes")
IMPORTED = _own("Imported")
FAILED = _own("Failed")
ATTEMPTS_FAILED = _own("ImportAttemptsFailed")
QUARANTINED = _own("Quarantined")
REFUSED = _own("Refused")
REJECTED = _own("RejectedAssociations")
IMPORT_SECONDS = _own("ImportSeconds")

RECEIVER_METRICS: tuple[Metric, ...] = (
    RECEIVED,
    RECEIVED_BYTES,
    IMPORTED,
    FAILED,
    ATTEMPTS_FAILED,
    QUARANTINED,
    REFUSED,
    REJECTED,
    IMPORT_SECONDS,
)
"""All that the receiver embeds in its log."""

_MINUTE = 60
_HOUR = 3600
_UNANSWERED_MINUTES = 3
_FAILED_ATTEMPTS = 1
_MANY_REJECTED = 20


@dataclass(frozen=True, kw_only=True)
class WatchedReceiver:
    """The receiver, as it is watched."""

    receiver: Receiver
    balancer: elb.CfnLoadBalancer
    targets: elb.CfnTargetGroup

    @property
    def row(self) -> Row:
        """Its graphs."""
        return Row(
            title="Receiver",
            text="Devices send studies to it; it keeps every instance, and has a study imported when no more "
            "come.",
            graphs=(
                Graph(
                    title="Instances",
                    lines=(
                        self._count(RECEIVED, "received"),
                        self._count(IMPORTED, "imported"),
                        self._failed,
                        self._attempts_failed,
                        self._quarantined,
                        self._refused,
                    ),
                ),
                Graph(title="Bytes", lines=(self._count(RECEIVED_BYTES, "received"),), unit="bytes"),
                Graph(
                    title="Last instance to archive",
                    lines=tuple(
                        IMPORT_SECONDS.of(statistic=one, label=one, Receiver=self.receiver.ae_title)
                        for one in ("p50", "Maximum")
                    ),
                    unit="s",
                ),
                Graph(
                    title="Receiver",
                    lines=(
                        self._answering,
                        self._rejected,
                        aws_metric("AWS/NetworkELB", "NewFlowCount", "LoadBalancer").of(
                            statistic="Sum",
                            label="connections",
                            LoadBalancer=self.balancer.attr_load_balancer_full_name,
                        ),
                    ),
                ),
            ),
        )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Its alarms."""
        return (
            Watch(
                id="ReceiverSilent",
                happened="Receiver: no copy of it answers, so devices of the hospital cannot send. They keep "
                "what they could not send and try again.",
                advice="The events of the ECS service (stack arrival, ReceiverServiceName) say why tasks "
                "end, the log group ReceiverLogGroupName what the last one said.",
                reading=self._answering,
                threshold=1,
                comparison="LessThanThreshold",
                period_seconds=_MINUTE,
                periods=_UNANSWERED_MINUTES,
                silence_is_bad=True,
            ),
            Watch(
                id="ReceiverFailed",
                happened="Receiver: HealthImaging refused instances that devices sent. Nothing is lost: they "
                "are in the inbox below failed/, each with its reason.",
                advice="Read the reasons (docs/receive.md), repair or send again, then remove them from "
                "there.",
                reading=self._failed,
                threshold=0,
            ),
            Watch(
                id="ReceiverCannotImport",
                happened=f"Receiver: more than {_FAILED_ATTEMPTS} attempt to import studies failed within "
                "an hour. Nothing is lost: the studies wait in the inbox below received/, and are tried "
                "again.",
                advice="The log group ReceiverLogGroupName says why: a job that HealthImaging ended as "
                "FAILED or that does not end, a start that it refused (roles, quotas), or S3. Repair that; "
                "the receiver goes on by itself.",
                reading=self._attempts_failed,
                threshold=_FAILED_ATTEMPTS,
                period_seconds=_HOUR,
            ),
            Watch(
                id="ReceiverQuarantined",
                happened="Receiver: instances could show who the patient is in spite of de-identification, "
                "and were not imported. They are in the inbox below quarantine/.",
                advice="A person who may see patients looks at them and decides (docs/deidentification.md).",
                reading=self._quarantined,
                threshold=0,
            ),
            Watch(
                id="ReceiverRefused",
                happened="Receiver: instances that devices sent were not kept, and the devices were told so. "
                "A device keeps them and sends again, but not for ever.",
                advice="The log group ReceiverLogGroupName has status and reason of each (docs/receive.md): "
                "with A700 or C000 look at S3, the key and the receiver's role, with A900 at the device.",
                reading=self._refused,
                threshold=0,
            ),
            Watch(
                id="ReceiverRejected",
                happened=f"Receiver: more than {_MANY_REJECTED} associations were rejected within five "
                "minutes.",
                advice="Either a device is missing in the environment file (arrival.receiver.allowed: AE "
                "title and addresses both have to be right), or something calls that should not; the "
                "receiver's log has addresses and reasons.",
                reading=self._rejected,
                threshold=_MANY_REJECTED,
            ),
        )

    def _count(self, metric: Metric, label: str) -> Reading:
        return metric.of(statistic="Sum", label=label, Receiver=self.receiver.ae_title)

    @property
    def _failed(self) -> Reading:
        return self._count(FAILED, "not imported")

    @property
    def _attempts_failed(self) -> Reading:
        return self._count(ATTEMPTS_FAILED, "attempts to import that failed")

    @property
    def _quarantined(self) -> Reading:
        return self._count(QUARANTINED, "in quarantine")

    @property
    def _refused(self) -> Reading:
        return self._count(REFUSED, "refused")

    @property
    def _rejected(self) -> Reading:
        return self._count(REJECTED, "associations rejected")

    @property
    def _answering(self) -> Reading:
        return aws_metric("AWS/NetworkELB", "HealthyHostCount", "TargetGroup", "LoadBalancer").of(
            statistic="Maximum",
            label="copies that answer",
            TargetGroup=self.targets.attr_target_group_full_name,
            LoadBalancer=self.balancer.attr_load_balancer_full_name,
        )
