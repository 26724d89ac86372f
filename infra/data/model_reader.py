"""What the next environment may read of this one: models and their evaluation, no image of a patient.

Both name patients by the keys of the manifest, which are pseudonyms and no anonymisation
(healthimaging/manifest.py): who gets the next environment's models gets these.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from infra.data.buckets import EVALUATION, PROMOTED, TRAINING

LENT = (f"{TRAINING}*", f"{EVALUATION}*/evaluation.json", f"{PROMOTED}*")
"""Objects of the model bucket. Of an evaluation its numbers only: report and pictures show patients."""


def lend_models(*, role_arn: str, bucket: s3.Bucket, key: kms.Key) -> None:
    """Let one role of another account read models and evaluations, and decrypt them on the way out of S3.

    The account is the principal and the role a condition, because a policy must not depend on whether the
    role exists yet (infra/promotion/neighbours.py). Manifests stay, and the pictures of an
    evaluation: both are about patients.
    """
    account = iam.AccountPrincipal(role_arn.split(":")[4])
    only_the_role = {"ArnEquals": {"aws:PrincipalArn": role_arn}}
    bucket.add_to_resource_policy(
        iam.PolicyStatement(
            sid="LendModels",
            principals=[account],
            actions=["s3:GetObject"],
            resources=[bucket.arn_for_objects(pattern) for pattern in LENT],
            conditions=only_the_role,
        )
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="LendModels",
            principals=[account],
            actions=["kms:Decrypt"],
            resources=["*"],
            conditions={
                **only_the_role,
                "StringEquals": {"kms:ViaService": f"s3.{cdk.Stack.of(key).region}.amazonaws.com"},
            },
        )
    )
