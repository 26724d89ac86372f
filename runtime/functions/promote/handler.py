"""Promote function: an approved model package of one environment becomes a candidate in the next.

Reads "SageMaker Model Package State Change" events from SQS. The event only says where to look: what is
promoted is what the other environment's registry says now. A candidate always waits for a person.

The same package becomes one candidate, however often it is announced: the registry here is looked through
first, and registering has a token made from the package's ARN. A candidate that was rejected here stays.

Environment:
    SOURCE_ENVIRONMENT, SOURCE_ACCOUNT: From where candidates come.
    GROUPS: JSON object, model package group there -> group here.
    INFERENCE_IMAGE: The image that candidates run in.
    MODEL_BUCKET: This environment's bucket for models.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

from runtime.functions.promote.copies import archive_of, copy_evaluation, copy_model
from runtime.functions.promote.errors import MalformedEventError, PromotionError
from runtime.functions.promote.package import (
    S3Object,
    Settings,
    Source,
    candidate,
    evaluation_of,
    model_of,
    source_of,
)

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.sagemaker`.
        context: Lambda's context; not used.

    Returns:
        `batchItemFailures`: the messages to deliver again
        (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
    """
    settings = settings_from(os.environ)
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    failures = []
    for record in event["Records"]:
        try:
            arn = package_arn_of(record["body"])
            promote(arn, settings=settings, sagemaker=sagemaker, s3=s3)
        # One bad message must not keep the others from being promoted, whatever is wrong with it.
        except Exception as error:  # noqa: BLE001 - reported as this message's failure
            logger.error("promotion failed: message %s, %s", record["messageId"], _describe(error))
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def settings_from(variables: Mapping[str, str]) -> Settings:
    """The function's settings from its environment variables."""
    return Settings(
        source_environment=variables["SOURCE_ENVIRONMENT"],
        source_account=variables["SOURCE_ACCOUNT"],
        groups=json.loads(variables["GROUPS"]),
        inference_image=variables["INFERENCE_IMAGE"],
        model_bucket=variables["MODEL_BUCKET"],
    )


def package_arn_of(body: str) -> str:
    """The model package that an EventBridge event speaks of.

    Raises:
        MalformedEventError: It speaks of none.
    """
    try:
        arn = json.loads(body)["detail"]["ModelPackageArn"]
    except (ValueError, TypeError, KeyError) as error:
        msg = f"The message is not a model package event: {type(error).__name__}"
        raise MalformedEventError(msg) from error
    if not isinstance(arn, str):
        msg = "The message is not a model package event: its ARN is not text"
        raise MalformedEventError(msg)
    return arn


def promote(arn: str, *, settings: Settings, sagemaker: Any, s3: Any) -> str | None:
    """Make a candidate of a package. Returns the candidate's ARN; None if there is nothing to do.

    Raises:
        PromotionError: The package cannot become a candidate.
    """
    source = source_of(arn, settings=settings)
    known = _candidate_of(source, group=settings.groups[source.group], sagemaker=sagemaker)
    if known is not None:
        logger.info("already a candidate: %s is %s", arn, known)
        return None
    package = sagemaker.describe_model_package(ModelPackageName=arn)
    if package.get("ModelApprovalStatus") != "Approved":
        logger.info("no longer approved: %s", arn)
        return None
    # A folder of its own for each attempt: whatever another one finds there later, it cannot overwrite what
    # this one has verified and is about to register. What a failed attempt leaves is named by no package.
    folder = f"{source.folder}/{uuid.uuid4().hex}"
    model = S3Object(bucket=settings.model_bucket, key=f"{folder}/model.tar.gz")
    evaluation = S3Object(bucket=settings.model_bucket, key=f"{folder}/evaluation.json")
    owner, registered = settings.source_account, package["CreationTime"]
    measured = copy_evaluation(s3, evaluation_of(package), evaluation, owner=owner, registered=registered)
    sha256 = copy_model(
        s3,
        model_of(package),
        model,
        owner=owner,
        registered=registered,
        weights=measured["weights"],
        sha256=archive_of(measured),
    )
    request = candidate(
        package, source=source, settings=settings, model=model, evaluation=evaluation, sha256=sha256
    )
    made = str(sagemaker.create_model_package(**request)["ModelPackageArn"])
    logger.info("candidate: %s is %s, sha256 %s", arn, made, sha256)
    return made


def _candidate_of(source: Source, *, group: str, sagemaker: Any) -> str | None:
    """ARN of the candidate that this package already became."""
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    for page in pages:
        for summary in page["ModelPackageSummaryList"]:
            if summary.get("ModelPackageDescription") == source.description:
                return str(summary["ModelPackageArn"])
    return None


def _describe(error: Exception) -> str:
    if isinstance(error, PromotionError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response.get('Error', {}).get('Code', 'Unknown')}"
    return type(error).__name__
