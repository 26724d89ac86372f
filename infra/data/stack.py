"""Stack `data`: the archive, the buckets, their key, the role that imports DICOM, and the audit trail. All
that must outlive everything else.
"""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from infra.data.alarm_topic import AlarmTopic
from infra.data.archive import Archive
from infra.data.audit_trail import AuditTrail
from infra.data.buckets import INGEST, RECEIVED, Buckets
from infra.data.deidentification_key import DeidentificationKey
from infra.data.encryption import PlatformKey
from infra.data.model_reader import lend_models
from infra.environment import Environment
from infra.permissions import use_key, write_objects
from infra.workload import Workload, allow, service


class DataStack(cdk.Stack):
    """Everything that holds patient data."""

    def __init__(self, scope: Construct, *, environment: Environment, model_reader: str | None) -> None:
        """
        Args:
            model_reader: ARN of the role by which the next environment reads approved models.
        """
        super().__init__(
            scope,
            "data",
            stack_name=f"monai-{environment.name}-data",
            description="MONAI on AWS: HealthImaging data store, buckets, key, audit trail",
            termination_protection=environment.protection.termination_protection,
        )
        retention = (
            cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
        )
        self.key = PlatformKey(self, "Encryption", removal_policy=retention).key
        self.buckets = Buckets(
            self,
            "Buckets",
            key=self.key,
            removal_policy=retention,
            access_log_days=environment.logs.retention_days,
        )
        if model_reader is not None:
            lend_models(role_arn=model_reader, bucket=self.buckets.models, key=self.key)
        self.archive = Archive(self, "Archive", name=f"monai-{environment.name}", key=self.key)
        self.deidentification_key = DeidentificationKey(
            self, "Deidentification", key=self.key, removal_policy=retention
        )
        self.audit = AuditTrail(
            self,
            "Audit",
            name=f"monai-{environment.name}",
            data_buckets=self.buckets.with_patient_data,
            access_logs=self.buckets.access_logs,
            retention_days=environment.logs.audit_retention_days,
            locked=environment.protection.retain_data,
            removal_policy=retention,
        )
        self.alarm_topic = AlarmTopic(self, "Alarms", key=self.key, emails=environment.notices.emails).topic
        self.importer = Workload(
            self,
            "Importer",
            description="HealthImaging import jobs: read arriving DICOM files, write what became of them",
            principal=service(
                "medical-imaging.amazonaws.com", account=self.account, source_arn=self.archive.datastore_arn
            ),
            statements=[
                # What waits for a person (QUARANTINE, NOT_IMPORTED) cannot come into the archive by this
                # role.
                allow("s3:ListBucket", on=[self.buckets.inbox.bucket_arn, self.buckets.imports.bucket_arn]),
                allow(
                    "s3:GetObject",
                    on=[self.buckets.inbox.arn_for_objects(f"{prefix}*") for prefix in (INGEST, RECEIVED)],
                ),
                write_objects(self.buckets.imports, INGEST, RECEIVED),
                use_key(self.key),
            ],
        )

        for name, value in {
            "DatastoreId": self.archive.datastore_id,
            "DatastoreArn": self.archive.datastore_arn,
            "InboxBucketName": self.buckets.inbox.bucket_name,
            "ImportBucketName": self.buckets.imports.bucket_name,
            "ModelBucketName": self.buckets.models.bucket_name,
            "ResultBucketName": self.buckets.results.bucket_name,
            "ImportRoleArn": self.importer.role_arn,
            "KeyArn": self.key.key_arn,
            "DeidentificationKeySecretArn": self.deidentification_key.secret_arn,
            "AlarmTopicArn": self.alarm_topic.topic_arn,
            "AuditBucketName": self.audit.bucket.bucket_name,
            "AuditLogGroupName": self.audit.log_group_name,
        }.items():
            cdk.CfnOutput(self, name, value=value)
        self._export()

    def _export(self) -> None:
        """Export what other stacks may import, whether one of them does at the moment or not.

        By itself the CDK exports what is imported. When the last importer lets go of a value, this stack,
        which is deployed first, would have to remove an export that is still in use, and CloudFormation
        refuses that.
        """
        for value in (
            self.archive.datastore_id,
            self.archive.datastore_arn,
            self.importer.role_arn,
            self.key.key_arn,
            self.deidentification_key.secret_arn,
            self.alarm_topic.topic_arn,
            self.audit.log_group_name,
        ):
            self.export_value(value)
        for bucket in self.buckets.all:
            self.export_value(bucket.bucket_name)
            self.export_value(bucket.bucket_arn)
