"""Retry policies of pipeline steps: checked, and never applied.

None of the errors that they name happens here: no service is busy, no machine is missing, no job is lost by
the service (docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html).
"""

from __future__ import annotations

from typing import Any

from local.sagemaker.errors import validation

STEPS = ("Training", "Processing", "RegisterModel")
"""Of the step types that this cloud runs, those that may have policies."""

_EXCEPTIONS = (
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
)
_LARGEST = {"IntervalSeconds": 43_200, "MaxAttempts": 20, "ExpireAfterMin": 14_400}


def check_retry_policies(*, step: str, kind: str, policies: Any) -> None:
    """Refuse what SageMaker would refuse."""
    if kind not in STEPS:
        raise validation(f"Step {step!r}: a {kind} step has no RetryPolicies.")
    if not isinstance(policies, list) or not all(isinstance(policy, dict) for policy in policies):
        raise validation(f"Step {step!r}: RetryPolicies must be a list of objects.")
    for policy in policies:
        if unknown := sorted(set(policy) - {"ExceptionType", "BackoffRate", *_LARGEST}):
            raise validation(f"Step {step!r}: a retry policy has no {', '.join(unknown)}.")
        exceptions = policy.get("ExceptionType")
        if not isinstance(exceptions, list) or not exceptions or not set(exceptions) <= set(_EXCEPTIONS):
            raise validation(
                f"Step {step!r}: ExceptionType of a retry policy must list some of {', '.join(_EXCEPTIONS)}."
            )
        if "MaxAttempts" in policy and "ExpireAfterMin" in policy:
            raise validation(f"Step {step!r}: a retry policy has MaxAttempts or ExpireAfterMin, not both.")
        for name, largest in _LARGEST.items():
            value = policy.get(name, 0)
            if type(value) is not int or not 0 <= value <= largest:
                raise validation(f"Step {step!r}: {name} of a retry policy must be 0 to {largest}.")
        rate = policy.get("BackoffRate", 2.0)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate < 0:
            raise validation(f"Step {step!r}: BackoffRate of a retry policy must be a positive number.")
