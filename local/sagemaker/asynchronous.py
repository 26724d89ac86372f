"""Asynchronous inference: requests wait in the store, results go to S3, notifications to SNS.

Source: docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html (and "async-inference-check-predictions"
for the notifications). A request that a killed cloud was working on is done again after the restart: at least
once, never lost.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import botocore.exceptions

from local.sagemaker.endpoints import Endpoints
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.hosting import ModelServerError, Reply
from local.sagemaker.jobs import JobFailedError, guarded
from local.sagemaker.s3 import encryption, join, split
from local.sagemaker.store import Document, now
from local.service import Call, ServiceError

logger = logging.getLogger(__name__)

KIND = "async-request"
_DEFAULT_TTL_SECONDS = 6 * 3600
_DEFAULT_TIMEOUT_SECONDS = 900
_NOTIFIED_BODY_BYTES = 128 * 1024
"""API_AsyncInferenceNotificationConfig: responses up to 128 kB are included."""


class AsynchronousQueue:
    """Every asynchronous endpoint's requests in their order, and the threads that work on them."""

    def __init__(self, foundation: Foundation, endpoints: Endpoints) -> None:
        self._foundation = foundation
        self._endpoints = endpoints
        self._changed = threading.Condition()
        self._workers: dict[str, list[threading.Thread]] = {}
        self._taken: set[str] = set()
        endpoints.on_delete = self.forget

    def start(self) -> None:
        """Go on with what waits."""
        for name in {document["EndpointName"] for document in self._foundation.store.all(KIND)}:
            self._ensure_workers(name)

    def stop(self) -> None:
        """Wake the workers so that they see the end of the cloud."""
        with self._changed:
            self._changed.notify_all()

    def forget(self, endpoint: str) -> None:
        """Requests of a deleted endpoint are gone."""
        for document in self._foundation.store.all(KIND):
            if document["EndpointName"] == endpoint:
                self._foundation.store.delete(KIND, document["Key"])
        with self._changed:
            self._workers.pop(endpoint, None)
            self._changed.notify_all()

    def submit(self, call: Call, endpoint: Document) -> Mapping[str, Any]:
        """InvokeEndpointAsync: say where the result will be, and do the work later."""
        params = call.params
        config = endpoint["_Snapshot"]["Config"].get("AsyncInferenceConfig")
        if config is None:
            raise ServiceError(
                "ValidationError",
                f"Endpoint {params['EndpointName']} is not an asynchronous endpoint; use InvokeEndpoint.",
            )
        if bool(params.get("InputLocation")) == bool(params.get("Body")):
            raise ServiceError("ValidationError", "Exactly one of InputLocation and Body must be given.")
        if params.get("InputLocation"):
            split(params["InputLocation"])
        output = config["OutputConfig"]
        name = params.get("Filename") or f"{uuid.uuid4()}.out"
        where = join(output["S3OutputPath"], *filter(None, [params.get("S3OutputPathExtension"), name]))
        key = f"{time.time_ns():020d}-{uuid.uuid4()}"
        document: Document = {
            "Key": key,
            "EndpointName": params["EndpointName"],
            "InferenceId": params.get("InferenceId") or str(uuid.uuid4()),
            "Received": now(),
            "OutputLocation": where,
            "Parameters": {
                member: params[member]
                for member in ("ContentType", "Accept", "CustomAttributes", "InputLocation", "Body")
                if params.get(member)
            },
            "TimeToLive": params.get("RequestTTLSeconds", _DEFAULT_TTL_SECONDS),
            "Timeout": params.get("InvocationTimeoutSeconds", _DEFAULT_TIMEOUT_SECONDS),
        }
        answer = {"InferenceId": document["InferenceId"], "OutputLocation": where}
        if failure := output.get("S3FailurePath"):
            stem = name.removesuffix(".out")
            document["FailureLocation"] = answer["FailureLocation"] = join(failure, f"{stem}-error.out")
        self._foundation.store.add(KIND, key, document)
        self._ensure_workers(params["EndpointName"])
        return answer

    def _ensure_workers(self, endpoint: str) -> None:
        document = self._foundation.store.get("endpoint", endpoint)
        if document is None:
            return
        client = document["_Snapshot"]["Config"].get("AsyncInferenceConfig", {}).get("ClientConfig", {})
        wanted = client.get("MaxConcurrentInvocationsPerInstance", 1)
        with self._changed:
            workers = self._workers.setdefault(endpoint, [])
            for _ in range(wanted - len(workers)):
                worker = threading.Thread(
                    target=self._work, args=(endpoint,), name=f"async {endpoint}", daemon=True
                )
                workers.append(worker)
                worker.start()
            self._changed.notify_all()

    def _work(self, endpoint: str) -> None:
        while not self._foundation.closing.is_set():
            document = self._take(endpoint)
            if document is None:
                return
            try:
                self._handle(document)
            except Exception:
                # The endpoint must go on with the next request whatever was wrong with this one.
                logger.exception("asynchronous request %s", document["InferenceId"])
            finally:
                if not self._foundation.closing.is_set():
                    self._foundation.store.delete(KIND, document["Key"])
                with self._changed:
                    self._taken.discard(document["Key"])

    def _take(self, endpoint: str) -> Document | None:
        """The oldest waiting request of an endpoint that is up; None when the worker is to end."""
        with self._changed:
            while not self._foundation.closing.is_set():
                current = threading.current_thread()
                if current not in self._workers.get(endpoint, []):
                    return None
                # While the endpoint starts or updates, requests wait for it, as on AWS.
                server = self._endpoints.server(endpoint)
                ready = server is not None and server.alive()
                for document in self._foundation.store.all(KIND):
                    mine = document["EndpointName"] == endpoint and document["Key"] not in self._taken
                    if mine and (ready or _waited(document) > document["TimeToLive"]):
                        self._taken.add(document["Key"])
                        return document
                self._changed.wait(1.0)
        return None

    def _handle(self, document: Document) -> None:
        endpoint = self._endpoints.find(document["EndpointName"])
        snapshot = endpoint["_Snapshot"]
        role_arn = next(iter(snapshot["Models"].values()))["ExecutionRoleArn"]
        session = RoleSession(self._foundation, role_arn=role_arn, name="SageMaker-AsyncInference")
        config = snapshot["Config"]["AsyncInferenceConfig"]
        exchange = _Exchange(session, document, config, region=self._foundation.cloud.region)
        waited = _waited(document)
        try:
            if waited > document["TimeToLive"]:
                raise JobFailedError(
                    f"ClientError: the request waited {waited:.0f} s, longer than RequestTTLSeconds"
                )
            body = guarded("Reading the input", exchange.read_input)
            reply = self._invoke(document, body)
            if not 200 <= reply.status < 300:
                text = reply.body.decode(errors="replace")
                reason = (
                    f'ClientError: Received error ({reply.status}) from model with message "{text[:512]}"'
                )
                exchange.fail(reason, reply)
                return
            guarded("Writing the output", lambda: exchange.write_output(reply))
        except JobFailedError as error:
            if not self._foundation.closing.is_set():
                exchange.fail(error.reason, None)
            return
        exchange.notify_success(reply)

    def _invoke(self, document: Document, body: bytes) -> Reply:
        server = self._endpoints.server(document["EndpointName"])
        if server is None:
            raise JobFailedError("InternalServerError: the endpoint's container is not running")
        parameters = document["Parameters"]
        headers = {"X-Amzn-SageMaker-Inference-Id": document["InferenceId"]}
        if "CustomAttributes" in parameters:
            headers["X-Amzn-SageMaker-Custom-Attributes"] = parameters["CustomAttributes"]
        try:
            return server.invoke(
                body,
                seconds=float(document["Timeout"]),
                content_type=parameters.get("ContentType"),
                accept=parameters.get("Accept"),
                headers=headers,
            )
        except ModelServerError as error:
            raise JobFailedError(f"ClientError: {error}") from error


