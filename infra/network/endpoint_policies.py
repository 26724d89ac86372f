"""What may pass the endpoints: this account's principals to this account's resources.

An endpoint policy grants nothing; it is the most that anybody in the network can do, whatever credentials
they hold. Modelled on AWS's examples for a data perimeter
(https://github.com/aws-samples/data-perimeter-policy-examples, folder `vpc_endpoint_policies`), with an
account in the place of an organization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Lender:
    """The environment before this one, whose approved models one role of this account reads."""

    account: str
    borrower: str
    """ARN of that role."""

    def lends(self, action: str) -> Document:
        """One action of the one role on what is the other account's. Which resources these are is in the
        other account's own policies.
        """
        return {
            "Sid": "ModelsOfTheEnvironmentBefore",
            "Effect": "Allow",
            "Principal": "*",
            "Action": action,
            "Resource": "*",
            "Condition": {
                "StringEquals": {"aws:ResourceAccount": self.account},
                "ArnEquals": {"aws:PrincipalArn": self.borrower},
            },
        }


def endpoint_policy(*, account: str) -> Document:
    """The policy of an interface endpoint."""
    return _document(_own(account))


def sagemaker_endpoint_policy(*, account: str, lender: Lender | None) -> Document:
    """The policy of SageMaker's API: also packages that another environment lends."""
    return _document(_own(account), *([lender.lends("sagemaker:DescribeModelPackage")] if lender else []))


def s3_endpoint_policy(*, account: str, region: str, lender: Lender | None) -> Document:
    """The policy of the gateway of S3.

    Beyond the account there is one bucket: Amazon ECR keeps the layers of images in a bucket of its own and
    hands out URLs that it signed itself, so that neither the principal nor the resource is of this account
    (https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html#ecr-minimum-s3-perms). Only a
    holder of the account's credentials is given such a URL, by the endpoint of the registry.

    AWS's other buckets are left out on purpose, JumpStart's models among them: nothing here uses them.
    """
    return _document(
        _own(account),
        {
            "Sid": "ImageLayers",
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::prod-{region}-starport-layer-bucket/*",
        },
        *([lender.lends("s3:GetObject")] if lender else []),
    )


def _own(account: str) -> Document:
    return {
        "Sid": "OwnPrincipalsToOwnResources",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "*",
        "Resource": "*",
        "Condition": {
            "StringEquals": {"aws:PrincipalAccount": account, "aws:ResourceAccount": account},
        },
    }


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
