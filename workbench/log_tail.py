"""Reads what a container printed, from CloudWatch Logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from workbench.session import Session

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
PROCESSING_JOBS = "/aws/sagemaker/ProcessingJobs"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"


def endpoint_log_group(endpoint_name: str) -> str:
    """The log group of an endpoint's containers, as SageMaker names it."""
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"


def component_log_group(component_name: str) -> str:
    """The log group of an inference component's containers, as SageMaker names it."""
    return f"/aws/sagemaker/InferenceComponents/{component_name}"


@dataclass
class LogFollower:
    """Lines of one log group's streams with a prefix, each once, in the order of their times.

    Used by polling: every `read()` returns what arrived since the last one. A group or stream that does not
    exist yet is a container that has not printed yet, hence no line.
    """

    session: Session
    group: str
    stream_prefix: str = ""
    _tokens: dict[str, str] = field(default_factory=dict)
    """Where to go on, by stream."""

    def read(self, *, since: datetime | None = None) -> list[str]:
        """The lines that were not read before, those before `since` left out."""
        try:
            events = [event for stream in self._streams() for event in self._events(stream)]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return []
            raise
        events.sort(key=lambda event: int(event["timestamp"]))
        begin = 0 if since is None else int(since.timestamp() * 1000)
        return [str(event["message"]).rstrip() for event in events if int(event["timestamp"]) >= begin]

    def _streams(self) -> list[str]:
        prefix = {"logStreamNamePrefix": self.stream_prefix} if self.stream_prefix else {}
        paginator = self.session.client("logs").get_paginator("describe_log_streams")
        pages = paginator.paginate(logGroupName=self.group, **prefix)
        return [str(stream["logStreamName"]) for page in pages for stream in page["logStreams"]]

    def _events(self, stream: str) -> Iterator[Mapping[str, Any]]:
        logs = self.session.client("logs")
        while True:
            token = self._tokens.get(stream)
            more = {"nextToken": token} if token else {}
            page = logs.get_log_events(
                logGroupName=self.group, logStreamName=stream, startFromHead=True, **more
            )
            yield from page["events"]
            self._tokens[stream] = str(page["nextForwardToken"])
            # The end of a stream is where the same token comes back; an empty page alone does not mean it.
            if self._tokens[stream] == token:
                return


def log_tail(
    session: Session, *, group: str, stream_prefix: str = "", since: datetime | None = None, lines: int = 40
) -> tuple[str, ...]:
    """The last `lines` lines of a container, for the message of its failure.

    `since` leaves out what earlier containers of the same endpoint printed.
    """
    return tuple(LogFollower(session, group, stream_prefix).read(since=since)[-lines:])
