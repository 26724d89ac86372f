"""One batch transform job at work."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.hosting import ModelServer, ModelServerError
from local.sagemaker.jobs import RESTARTED, JobFailedError, guarded
from local.sagemaker.s3 import encryption, join, objects, relative_name, split
from local.sagemaker.store import Document

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/TransformJobs"
_DEFAULT_TIMEOUT_SECONDS = 600
_DEFAULT_RETRIES = 3
"""API_ModelClientConfig."""
_DEFAULT_PAYLOAD_MB = 6
_MEGABYTE = 1024 * 1024
_PARAMETERS_SECONDS = 10.0
_TOO_MANY = 429
_POLL_SECONDS = 0.1
_RETRY_PAUSE_SECONDS = 0.5
"""Before the first retry; twice as long before each further one."""
_STRATEGIES = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}
"""How a container spells a BatchStrategy, in its environment and in /execution-parameters."""


class TransformRun:
    """The container of a transform job, and the objects that go through it."""

    def __init__(
        self, foundation: Foundation, *, document: Document, folder: Path, stop: threading.Event
    ) -> None:
        self._foundation = foundation
        self._job = document
        self._folder = folder
        self._stop = stop
        client = document.get("ModelClientConfig", {})
        self._seconds = float(client.get("InvocationsTimeoutInSeconds", _DEFAULT_TIMEOUT_SECONDS))
        self._retries = int(client.get("InvocationsMaxRetries", _DEFAULT_RETRIES))
        self._settings = _Settings.of(document)

    def run(self) -> bool:
        """Do the job; False when it was stopped.

        An object that fails fails the job, which goes on with the others: their answers are of use.

        Raises:
            JobFailedError: with the FailureReason.
        """
        model = self._job["_Model"]
        name = self._job["TransformJobName"]
        self._session = guarded(
            "Assuming the role",
            lambda: RoleSession(
                self._foundation, role_arn=model["ExecutionRoleArn"], name=f"SageMaker-{name}"
            ),
        )
        self._server = ModelServer(
            self._foundation,
            name=f"transform job {name}",
            role_arn=model["ExecutionRoleArn"],
            container=model["_Container"],
            folder=self._folder,
            log_group=LOG_GROUP,
            log_stream=f"{name}/i-local",
            environment={
                "SAGEMAKER_BATCH": "true",
                **self._settings.environment(),
                **self._job.get("Environment", {}),
            },
        )
        uri = self._job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        found = guarded("Listing the input", lambda: list(objects(self._session.client("s3"), uri)))
        if not found:
            raise JobFailedError(f"ClientError: No S3 objects found under {uri}")
        self._server.start()
        try:
            self._settings = self._settings.with_wishes(self._wishes())
            failures = self._transform_all([entry["Key"] for entry in found])
        finally:
            self._server.stop(drain_seconds=0)
        if self._foundation.closing.is_set():
            raise JobFailedError(RESTARTED)
        if self._stop.is_set():
            return False
        if failures:
            more = f" (and {len(failures) - 1} more of {len(found)} objects)" if len(failures) > 1 else ""
            raise JobFailedError(f"{failures[0]}{more}")
        return True

    def closing_members(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def _wishes(self) -> Mapping[str, Any]:
        """What the container answers to GET /execution-parameters; it need not know it."""
        try:
            reply = self._server.request("GET", "/execution-parameters", seconds=_PARAMETERS_SECONDS)
            document = json.loads(reply.body) if reply.status == 200 else {}
        except (ModelServerError, ValueError) as error:
            logger.warning("%s has no /execution-parameters: %s", self._server.name, error)
            return {}
        return document if isinstance(document, dict) else {}

    def _transform_all(self, keys: list[str]) -> list[str]:
        """The reasons of those that failed, in the order of the keys."""
        failures: dict[str, str] = {}

        def transform(key: str) -> None:
            try:
                self._transform(key)
            except JobFailedError as error:
                failures[key] = error.reason

        with ThreadPoolExecutor(max_workers=self._settings.concurrent) as pool:
            pending = {pool.submit(transform, key) for key in keys}
            while pending:
                done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if pending and self._ending():
                    # Requests that it is answering end without an answer.
                    self._server.stop(drain_seconds=0)
                    break
        return [failures[key] for key in keys if key in failures]

    def _ending(self) -> bool:
        return self._stop.is_set() or self._foundation.closing.is_set()

    def _transform(self, key: str) -> None:
        if self._ending():
            return
        given = self._job["TransformInput"]
        uri = given["DataSource"]["S3DataSource"]["S3Uri"]
        bucket, prefix = split(uri)
        client = self._session.client("s3")
        body: bytes = guarded(
            "Reading the input", lambda: client.get_object(Bucket=bucket, Key=key)["Body"].read()
        )
        answers = [self._invoke(part, key) for part in self._parts(body)]
        output = self._job["TransformOutput"]
        line = b"\n" if output.get("AssembleWith", "None") == "Line" else b""
        result = b"".join(
            answer + (line if line and not answer.endswith(line) else b"") for answer in answers
        )
        target_bucket, target = split(join(output["S3OutputPath"], f"{relative_name(prefix, key)}.out"))
        extra: dict[str, Any] = encryption(output.get("KmsKeyId"))
        guarded(
            "Writing the output",
            lambda: client.put_object(Bucket=target_bucket, Key=target, Body=result, **extra),
        )

    def _parts(self, body: bytes) -> Iterator[bytes]:
        """What goes into one request: the object, its lines, or as many lines as fit."""
        if self._job["TransformInput"].get("SplitType", "None") == "None":
            yield body
            return
        batch = b""
        several, limit = self._settings.strategy == "MultiRecord", self._settings.payload
        for line in body.splitlines(keepends=True):
            if batch and (not several or (limit and len(batch) + len(line) > limit)):
                yield batch
                batch = b""
            batch += line
        if batch:
            yield batch

    def _invoke(self, body: bytes, key: str) -> bytes:
        limit = self._settings.payload
        if limit and len(body) > limit:
            raise JobFailedError(
                f"ClientError: {key}: a request of {len(body)} bytes is more than MaxPayloadInMB allows"
            )
        reason = ""
        for attempt in range(self._retries + 1):
            if attempt and self._stop.wait(_RETRY_PAUSE_SECONDS * 2 ** (attempt - 1)):
                break
            try:
                reply = self._server.invoke(
                    body,
                    seconds=self._seconds,
                    content_type=self._job["TransformInput"].get("ContentType"),
                    accept=self._job["TransformOutput"].get("Accept"),
                )
            except ModelServerError as error:
                reason = f"AlgorithmError: {key}: {error}\n{self._server.last_output()}"
                if self._ending() or not self._server.alive():
                    break
                continue
            if 200 <= reply.status < 300:
                return reply.body
            text = f"{key}: HTTP {reply.status}: {reply.body.decode(errors='replace')}"
            if 400 <= reply.status < 500 and reply.status != _TOO_MANY:
                # What is wrong with the request is wrong the next time too.
                raise JobFailedError(f"ClientError: {text}")
            reason = f"AlgorithmError: {text}"
        raise JobFailedError(reason)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """How requests are made: by the job, else by the container's wish, else by SageMaker's default."""

    concurrent: int
    payload: int
    """Bytes of a request; 0 is no limit."""
    strategy: str
    given: frozenset[str]
    """What the job itself says."""

    @classmethod
    def of(cls, job: Document) -> _Settings:
        return cls(
            concurrent=job.get("MaxConcurrentTransforms", 1) or 1,
            payload=job.get("MaxPayloadInMB", _DEFAULT_PAYLOAD_MB) * _MEGABYTE,
            strategy=job.get("BatchStrategy", "MultiRecord"),
            given=frozenset(
                member
                for member in ("MaxConcurrentTransforms", "MaxPayloadInMB", "BatchStrategy")
                # 0 leaves the number to the container (API_CreateTransformJob).
                if member in job and (member != "MaxConcurrentTransforms" or job[member])
            ),
        )

    def with_wishes(self, wishes: Mapping[str, Any]) -> _Settings:
        """With what the container wishes, where the job says nothing; a wish that cannot be is passed
        over."""
        concurrent, payload = wishes.get("MaxConcurrentTransforms"), wishes.get("MaxPayloadInMB")
        strategy = _STRATEGIES.get(str(wishes.get("BatchStrategy")))
        changes: dict[str, Any] = {}
        if "MaxConcurrentTransforms" not in self.given and isinstance(concurrent, int) and concurrent > 0:
            changes["concurrent"] = concurrent
        if "MaxPayloadInMB" not in self.given and isinstance(payload, int) and payload >= 0:
            changes["payload"] = payload * _MEGABYTE
        if "BatchStrategy" not in self.given and strategy is not None:
            changes["strategy"] = strategy
        return replace(self, **changes)

    def environment(self) -> dict[str, str]:
        """What a container is told."""
        strategies = {ours: theirs for theirs, ours in _STRATEGIES.items()}
        return {
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(self.payload // _MEGABYTE),
            "SAGEMAKER_BATCH_STRATEGY": strategies[self.strategy],
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(self.concurrent),
        }