class _Exchange:
    """One request's dealings with S3 and SNS, as the model's execution role."""

    def __init__(
        self, session: RoleSession, document: Document, config: Mapping[str, Any], *, region: str
    ) -> None:
        self._session = session
        self._document = document
        self._output = config["OutputConfig"]
        self._notification = self._output.get("NotificationConfig", {})
        self._region = region

    def read_input(self) -> bytes:
        """The request's payload."""
        parameters = self._document["Parameters"]
        if "Body" in parameters:
            body: bytes = parameters["Body"]
            return body
        bucket, key = split(parameters["InputLocation"])
        payload: bytes = self._session.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return payload

    def write_output(self, reply: Reply) -> None:
        """The answer to OutputLocation."""
        self._put(self._document["OutputLocation"], reply.body, reply.content_type)

    def fail(self, reason: str, reply: Reply | None) -> None:
        """The model's error (or the reason) to FailureLocation, and the error notification."""
        logger.warning("asynchronous request %s failed: %s", self._document["InferenceId"], reason)
        members: dict[str, Any] = {}
        if "FailureLocation" in self._document:
            body, content_type = (
                (reply.body, reply.content_type) if reply else (reason.encode(), "text/plain")
            )
            try:
                self._put(self._document["FailureLocation"], body, content_type)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                logger.warning("the failure of %s was not written: %s", self._document["InferenceId"], error)
                reason = f"{reason} (and the failure object could not be written: {error})"
            else:
                members["outputLocation"] = self._document["FailureLocation"]
        self._notify("ErrorTopic", "ERROR_NOTIFICATION_TOPIC", "Failed", members, reply, failureReason=reason)

    def notify_success(self, reply: Reply) -> None:
        """The success notification."""
        members = {"contentType": reply.content_type, "outputLocation": self._document["OutputLocation"]}
        self._notify("SuccessTopic", "SUCCESS_NOTIFICATION_TOPIC", "Completed", members, reply)

    def _put(self, uri: str, body: bytes, content_type: str) -> None:
        bucket, key = split(uri)
        self._session.client("s3").put_object(
            Bucket=bucket,
            Key=key,
            Body=body,
            ContentType=content_type,
            **encryption(self._output.get("KmsKeyId")),
        )

    def _notify(
        self,
        topic: str,
        included: str,
        status: str,
        response: Mapping[str, Any],
        reply: Reply | None,
        **more: Any,
    ) -> None:
        arn = self._notification.get(topic)
        if not arn:
            return
        parameters = self._document["Parameters"]
        request = {
            "endpointName": self._document["EndpointName"],
            **({"contentType": parameters["ContentType"]} if "ContentType" in parameters else {}),
            **({"accept": parameters["Accept"]} if "Accept" in parameters else {}),
            **({"inputLocation": parameters["InputLocation"]} if "InputLocation" in parameters else {}),
        }
        message: dict[str, Any] = {
            "awsRegion": self._region,
            "eventTime": _moment(now()),
            "receivedTime": _moment(self._document["Received"]),
            "invocationStatus": status,
            **more,
            "requestParameters": request,
            "responseParameters": dict(response),
            "inferenceId": self._document["InferenceId"],
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        wanted = included in self._notification.get("IncludeInferenceResponseIn", [])
        if wanted and reply is not None and len(reply.body) <= _NOTIFIED_BODY_BYTES:
            content = base64.b64encode(reply.body).decode()
            message["responseBody"] = {
                "content": content,
                "encoding": "BASE64",
                "contentType": reply.content_type,
            }
        try:
            self._session.client("sns").publish(TopicArn=arn, Message=json.dumps(message))
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            logger.exception("no notification of %s to %s", self._document["InferenceId"], arn)


def _waited(document: Document) -> float:
    """Seconds since the request came."""
    return float((datetime.now(UTC) - document["Received"]).total_seconds())


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
