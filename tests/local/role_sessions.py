"""Roles for tests: made with exactly some permissions, assumed, and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

ACCOUNT = "000000000000"


def make_role(cloud: Any, name: str, *statements: dict[str, Any], trust: dict[str, Any] | None = None) -> str:
    iam = cloud.client("iam")
    trusted = trust or {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    document = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", **trusted}]}
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    iam.put_role_policy(
        RoleName=name,
        PolicyName="work",
        PolicyDocument=json.dumps(
            {"Statement": [{"Effect": "Allow", **statement} for statement in statements]}
        ),
    )
    return arn


def session(cloud: Any, role_arn: str, service: str, **options: Any) -> Any:
    made = cloud.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="tester", **options)[
        "Credentials"
    ]
    return cloud.client(
        service,
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        aws_session_token=made["SessionToken"],
    )


def refused(call: Any, **params: Any) -> str:
    """The message of the AccessDenied that a call must end in."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert caught.value.response["Error"]["Code"].startswith("AccessDenied"), caught.value
    return str(caught.value.response["Error"]["Message"])
