"""The buckets: one for each kind of object, all private, encrypted, versioned and logged."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

_OLD_VERSIONS = cdk.Duration.days(90)
"""How long an overwritten or deleted object can be brought back."""

_PASSING = cdk.Duration.days(30)
"""How long objects stay that only carry something from one step to the next."""

_BROUGHT = cdk.Duration.days(90)
"""How long what people brought stays in the inbox. It is imported within hours, or whoever brought it is told
that it is not, and has it still; `monai-aws ingest` broken off goes on as long as it is there.
"""

_FOR_A_PERSON = cdk.Duration.days(365)
"""How long the inbox keeps what waits for a person: it may be the only copy, and nobody else has it brought
in. An alarm tells people when it comes. Not for ever: much of it names the patient.
"""

_UNFINISHED = cdk.Duration.days(7)
"""After this, parts of an upload that was not finished are removed: nobody sees them, and they cost."""

INGEST = "ingest/"
RECEIVED = "received/"
"""Prefixes of the inbox from which HealthImaging imports: what people bring, and what devices send. In the
bucket of imports, what the jobs report is below the same prefixes.

Nothing below RECEIVED goes because of its age. The receiver removes what is imported; what is still there is
not, and the device that sent it may have forgotten it.
"""

QUARANTINE = "quarantine/"
NOT_IMPORTED = "failed/"
"""Prefixes of the inbox for what the receiver keeps for a person to look at: what cannot be de-identified,
and what HealthImaging refused. No import reads them.
"""

LEDGER = "ledger/"
DEIDENTIFICATION_REPORTS = "reports/deidentification/"
REIDENTIFICATION = "reidentification/"
"""Prefixes of the bucket of imports: what has been brought, what de-identification did, and, sealed, to
whom.
"""

MANIFESTS = "manifests/"
BUNDLES = "bundles/"
TRAINING = "training/"
CHECKPOINTS = "checkpoints/"
EVALUATION = "evaluation/"
PROMOTED = "promoted/"
"""Prefixes of the model bucket. People bring data sets (MANIFESTS) and what to train with them (BUNDLES);
what was approved in the environment before this one is in PROMOTED.
"""

WRITTEN_ONCE = (MANIFESTS, BUNDLES)
"""Prefixes whose objects are named by their content: what a model was made of must stay what it was."""

REQUESTS = "requests/"
RESPONSES = "responses/"
FAILURES = "failures/"
SEGMENTATIONS = "segmentations/"
"""Prefixes of the result bucket."""

DISPATCHED = f"{REQUESTS}dispatch/"
"""Requests of the event path, which record what has been sent. Only the dispatch function writes there."""

NOTED = f"{FAILURES}noted/"
"""What has failed and not succeeded since. Only the announce function writes there."""

QUERY_RESULTS = "query-results/"
"""Prefix of the catalog bucket under which Athena writes. Next to it: one prefix for each table."""


class Buckets(Construct):
    """All buckets of an environment.

    They live together because the bucket that receives access logs names every source in its policy.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        key: kms.IKey,
        removal_policy: cdk.RemovalPolicy,
        access_log_days: int,
    ) -> None:
        super().__init__(scope, id)
        self.access_logs = s3.Bucket(
            self,
            "AccessLogs",
            # S3 delivers server access logs only to buckets with S3-managed keys.
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            versioned=True,
            removal_policy=removal_policy,
            lifecycle_rules=[
                s3.LifecycleRule(
                    abort_incomplete_multipart_upload_after=_UNFINISHED,
                    expiration=cdk.Duration.days(access_log_days),
                    noncurrent_version_expiration=_OLD_VERSIONS,
                )
            ],
        )
        self._key = key
        self._removal_policy = removal_policy
        self.inbox = self._private(
            "Inbox",
            expiring={INGEST: _BROUGHT, QUARANTINE: _FOR_A_PERSON, NOT_IMPORTED: _FOR_A_PERSON},
        )
        """DICOM files as they arrive."""
        self.imports = self._private("Imports")
        """What import jobs report."""
        self.catalog = self._private("Catalog", expiring={QUERY_RESULTS: _PASSING})
        """Header rows as Parquet, and query results."""
        self.models = self._private("Models", expiring={CHECKPOINTS: _PASSING})
        """Dataset manifests, bundles to train, trained models and their evaluation."""
        _never_overwritten(self.models, *WRITTEN_ONCE)
        self.results = self._private(
            "Results", expiring=dict.fromkeys((REQUESTS, RESPONSES, FAILURES), _PASSING)
        )
        """Requests to asynchronous endpoints and what came of them."""
        for policy in (bucket.policy for bucket in self.all):
            # A bucket that is kept must not lose the rule that nobody reads it without TLS.
            if policy is not None:
                policy.apply_removal_policy(removal_policy)

    @property
    def all(self) -> tuple[s3.Bucket, ...]:
        """Every bucket, the one with the access logs included."""
        return (self.access_logs, *self.with_patient_data)

    @property
    def with_patient_data(self) -> tuple[s3.Bucket, ...]:
        """Buckets whose objects can describe a patient: reading any of them is recorded."""
        return (self.inbox, self.imports, self.catalog, self.models, self.results)

    def _private(self, id: str, *, expiring: Mapping[str, cdk.Duration] | None = None) -> s3.Bucket:
        return s3.Bucket(
            self,
            id,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self._key,
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            versioned=True,
            removal_policy=self._removal_policy,
            server_access_logs_bucket=self.access_logs,
            server_access_logs_prefix=f"{id.lower()}/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    abort_incomplete_multipart_upload_after=_UNFINISHED,
                    noncurrent_version_expiration=_OLD_VERSIONS,
                    # What is left of a name when its last old version has gone.
                    expired_object_delete_marker=True,
                ),
                *(
                    s3.LifecycleRule(prefix=prefix, expiration=after)
                    for prefix, after in (expiring or {}).items()
                ),
            ],
        )


def _never_overwritten(bucket: s3.Bucket, *prefixes: str) -> None:
    """Refuse uploads below the prefixes that would replace an object: they must say `If-None-Match`, and S3
    then refuses the name that is there already. Parts of an upload cannot say it, the request that completes
    them can; copying into the prefixes is refused altogether.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    bucket.add_to_resource_policy(
        iam.PolicyStatement(
            sid="NeverOverwritten",
            effect=iam.Effect.DENY,
            principals=[iam.AnyPrincipal()],
            actions=["s3:PutObject"],
            resources=[bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes],
            conditions={
                "Null": {"s3:if-none-match": "true"},
                "Bool": {"s3:ObjectCreationOperation": "true"},
            },
        )
    )
