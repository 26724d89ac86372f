"""Retry policies of pipeline steps: what SageMaker would refuse is refused when the pipeline is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.training import retries
from local.sagemaker.definition import read_definition
from local.service import ServiceError

GOOD = {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 1, "MaxAttempts": 3}


def read(policies: Any, *, kind: str = "RegisterModel") -> None:
    arguments: dict[str, Any] = {"ErrorMessage": "no"} if kind == "Fail" else {"ModelPackageGroupName": "g"}
    step = {"Name": "Only", "Type": kind, "Arguments": arguments, "RetryPolicies": policies}
    read_definition(json.dumps({"Version": "2020-12-01", "Steps": [step]}))


@pytest.mark.parametrize("policies", [[], [GOOD], retries.OF_JOBS, retries.OF_REQUESTS])
def test_policies_are_read(policies: Any) -> None:
    read(policies)


@pytest.mark.parametrize(
    "policies",
    [
        {},
        [7],
        [{**GOOD, "ExceptionType": "SageMaker.CAPACITY_ERROR"}],
        [{**GOOD, "ExceptionType": ["SageMaker.JOB_CAPACITY_ERROR"]}],
        [{**GOOD, "ExceptionType": []}],
        [{"IntervalSeconds": 1}],
        [{**GOOD, "ExpireAfterMin": 5}],
        [{**GOOD, "MaxAttempts": 21}],
        [{**GOOD, "MaxAttempts": "3"}],
        [{**GOOD, "IntervalSeconds": 43_201}],
        [{**GOOD, "BackoffRate": "2"}],
        [{**GOOD, "Attempts": 3}],
    ],
)
def test_policies_are_refused(policies: Any) -> None:
    with pytest.raises(ServiceError, match=r"Step 'Only'"):
        read(policies)


def test_a_step_without_a_request_has_none() -> None:
    with pytest.raises(ServiceError, match="a Fail step has no RetryPolicies"):
        read([GOOD], kind="Fail")
