"""Which service may assume which role: principal, account and source, as the trust policy says."""

from __future__ import annotations

from typing import Any

import pytest

from local import identity
from local.service import ServiceError

ACCOUNT = "000000000000"
JOB = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/one"


def assumed(statement: dict[str, Any], *, principal: str = "sagemaker.amazonaws.com") -> bool:
    from ministack.services import iam

    arn = f"arn:aws:iam::{ACCOUNT}:role/trusting"
    document = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", **statement}]}
    iam._roles._data[(ACCOUNT, "trusting")] = {"Arn": arn, "AssumeRolePolicyDocument": document}
    try:
        credentials = identity.assume(
            role_arn=arn,
            principal=principal,
            session_name="a job/of mine",
            account_id=ACCOUNT,
            region="us-east-1",
            source_arn=JOB,
        )
    except ServiceError as error:
        return error.code != "AccessDeniedException"
    finally:
        del iam._roles._data[(ACCOUNT, "trusting")]
    return credentials.access_key_id.startswith("ASIA")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"Principal": {"Service": "sagemaker.amazonaws.com"}}, True),
        ({"Principal": {"Service": ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]}}, True),
        ({"Principal": {"Service": "lambda.amazonaws.com"}}, False),
        ({"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}, False),
        ({"Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:TagSession"}, False),
        (
            {
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": ACCOUNT},
                    "ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:*"},
                },
            },
            True,
        ),
        (
            {
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Condition": {"StringEquals": {"aws:SourceAccount": "111111111111"}},
            },
            False,
        ),
        (
            {
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Condition": {"ArnEquals": {"aws:SourceArn": JOB.replace("one", "two")}},
            },
            False,
        ),
    ],
)
def test_trust_policy(statement: dict[str, Any], expected: bool) -> None:
    assert assumed(statement) is expected


def test_missing_role_is_named() -> None:
    with pytest.raises(ServiceError, match="role/nobody does not exist"):
        identity.assume(
            role_arn=f"arn:aws:iam::{ACCOUNT}:role/nobody",
            principal="sagemaker.amazonaws.com",
            session_name="x",
            account_id=ACCOUNT,
            region="us-east-1",
        )
