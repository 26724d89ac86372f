"""Where the local cloud lives, and the environment from which MiniStack reads its settings."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

ACCOUNT_ID = "000000000000"
REGION = "us-east-1"
HOST = "127.0.0.1"
"""Loopback only. An address rather than "localhost": SDKs then name S3 buckets in the path, not in the
host."""

PORT = 4566
STATUS_PATH = "/_local/status"
"""Where a running cloud says what it is; no AWS service answers below `/_local`."""

ACCESS_KEY_ID = "test"
SECRET_ACCESS_KEY = "test"  # noqa: S105 - the published root credentials of a cloud that listens on loopback only


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One local cloud: its folder and its port."""

    root: Path
    port: int = PORT

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.root / "cloud.log"

    @property
    def process_file(self) -> Path:
        """Written by a running server: its process id, when that process started, and its address."""
        return self.root / "cloud.json"

    @property
    def lock_file(self) -> Path:
        """Locked by a running server."""
        return self.root / "lock"

    @property
    def state_folder(self) -> Path:
        """MiniStack's state, one JSON file a service."""
        return self.root / "state"

    @property
    def objects_folder(self) -> Path:
        """S3 objects."""
        return self.root / "s3"

    @property
    def temporary_folder(self) -> Path:
        """What does not survive: unpacked functions, crawled copies."""
        return self.root / "tmp"


def client_environment(configuration: Configuration) -> dict[str, str]:
    """The ordinary AWS variables that make any SDK or the AWS CLI talk to this cloud as root."""
    return {
        "AWS_ENDPOINT_URL": configuration.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def configure(configuration: Configuration, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what MiniStack reads when it is imported; must run before that."""
    for folder in (
        configuration.state_folder,
        configuration.objects_folder,
        configuration.temporary_folder,
    ):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        environment.pop(name, None)
    environment.update(client_environment(configuration))
    environment.update(
        AUTH="true",
        MINISTACK_ACCOUNT_ID=ACCOUNT_ID,
        MINISTACK_REGION=REGION,
        MINISTACK_HOST=HOST,
        BIND_HOST=HOST,
        GATEWAY_PORT=str(configuration.port),
        PERSIST_STATE="1",
        STATE_DIR=str(configuration.state_folder),
        S3_PERSIST="1",
        S3_DATA_DIR=str(configuration.objects_folder),
        TMPDIR=str(configuration.temporary_folder),
        # Listeners that nothing here uses.
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
    )
    loopback = {HOST, "localhost"}
    for name in ("NO_PROXY", "no_proxy"):
        hosts = {host for host in environment.get(name, "").split(",") if host}
        environment[name] = ",".join(sorted(hosts | loopback))
