"""Asks an asynchronous endpoint: the request waits in its queue, the answer or the failure comes to S3."""

from __future__ import annotations

import uuid
from typing import Any

from botocore.exceptions import ClientError

from arrival.s3_uri import split_s3_uri
from arrival.waiting import poll
from healthimaging.reference import ImageSetRef
from workbench.deployment import Deployment
from workbench.errors import PredictionFailed
from workbench.log_tail import endpoint_log_group, log_tail
from workbench.predicting.answer import Prediction, failure_message, read_body, request_body
from workbench.progress import Progress
from workbench.served import Served

INVOCATION_SECONDS = 3600
"""How long an endpoint may work on a request: as long as SageMaker allows. Unasked, it gives 15 minutes
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointAsync.html).
"""
PREDICTION_TIMEOUT_SECONDS = float(INVOCATION_SECONDS)
"""How long to wait for an answer, the time in the endpoint's queue included."""


def ask_and_wait(
    deployment: Deployment,
    served: Served,
    image: ImageSetRef,
    *,
    progress: Progress,
    every_seconds: float,
    timeout_seconds: float,
) -> Prediction:
    """Put a request into the endpoint's queue, and wait for its answer."""
    endpoint_name = deployment.stack("inference")[served.endpoint_output]
    results = deployment.stack("data")["ResultBucketName"]
    s3 = deployment.session.client("s3")
    inference_id = uuid.uuid4().hex
    key = f"requests/{inference_id}.json"
    s3.put_object(Bucket=results, Key=key, Body=request_body(image), ContentType="application/json")
    accepted = deployment.session.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=endpoint_name,
        InputLocation=f"s3://{results}/{key}",
        ContentType="application/json",
        Accept="application/json",
        InferenceId=inference_id,
        InvocationTimeoutSeconds=INVOCATION_SECONDS,
    )
    progress(f"request {inference_id} to {endpoint_name}")
    output, failure = str(accepted["OutputLocation"]), accepted.get("FailureLocation")

    def answered() -> tuple[bool, bytes] | None:
        body = object_if_there(s3, output)
        if body is not None:
            return True, body
        body = object_if_there(s3, str(failure)) if failure else None
        return None if body is None else (False, body)

    ok, body = poll(
        answered,
        every_seconds=every_seconds,
        timeout_seconds=timeout_seconds,
        on_timeout=lambda: PredictionFailed(
            f"Endpoint {endpoint_name} has not answered request {inference_id} within "
            f"{timeout_seconds:.0f} s.",
            advice=f"Look at its log group {endpoint_log_group(endpoint_name)}; the answer may still "
            f"come to {output}.",
            details=log_tail(deployment.session, group=endpoint_log_group(endpoint_name)),
        ),
    )
    if not ok:
        raise PredictionFailed(
            f"Endpoint {endpoint_name} could not do request {inference_id}: {failure_message(body)}",
            advice="Read the endpoint's log tail; the request is unchanged in S3 and can be sent again.",
            details=log_tail(deployment.session, group=endpoint_log_group(endpoint_name)),
        )
    return read_body(body)


def object_if_there(s3: Any, uri: str) -> bytes | None:
    """The bytes of an object; None while it is not there."""
    bucket, key = split_s3_uri(uri)
    try:
        return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            return None
        raise
