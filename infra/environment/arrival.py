"""Section `arrival`: how studies come in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.environment.names import Section

RECEIVER_PORT = 11112
"""Where the container listens: DICOM's registered port above 1023 (PS3.8 section 9.1.1)."""

FARGATE_MEMORY_MIB: dict[int, range] = {
    256: range(512, 2048 + 1, 512),
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}
"""Memory that goes with each CPU size of a Fargate task
(https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html), without 1536 MiB of
256 units, which exists nowhere else.
"""

SecretArn = Annotated[
    str,
    Field(pattern=r"^arn:aws:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+-[A-Za-z0-9]{6}$"),
]
"""A secret of Secrets Manager, with the six characters that it adds to the name."""

AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
"""Application entity title: 16 characters at most, no backslash, no space at either end (PS3.5 section
6.2).
"""


class Caller(Section):
    """A device that may send: what it calls itself, and from where it calls. Both have to hold."""

    ae_title: AeTitle
    cidr: Annotated[str, Field(pattern=r"^[0-9.]+/[0-9]+$")]
    """Its addresses, as the network sees them behind the hospital's line."""


class Receiver(Section):
    """The DICOM receiver (C-STORE and C-ECHO) behind a load balancer inside the network."""

    ae_title: AeTitle
    """What devices call it."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Where devices reach it. The container listens on 11112 whatever this is."""
    allowed: Annotated[tuple[Caller, ...], Field(min_length=1)]
    quiet_seconds: Annotated[int, Field(ge=1, le=3600)]
    """So long after the last instance of a study it counts as complete, and is imported."""
    cpu: int
    """CPU units of a task, 1024 to a core."""
    memory_mib: int
    """Memory of a task: every instance that arrives is in memory until it is in S3."""
    tasks: Annotated[int, Field(ge=1, le=10)]
    """Copies that run. With two or more in different zones the loss of one is not noticed."""
    tls_secret_arn: SecretArn | None = None
    """Secret with the certificate (docs/receive.md). With it the receiver speaks TLS and nothing else."""


class Arrival(Section):
    """What happens to studies before they are imported, and whether devices can send them."""

    deidentify: bool
    """De-identify by default: `monai-aws ingest` unless told otherwise, the receiver always."""
    receiver: Receiver | None = None
