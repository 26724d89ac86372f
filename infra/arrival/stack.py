"""Stack `arrival`: where devices of the hospital send studies."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.arrival.load_balancer import ReceiverAddress
from infra.arrival.roles import ReceiverRole
from infra.arrival.service import ReceiverService
from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import RECEIVER_PORT, Environment, Receiver
from infra.network.placement import Placement


class ArrivalStack(cdk.Stack):
    """The DICOM receiver. Environments whose file has no `[arrival.receiver]` do not have this stack."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        receiver: Receiver,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        import_role_arn: str,
        deidentification_secret_arn: str,
        placement: Placement,
    ) -> None:
        super().__init__(
            scope,
            "arrival",
            stack_name=f"monai-{environment.name}-arrival",
            description="MONAI on AWS: DICOM receiver",
        )
        secret = deidentification_secret_arn if environment.arrival.deidentify else None
        log_group = logs.CfnLogGroup(
            self, "Log", kms_key_id=key.key_arn, retention_in_days=environment.logs.retention_days
        )
        log_group.apply_removal_policy(
            cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
        )
        self.address = ReceiverAddress(
            self,
            "Address",
            receiver=receiver,
            placement=placement,
            protected=environment.protection.termination_protection,
        )
        role = ReceiverRole(
            self,
            "Receiver",
            archive=archive,
            buckets=buckets,
            key=key,
            import_role_arn=import_role_arn,
            deidentification_secret_arn=secret,
            tls_secret_arn=receiver.tls_secret_arn,
        )
        self.image = Image(self, "Image", package="arrival", base=None)
        self.service = ReceiverService(
            self,
            "Service",
            receiver=receiver,
            image=self.image,
            variables=_variables(
                receiver,
                archive=archive,
                buckets=buckets,
                import_role_arn=import_role_arn,
                deidentification_secret_arn=secret,
            ),
            role=role,
            log_group=log_group,
            address=self.address,
            placement=placement,
        )
        for name, value in {
            "ReceiverAeTitle": receiver.ae_title,
            "ReceiverLogGroupName": log_group.ref,
            "ReceiverClusterName": self.service.cluster_name,
            "ReceiverServiceName": self.service.name,
        }.items():
            cdk.CfnOutput(self, name, value=value)


def _variables(
    receiver: Receiver,
    *,
    archive: Archive,
    buckets: Buckets,
    import_role_arn: str,
    deidentification_secret_arn: str | None,
) -> dict[str, str]:
    """What the process reads (arrival/settings.py)."""
    variables = {
        "ARRIVAL_AE_TITLE": receiver.ae_title,
        "ARRIVAL_PORT": str(RECEIVER_PORT),
        "ARRIVAL_ALLOWED": json.dumps([caller.model_dump() for caller in receiver.allowed]),
        "ARRIVAL_QUIET_SECONDS": str(receiver.quiet_seconds),
        "ARRIVAL_DATASTORE_ID": archive.datastore_id,
        "ARRIVAL_INBOX_BUCKET": buckets.inbox.bucket_name,
        "ARRIVAL_IMPORT_BUCKET": buckets.imports.bucket_name,
        "ARRIVAL_IMPORT_ROLE_ARN": import_role_arn,
        "ARRIVAL_DEIDENTIFY": "true" if deidentification_secret_arn else "false",
    }
    if deidentification_secret_arn:
        variables["ARRIVAL_DEIDENTIFICATION_KEY_SECRET_ARN"] = deidentification_secret_arn
    if receiver.tls_secret_arn:
        variables["ARRIVAL_TLS_SECRET_ARN"] = receiver.tls_secret_arn
    return variables
