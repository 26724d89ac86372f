"""One batch transform job at work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.hosting import ModelServer, ModelServerError
from local.sagemaker.jobs import RESTARTED, JobFailedError, guarded
from local.sagemaker.s3 import encryption, join, objects, relative_name, split
from local.sagemaker.store import Document

LOG_GROUP = "/aws/sagemaker/TransformJobs"
_DEFAULT_TIMEOUT_SECONDS = 600
_DEFAULT_PAYLOAD_MB = 6
_MEGABYTE = 1024 * 1024


class TransformRun:
    """The container of a transform job, and the objects that go through it."""

    def __init__(
        self, foundation: Foundation, *, document: Document, folder: Path, stop: threading.Event
    ) -> None:
        self._foundation = foundation
        self._job = document
        self._folder = folder
        self._stop = stop
        self._limit = document.get("MaxPayloadInMB", _DEFAULT_PAYLOAD_MB) * _MEGABYTE
        client = document.get("ModelClientConfig", {})
        self._seconds = float(client.get("InvocationsTimeoutInSeconds", _DEFAULT_TIMEOUT_SECONDS))
        self._retries = int(client.get("InvocationsMaxRetries", 0))

    def run(self) -> bool:
        """Do the job; False when it was stopped.

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
        strategy = self._job.get("BatchStrategy", "MultiRecord")
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
                "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(self._limit // _MEGABYTE),
                "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD" if strategy == "MultiRecord" else "SINGLE_RECORD",
                "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(self._job.get("MaxConcurrentTransforms", 1)),
                **self._job.get("Environment", {}),
            },
        )
        uri = self._job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        found = guarded("Listing the input", lambda: list(objects(self._session.client("s3"), uri)))
        if not found:
            raise JobFailedError(f"ClientError: No S3 objects found under {uri}")
        self._server.start()
        try:
            with ThreadPoolExecutor(max_workers=max(1, self._job.get("MaxConcurrentTransforms", 1))) as pool:
                for _ in pool.map(self._transform, [entry["Key"] for entry in found]):
                    continue
        finally:
            self._server.stop(drain_seconds=0)
        if self._foundation.closing.is_set():
            raise JobFailedError(RESTARTED)
        return not self._stop.is_set()

    def _transform(self, key: str) -> None:
        if self._stop.is_set() or self._foundation.closing.is_set():
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
        several = self._job.get("BatchStrategy", "MultiRecord") == "MultiRecord"
        for line in body.splitlines(keepends=True):
            if batch and (not several or len(batch) + len(line) > self._limit):
                yield batch
                batch = b""
            batch += line
        if batch:
            yield batch

    def _invoke(self, body: bytes, key: str) -> bytes:
        if len(body) > self._limit:
            raise JobFailedError(
                f"ClientError: {key}: a request of {len(body)} bytes is more than MaxPayloadInMB allows"
            )
        reason = ""
        for _ in range(self._retries + 1):
            try:
                reply = self._server.invoke(
                    body,
                    seconds=self._seconds,
                    content_type=self._job["TransformInput"].get("ContentType"),
                    accept=self._job["TransformOutput"].get("Accept"),
                )
            except ModelServerError as error:
                reason = f"{error}\n{self._server.last_output()}"
                continue
            if 200 <= reply.status < 300:
                return reply.body
            reason = f"HTTP {reply.status}: {reply.body.decode(errors='replace')}"
        raise JobFailedError(f"AlgorithmError: {key}: {reason}")
