"""The boto3 client that the connector works with. Needs boto3 only."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from healthimaging.frames.connections import CONNECTIONS
from healthimaging.frames.retries import ATTEMPTS
from healthimaging.frames.transport import send_directly

_CONFIG = Config(
    retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
    max_pool_connections=CONNECTIONS,
    connect_timeout=5,
    read_timeout=30,
    tcp_keepalive=True,
)


def connect(session: boto3.Session | None = None, **overrides: Any) -> Any:
    """A `medical-imaging` client: adaptive retries on throttling, a pool for concurrent frames, any endpoint.

    Frames of an image set that is opened with it are fetched over connections of their own
    (`healthimaging.frames.transport`), which event handlers of the client do not see.

    botocore prefixes `runtime-` to the host of the data calls, also of a custom endpoint, where no such
    host exists (the DNS name of a VPC endpoint, an emulator). The prefix is therefore left out unless the
    host is the service's own regional name.

    Args:
        session: The session to take credentials and region from; the default session when None.
        **overrides: Passed to `session.client`, for example `region_name`, `endpoint_url`, or a `config`
            that is merged over ours.
    """
    session = session or boto3.Session()
    extra = overrides.pop("config", None)
    config = _CONFIG.merge(extra) if extra is not None else _CONFIG
    client: Any = session.client("medical-imaging", config=config, **overrides)
    if not is_service_host(client.meta.endpoint_url):
        # Of this client alone; a second client, made with it, would cost as much again.
        client.meta.config.inject_host_prefix = False
    send_directly(client)
    return client


def is_service_host(endpoint_url: str) -> bool:
    """Whether the URL is the service's regional endpoint, whose data and DICOMweb calls have own hosts."""
    host = urlsplit(endpoint_url).hostname or ""
    return host.startswith(("medical-imaging.", "medical-imaging-fips.")) and host.endswith(
        (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
    )
