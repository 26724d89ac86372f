"""Dispatch function: sends arriving image sets to the endpoints that the environment's rules name.

Reads image set events from SQS (EventBridge puts them there) and looks at the image set's LATEST version,
whatever version the event speaks of. So events may come twice, late or in any order: they lead to one request
for each endpoint and state of the images (`runs`). Non-primary image sets are passed over: they conflict with
their study, and a person has to say which one is right.

Environment:
    RESULT_BUCKET, REQUEST_PREFIX: Where requests are put.
    DISPATCH_ROUTES: The rules, and which endpoints and models they lead to (`rules.read_routes`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import boto3
from botocore.exceptions import ClientError

from healthimaging.client import connect
from healthimaging.errors import HealthImagingError
from healthimaging.metadata import ImageSetMetadata
from healthimaging.reference import ImageSetRef
from runtime.functions.dispatch.errors import DispatchError, MalformedEventError
from runtime.functions.dispatch.images import candidate_series, images_digest
from runtime.functions.dispatch.rules import Route, destinations, read_routes
from runtime.functions.dispatch.runs import Requests, Run

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

_IDENTIFIER = re.compile(r"[0-9a-z]{32}")
"""Of a data store or an image set (HealthImaging API reference). They become parts of object keys."""


def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Lambda handler for batches of SQS messages.

    Args:
        event: `Records` of SQS, each body one EventBridge event of source `aws.medical-imaging`.
        context: Lambda's context; not used.

    Returns:
        `batchItemFailures`: the messages to deliver again
        (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
    """
    dispatcher = Dispatcher(
        routes=read_routes(os.environ["DISPATCH_ROUTES"]),
        medical_imaging=connect(),
        requests=Requests(
            s3=boto3.client("s3"),
            sagemaker_runtime=boto3.client("sagemaker-runtime"),
            bucket=os.environ["RESULT_BUCKET"],
            prefix=os.environ["REQUEST_PREFIX"],
        ),
    )
    failures = []
    done: set[tuple[str, str]] = set()
    for record in event["Records"]:
        subject = f"message {record['messageId']}"
        try:
            image_set = image_set_of(record["body"])
            subject = f"image set {image_set[1]}"
            # A batch often holds several events of one image set; the first one has already read its latest
            # version.
            if image_set not in done:
                dispatcher.dispatch(*image_set)
                done.add(image_set)
        # One bad message must not keep the rest of its batch from being sent, whatever is wrong with it.
        except Exception as error:  # noqa: BLE001 - reported as this message's failure
            logger.error("dispatching failed: %s, %s", subject, _describe(error))
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def image_set_of(body: str) -> tuple[str, str]:
    """(datastore id, image set id) that an EventBridge event speaks of.

    Raises:
        MalformedEventError: It speaks of none.
    """
    try:
        detail = json.loads(body)["detail"]
        # The service's documentation spells it `imagesetId`, its samples `imageSetId`.
        found = (detail["datastoreId"], detail.get("imagesetId") or detail["imageSetId"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"The message is not an image set event: {type(error).__name__}"
        raise MalformedEventError(msg) from error
    if not all(isinstance(one, str) and _IDENTIFIER.fullmatch(one) for one in found):
        msg = "The message is not an image set event: its identifiers are not of HealthImaging's form"
        raise MalformedEventError(msg)
    return found


class Dispatcher:
    """Decides where image sets go, and sends them there."""

    def __init__(self, *, routes: Sequence[Route], medical_imaging: Any, requests: Requests) -> None:
        self._routes = routes
        self._medical_imaging = medical_imaging
        self._requests = requests
        for route in routes:
            if not route.is_open:
                logger.info("rule %s: endpoint %s is not deployed", route.rule.name, route.endpoint)

    def dispatch(self, datastore_id: str, image_set_id: str) -> None:
        """Send the image set's latest version wherever it belongs and has not been sent."""
        if not any(route.is_open for route in self._routes):
            logger.info("not dispatched: image set %s, no endpoint is deployed", image_set_id)
            return
        image_set = self._latest_primary(datastore_id, image_set_id)
        metadata = None if image_set is None else self._metadata(image_set)
        if image_set is None or metadata is None:
            logger.info("not dispatched: image set %s is gone, or not primary", image_set_id)
            return
        found = destinations(candidate_series(metadata), self._routes)
        if not found:
            logger.info("not dispatched: image set %s, no rule matches", image_set_id)
            return
        images = images_digest(metadata)
        for route in found:
            run = Run(image_set=image_set, images=images, endpoint=route.endpoint, model=route.model)
            sent = self._requests.send(run)
            logger.info(
                "%s: image set %s, version %s, rule %s, endpoint %s, run %s",
                "dispatched" if sent else "dispatched before",
                image_set_id,
                image_set.version_id,
                route.rule.name,
                route.endpoint,
                run.id,
            )

    def _latest_primary(self, datastore_id: str, image_set_id: str) -> ImageSetRef | None:
        """The latest version; None when the image set is gone or in conflict with its study."""
        try:
            properties = self._medical_imaging.get_image_set(
                datastoreId=datastore_id, imageSetId=image_set_id
            )
        except ClientError as error:
            if _code(error) == "ResourceNotFoundException":
                return None
            raise
        gone = (
            properties["imageSetState"] == "DELETED" or properties.get("imageSetWorkflowStatus") == "DELETED"
        )
        if gone or not properties.get("isPrimary"):
            return None
        return ImageSetRef(
            datastore_id=datastore_id, image_set_id=image_set_id, version_id=str(properties["versionId"])
        )

    def _metadata(self, image_set: ImageSetRef) -> ImageSetMetadata | None:
        """Its metadata; None when it went away since it was looked up."""
        try:
            answer = self._medical_imaging.get_image_set_metadata(
                datastoreId=image_set.datastore_id,
                imageSetId=image_set.image_set_id,
                versionId=image_set.version_id,
            )
        except ClientError as error:
            if _code(error) == "ResourceNotFoundException":
                return None
            raise
        return ImageSetMetadata.from_bytes(answer["imageSetMetadataBlob"].read())


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def _describe(error: Exception) -> str:
    """The error without what it may quote, which could be a value of a header. Errors of this function and of
    the connector name identifiers only.
    """
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {_code(error)}"
    if isinstance(error, (DispatchError, HealthImagingError)):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__
