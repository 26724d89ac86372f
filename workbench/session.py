"""boto3 clients for one environment.

This is the only place of the workbench where an endpoint or explicit credentials appear: an environment
without `[local]` uses boto3's ordinary configuration, and everything after that is the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

import healthimaging
from workbench.environment import Environment

RETRIES = Config(retries={"mode": "adaptive", "max_attempts": 8})
"""Adaptive: the control planes of HealthImaging (1 import start/s) and SageMaker throttle by token bucket."""


@dataclass(frozen=True)
class Session:
    """boto3 clients of one environment, made once each."""

    environment: Environment

    @cached_property
    def boto(self) -> boto3.Session:
        """The boto3 session: ordinary configuration, or the local environment's key pair."""
        local = self.environment.local
        if local is None:
            return boto3.Session(region_name=self.environment.region)
        return boto3.Session(
            region_name=self.environment.region,
            aws_access_key_id=local.access_key_id,
            aws_secret_access_key=local.secret_access_key,
        )

    @cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def client(self, service: str) -> Any:
        """The client of `service`, a botocore service name; `medical-imaging` comes from the connector."""
        if service not in self._clients:
            if service == "medical-imaging":
                self._clients[service] = healthimaging.connect(self.boto, **self._endpoint)
            else:
                self._clients[service] = self._create(service, RETRIES)
        return self._clients[service]

    def waiting_client(self, service: str, *, answer_seconds: float) -> Any:
        """A client that waits `answer_seconds` for an answer and sends nothing a second time by itself: for
        calls that cost minutes of a machine.
        """
        once = Config(read_timeout=answer_seconds, retries={"mode": "standard", "total_max_attempts": 1})
        return self._create(service, once)

    @property
    def _endpoint(self) -> dict[str, str]:
        local = self.environment.local
        return {} if local is None else {"endpoint_url": local.endpoint_url}

    def _create(self, service: str, config: Config) -> Any:
        # The service name is a variable, which boto3's stubs cannot type.
        create: Any = self.boto.client
        return create(service, config=config, **self._endpoint)

    def read_json(self, uri: str) -> Any:
        """The JSON document at an S3 URI."""
        parts = urlsplit(uri, allow_fragments=False)
        body = self.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.removeprefix("/"))["Body"]
        return json.loads(body.read())
