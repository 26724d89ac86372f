"""A local cloud as tests use it: seen from outside, and with its power switch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SERVER_PYTHON = REPOSITORY / ".venv" / "bin" / "python"
"""The server always runs in the platform environment; tests may run in the image environment."""

START_SECONDS = 60


@dataclass(kw_only=True)
class CloudUnderTest:
    """A running local cloud, seen from outside: an endpoint, credentials, and the power switch."""

    root: Path
    port: int
    region: str = "us-east-1"
    account_id: str = "000000000000"
    access_key_id: str = "test"
    secret_access_key: str = "test"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.root / "cloud.log").read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables for a subprocess that shall talk to this cloud as root."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def client(self, service_name: str, **options: Any) -> Any:
        """A boto3 client as root, or with the credentials given as boto3 spells them."""
        import boto3
        from botocore.config import Config

        settings: dict[str, Any] = {
            "endpoint_url": self.endpoint_url,
            "region_name": self.region,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            **options,
        }
        own = Config(inject_host_prefix=False, retries={"mode": "standard", "max_attempts": 2})
        settings["config"] = own.merge(options["config"]) if "config" in options else own
        return boto3.Session().client(service_name, **settings)

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "cloud.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER_PYTHON, "-m", "local", "serve", "--root", self.root, "--port", str(self.port)],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "NO_PROXY": "127.0.0.1,localhost"},
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail("the local cloud did not start:\n" + self.log[-3000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as `down` does: it saves its state."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail("the local cloud did not stop:\n" + self.log[-3000:])

    def kill(self) -> None:
        """kill -9: it has no chance to save anything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=30)

    def restart(self) -> None:
        """Stop it if it runs, and start it again on the same folder and port."""
        self.stop()
        self.start()

    def _ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.endpoint_url}/_local/status", timeout=5) as response:
                return b'"ready": true' in response.read()
        except (OSError, urllib.error.HTTPError):
            return False


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
