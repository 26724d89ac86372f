"""The audit trail: who did what in the account, and who read which image set or object."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.data.encryption import encrypt_log_groups
from infra.retention import unless_creation_fails
from infra.workload import Workload, allow, service

IMAGE_RESOURCE_TYPES = ("AWS::MedicalImaging::Datastore", "AWS::MedicalImaging::Imageset")
"""What CloudTrail calls the resources of HealthImaging
(https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-data-events-with-cloudtrail.html).

Reading metadata and frames are data events: without a selector for these types nobody can say later who saw
which patient.
"""

_CLOUDTRAIL = "cloudtrail.amazonaws.com"


class AuditTrail(Construct):
    """One trail for the account, in all regions.

    All regions, because whoever misuses the account need not do so where the platform is; and what belongs to
    no region (IAM, the root user) is recorded only by such a trail. Reads of images and objects are recorded
    for every data store of the account and for the given buckets.

    The trail has a key and a bucket of its own, and no role of the platform may use either: who works with
    images cannot read or change what is recorded of it. With `locked`, nobody can: objects are under Object
    Lock for as long as they have to be kept. In governance mode, not compliance mode: a wrong retention, or
    records that a court orders deleted, must stay repairable for a person who has
    s3:BypassGovernanceRetention, which nobody here has.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        data_buckets: Sequence[s3.IBucket],
        access_logs: s3.IBucket,
        retention_days: int,
        locked: bool,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, id)
        # Made from the name: the key, the bucket and the role, which the trail needs, name the trail.
        self._trail_arn = cdk.Stack.of(self).format_arn(
            service="cloudtrail", resource="trail", resource_name=name
        )
        self.key = self._key(removal_policy)
        self.bucket = self._bucket(
            access_logs=access_logs,
            retention_days=retention_days,
            locked=locked,
            removal_policy=removal_policy,
        )
        log_group = logs.CfnLogGroup(
            self, "Log", kms_key_id=self.key.key_arn, retention_in_days=retention_days
        )
        log_group.apply_removal_policy(removal_policy)
        self.log_group_name: str = log_group.ref
        """Receives the same records within minutes, for alarms and for searching."""
        writer = Workload(
            self,
            "Writer",
            description="CloudTrail: write records to their log group",
            principal=service(_CLOUDTRAIL, account=cdk.Stack.of(self).account, source_arn=self._trail_arn),
            statements=[allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log_group.attr_arn])],
        )
        trail = cloudtrail.CfnTrail(
            self,
            "Trail",
            trail_name=name,
            is_logging=True,
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_log_file_validation=True,
            s3_bucket_name=self.bucket.bucket_name,
            kms_key_id=self.key.key_arn,
            cloud_watch_logs_log_group_arn=log_group.attr_arn,
            cloud_watch_logs_role_arn=writer.role_arn,
            advanced_event_selectors=[
                _selector("Management events", eventCategory=["Management"]),
                *(
                    _selector(
                        type.replace("::", " "), **{"eventCategory": ["Data"], "resources.type": [type]}
                    )
                    for type in IMAGE_RESOURCE_TYPES
                ),
                _objects_selector(data_buckets),
            ],
        )
        trail.apply_removal_policy(unless_creation_fails(removal_policy))
        trail.node.add_dependency(writer.policy)
        if self.bucket.policy is not None:
            # CloudTrail writes a test object when the trail is made.
            trail.node.add_dependency(self.bucket.policy)

    def _key(self, removal_policy: cdk.RemovalPolicy) -> kms.Key:
        """See https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-kms-key-policy-for-cloudtrail.html"""
        key = kms.Key(
            self,
            "Key",
            description="Audit trail",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        stack = cdk.Stack.of(self)
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptTrail",
                principals=[iam.ServicePrincipal(_CLOUDTRAIL)],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={
                    "StringEquals": {
                        "aws:SourceArn": self._trail_arn,
                        "kms:EncryptionContext:aws:cloudtrail:arn": self._trail_arn,
                    }
                },
            )
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DescribeForTrail",
                principals=[iam.ServicePrincipal(_CLOUDTRAIL)],
                actions=["kms:DescribeKey"],
                resources=["*"],
                conditions={"StringEquals": {"aws:SourceArn": self._trail_arn}},
            )
        )
        key.add_to_resource_policy(encrypt_log_groups(stack))
        return key

    def _bucket(
        self,
        *,
        access_logs: s3.IBucket,
        retention_days: int,
        locked: bool,
        removal_policy: cdk.RemovalPolicy,
    ) -> s3.Bucket:
        """See https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-s3-bucket-policy-for-cloudtrail.html"""
        retention = cdk.Duration.days(retention_days)
        bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # Not with a bucket key: S3 asks for that with the bucket as encryption context, and AWS does not
            # say that the trail is in it, too, as the key's policy wants. Objects are few.
            bucket_key_enabled=False,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            versioned=True,
            removal_policy=removal_policy,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix="audit/",
            object_lock_default_retention=s3.ObjectLockRetention.governance(retention) if locked else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                    expiration=retention,
                    noncurrent_version_expiration=cdk.Duration.days(1),
                )
            ],
        )
        trail = [iam.ServicePrincipal(_CLOUDTRAIL)]
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CheckAcl",
                principals=trail,
                actions=["s3:GetBucketAcl"],
                resources=[bucket.bucket_arn],
                conditions={"StringEquals": {"aws:SourceArn": self._trail_arn}},
            )
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Deliver",
                principals=trail,
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"AWSLogs/{cdk.Stack.of(self).account}/*")],
                conditions={
                    "StringEquals": {
                        "aws:SourceArn": self._trail_arn,
                        "s3:x-amz-acl": "bucket-owner-full-control",
                    }
                },
            )
        )
        if bucket.policy is not None:
            bucket.policy.apply_removal_policy(removal_policy)
        return bucket


def _selector(name: str, **fields: Sequence[str]) -> cloudtrail.CfnTrail.AdvancedEventSelectorProperty:
    return cloudtrail.CfnTrail.AdvancedEventSelectorProperty(
        name=name,
        field_selectors=[
            cloudtrail.CfnTrail.AdvancedFieldSelectorProperty(field=field, equal_to=list(values))
            for field, values in fields.items()
        ],
    )


def _objects_selector(buckets: Sequence[s3.IBucket]) -> cloudtrail.CfnTrail.AdvancedEventSelectorProperty:
    """Not the buckets of logs: each record delivered would be recorded, for ever."""
    return cloudtrail.CfnTrail.AdvancedEventSelectorProperty(
        name="Objects of the data buckets",
        field_selectors=[
            cloudtrail.CfnTrail.AdvancedFieldSelectorProperty(field="eventCategory", equal_to=["Data"]),
            cloudtrail.CfnTrail.AdvancedFieldSelectorProperty(
                field="resources.type", equal_to=["AWS::S3::Object"]
            ),
            cloudtrail.CfnTrail.AdvancedFieldSelectorProperty(
                field="resources.ARN", starts_with=[bucket.arn_for_objects("") for bucket in buckets]
            ),
        ],
    )
