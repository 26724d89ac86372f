"""What the steps of a pipeline try again, and how often.

A step is tried again only where that can help: the same request to a service that is busy or at fault, or the
same job on other machines. A job that fails by itself (bad data, a diverging loss) fails its execution.

See https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
"""

from __future__ import annotations

from typing import Any

OF_REQUESTS: list[dict[str, Any]] = [
    {
        "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
        "IntervalSeconds": 10,
        "BackoffRate": 2.0,
        "ExpireAfterMin": 15,
    }
]
"""For steps that call SageMaker and start no job."""

OF_JOBS: list[dict[str, Any]] = [
    *OF_REQUESTS,
    {
        "ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"],
        "IntervalSeconds": 30,
        "BackoffRate": 2.0,
        "MaxAttempts": 3,
    },
    # No machine of the type is free in these zones, or the account's quota is in use by another job: both end
    # by themselves, so waiting is what a person would do.
    {
        "ExceptionType": ["SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"],
        "IntervalSeconds": 300,
        "BackoffRate": 1.5,
        "ExpireAfterMin": 360,
    },
]
"""For steps that start a job on machines."""
