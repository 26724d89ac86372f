"""A model container that serves: download the model, start `serve`, wait for /ping, invoke, stop.

Source: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import urllib3

from local.containers.engine import Container, ContainerSpec
from local.containers.errors import ContainerError
from local.containers.image import Image
from local.containers.process import tail
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.jobs import REASON_CHARACTERS, JobFailedError, clean, guarded
from local.sagemaker.logs import LogShipper
from local.sagemaker.s3 import download_object, split, unpack

logger = logging.getLogger(__name__)

DEFAULT_STARTUP_SECONDS = 240.0
"""Healthy within 4 minutes, unless ContainerStartupHealthCheckTimeoutInSeconds says otherwise."""
_PING_SECONDS = 2.0
_PING_PAUSE_SECONDS = 0.25
_STOP_GRACE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the container answered."""

    status: int
    body: bytes
    content_type: str
    custom_attributes: str | None = None


class ModelServerError(Exception):
    """The container gave no answer at all."""


class ModelTimeoutError(ModelServerError):
    """The container took longer to answer than it may."""


class ModelServer:
    """One container of a production variant, of an inference component or of a transform job."""

    def __init__(
        self,
        foundation: Foundation,
        *,
        name: str,
        variant: str = "",
        role_arn: str,
        container: Mapping[str, Any],
        folder: Path,
        log_group: str,
        log_stream: str,
        startup_seconds: float = DEFAULT_STARTUP_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.variant = variant
        """The production variant that it serves; "" of a transform job."""
        self.image_name: str = container["Image"]
        self.image_digest = ""
        self.expiration: datetime | None = None
        """When the credentials that the container was started with end."""
        self._foundation = foundation
        self._role_arn = role_arn
        self._container = container
        self._folder = folder
        self.log_group = log_group
        self._log_stream = log_stream
        self._startup_seconds = startup_seconds
        self._environment = dict(environment or {})
        self._running: Container | None = None
        self._shipper: LogShipper | None = None
        self._port = 0
        self._http = urllib3.PoolManager(maxsize=16, retries=False)
        self._idle = threading.Condition()
        self._in_flight = 0
        self._stopping = threading.Event()

    @property
    def base(self) -> Path:
        """The folder that the container sees as /opt/ml."""
        return self._folder / "ml"

    @property
    def output(self) -> Path:
        """Where stdout and stderr go."""
        return self._folder / "output.log"

    def start(self) -> None:
        """Everything until /ping says 200.

        Raises:
            JobFailedError: with the reason, what to do, and the end of the container's output.
        """
        session: RoleSession = guarded(
            "Assuming the execution role",
            lambda: RoleSession(self._foundation, role_arn=self._role_arn, name=f"SageMaker-{self.name}"),
        )
        self.expiration = session.expiration
        image: Image = guarded("Pulling the image", lambda: session.image(self.image_name))
        self.check(image)
        self.image_digest = image.digest
        shutil.rmtree(self._folder, ignore_errors=True)
        (self.base / "model").mkdir(parents=True)
        guarded("Downloading the model data", lambda: self.download(session))
        self._port = _free_port()
        self._shipper = LogShipper(
            client=session.client("logs"), group=self.log_group, stream=self._log_stream, path=self.output
        )
        spec = ContainerSpec(
            name=self.name,
            image=image,
            base=self.base,
            output=self.output,
            arguments=("serve",),
            environment={
                **self._environment,
                **self._container.get("Environment", {}),
                **session.environment(),
            },
            port=self._port,
        )
        try:
            self._running = self._foundation.engine.start(spec)
            self._wait_for_ping(self._running)
        except ContainerError as error:
            self.stop(drain_seconds=0)
            raise JobFailedError(f"The container of {self.name} cannot be started: {error}") from error
        except JobFailedError:
            self.stop(drain_seconds=0)
            raise

    def check(self, image: Image) -> None:
        """What the image must say of itself, before it is started; of most it must not say anything."""

    def download(self, session: RoleSession) -> None:
        """What the container finds of the model when it starts."""
        if "ModelDataUrl" in self._container:
            fetch_archive(session, self._container["ModelDataUrl"], self.base / "model")

    def abandon(self) -> None:
        """Nobody waits for it any more: `start`, in whose thread it is, gives up and stops it."""
        self._stopping.set()

    def alive(self) -> bool:
        """Whether the container still runs."""
        return self._running is not None and self._running.poll() is None

    @property
    def busy(self) -> int:
        """How many invocations it is answering."""
        return self._in_flight

    def request(self, method: str, path: str, *, seconds: float, document: Any = None) -> Reply:
        """A request about the server itself, with a JSON document or none: /execution-parameters, /models.

        Raises:
            ModelServerError: no answer.
        """
        if document is None:
            return self._send(method, path, b"", {}, seconds)
        headers = {"Content-Type": "application/json"}
        return self._send(method, path, json.dumps(document).encode(), headers, seconds)

    def invoke(
        self,
        body: bytes,
        *,
        seconds: float,
        content_type: str | None = None,
        accept: str | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/invocations",
    ) -> Reply:
        """POST /invocations, or the path of one of several models.

        Raises:
            ModelServerError: no answer (the container ended, or took longer than `seconds`).
        """
        sent = dict(headers or {})
        if content_type:
            sent["Content-Type"] = content_type
        if accept:
            sent["Accept"] = accept
        with self._idle:
            self._in_flight += 1
        try:
            return self._send("POST", path, body, sent, seconds)
        finally:
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()

    def stop(self, *, drain_seconds: float) -> None:
        """Let running invocations end, then SIGTERM, then SIGKILL 30 s later."""
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, timeout=drain_seconds)
        self._stopping.set()
        if self._running is not None:
            self._running.stop(grace=5.0 if self._foundation.closing.is_set() else _STOP_GRACE_SECONDS)
        if self._shipper is not None:
            self._shipper.close()
        self._http.clear()
        clean(self._folder)

    def last_output(self) -> str:
        """The end of the container's output."""
        return tail(self.output)

    def _wait_for_ping(self, container: Container) -> None:
        deadline = time.monotonic() + self._startup_seconds
        last = "no answer"
        while True:
            code = container.poll()
            if code is not None:
                raise self._unhealthy(f"ended with exit code {code} before it answered /ping with 200")
            if self._foundation.closing.is_set() or self._stopping.is_set():
                raise JobFailedError("The container was stopped while it started.")
            if time.monotonic() >= deadline:
                raise self._unhealthy(
                    f"did not pass the ping health check within {self._startup_seconds:.0f} s (last: {last})"
                )
            try:
                answer = self._http.request(
                    "GET", f"http://127.0.0.1:{self._port}/ping", timeout=_PING_SECONDS, retries=False
                )
            except urllib3.exceptions.HTTPError as error:
                last = type(error).__name__
            else:
                if answer.status == 200:
                    return
                last = f"HTTP {answer.status}"
            time.sleep(_PING_PAUSE_SECONDS)

    def _unhealthy(self, what: str) -> JobFailedError:
        head = (
            f"The primary container of {self.name} {what}. See the log group {self.log_group}, stream "
            f"{self._log_stream}; the container's last output:\n"
        )
        return JobFailedError(
            head + tail(self.output, lines=15, characters=max(0, REASON_CHARACTERS - len(head)))
        )

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
        try:
            # A connection of its own: on one that is kept, a request can meet the server's closing of it, and
            # nobody could say whether the model has seen the request.
            with urllib3.PoolManager(num_pools=1, retries=False) as http:
                answer = http.request(
                    method,
                    f"http://127.0.0.1:{self._port}{path}",
                    body=body,
                    headers={**headers, "Connection": "close"},
                    timeout=urllib3.Timeout(connect=2.0, read=seconds),
                    retries=False,
                    redirect=False,
                )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ModelTimeoutError(f"the model did not answer within {seconds:.0f} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise ModelServerError(
                f"the model's container gave no answer ({type(error).__name__})"
            ) from error
        return Reply(
            status=answer.status,
            body=answer.data,
            content_type=answer.headers.get("Content-Type", "application/octet-stream"),
            custom_attributes=answer.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
        )


def fetch_archive(session: RoleSession, uri: str, folder: Path) -> None:
    """Unpack a model's archive in S3 into a folder, as the role."""
    bucket, key = split(uri)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder.with_suffix(".tar.gz")
    download_object(session.client("s3"), bucket, key, archive)
    unpack(archive, folder)
    archive.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
