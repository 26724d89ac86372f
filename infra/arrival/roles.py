"""The two roles of the receiver: what its process may do, and what ECS does to start it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.data.archive import Archive
from infra.data.buckets import (
    DEIDENTIFICATION_REPORTS,
    NOT_IMPORTED,
    QUARANTINE,
    RECEIVED,
    REIDENTIFICATION,
    Buckets,
)
from infra.permissions import pull_image, use_key, write_objects
from infra.workload import Workload, allow, service


class ReceiverRole(Workload):
    """Keeps what arrives, has it imported, and keeps what cannot be imported. Reads no image set.

    It holds no disk: that an instance is kept, that a study is complete, which task imports it and what
    became of it are objects below `received/`, so it lists, reads, writes and deletes there. It may only add
    to the quarantine and to what was not imported: what waits for a person is gone when the person says so.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        import_role_arn: str,
        deidentification_secret_arn: str | None,
        tls_secret_arn: str | None,
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            archive: Where studies are imported.
            buckets: All of them.
            key: Under which they and the secret are.
            import_role_arn: Passed to HealthImaging.
            deidentification_secret_arn: None where the receiver does not de-identify: it then cannot read the
                key.
            tls_secret_arn: None without TLS.
        """
        deidentifies = deidentification_secret_arn is not None
        secrets = [arn for arn in (deidentification_secret_arn, tls_secret_arn) if arn is not None]
        # A report may be due of instances that came before de-identification was switched off.
        written = [DEIDENTIFICATION_REPORTS, *([REIDENTIFICATION] if deidentifies else [])]
        super().__init__(
            scope,
            id,
            description="DICOM receiver: keep what arrives, have it imported",
            principal=_tasks(cdk.Stack.of(scope)),
            statements=[
                # Whether something is not there yet, S3 says only to who may list, and that request has no
                # prefix which a condition could ask for. Names of objects are hashes and numbers.
                allow("s3:ListBucket", on=[buckets.inbox.bucket_arn, buckets.imports.bucket_arn]),
                # Below the same prefix import jobs write what became of the files.
                allow(
                    "s3:GetObject",
                    on=[
                        bucket.arn_for_objects(f"{RECEIVED}*") for bucket in (buckets.inbox, buckets.imports)
                    ],
                ),
                write_objects(buckets.inbox, RECEIVED, QUARANTINE, NOT_IMPORTED),
                allow("s3:DeleteObject", on=[buckets.inbox.arn_for_objects(f"{RECEIVED}*")]),
                write_objects(buckets.imports, RECEIVED, *written),
                allow(
                    "medical-imaging:GetDICOMImportJob",
                    "medical-imaging:StartDICOMImportJob",
                    on=[archive.datastore_arn],
                ),
                allow(
                    "iam:PassRole",
                    on=[import_role_arn],
                    when={"StringEquals": {"iam:PassedToService": "medical-imaging.amazonaws.com"}},
                ),
                *([allow("secretsmanager:GetSecretValue", on=secrets)] if secrets else []),
                use_key(key),
            ],
        )


class StarterRole(Workload):
    """ECS's own work for the task: fetch the image, write what the container prints. The container never has
    this role.
    """

    def __init__(
        self, scope: Construct, id: str, *, repository: ecr.IRepository, log_group: logs.CfnLogGroup
    ) -> None:
        super().__init__(
            scope,
            id,
            description="ECS: pull the DICOM receiver's image, write its log",
            principal=_tasks(cdk.Stack.of(scope)),
            statements=[
                *pull_image(repository),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log_group.attr_arn]),
            ],
        )


def _tasks(stack: cdk.Stack) -> iam.IPrincipal:
    """ECS for tasks of this account and region
    (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html).
    """
    anything = stack.format_arn(service="ecs", resource="*", arn_format=cdk.ArnFormat.NO_RESOURCE_NAME)
    return service("ecs-tasks.amazonaws.com", account=stack.account, source_arn=anything)
