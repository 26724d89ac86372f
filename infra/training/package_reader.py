"""Who of another account may read a model package group: the next environment, which takes candidates."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk


def package_reader_policy(stack: cdk.Stack, *, group: str, role_arn: str) -> dict[str, Any]:
    """The group's resource policy: one role may look at the group's packages.

    The account is the principal and the role a condition, because a policy must not depend on whether the
    role exists yet (infra/promotion/neighbours.py).
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "NextEnvironmentReadsPackages",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{role_arn.split(':')[4]}:root"},
                "Action": ["sagemaker:DescribeModelPackage"],
                "Resource": [
                    stack.format_arn(
                        service="sagemaker", resource="model-package", resource_name=f"{group}/*"
                    )
                ],
                "Condition": {"ArnEquals": {"aws:PrincipalArn": role_arn}},
            }
        ],
    }
