"""A local cloud of a benchmark's own: empty when it starts, gone when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
ACCESS_KEY = "test"
SECRET_KEY = "test"  # noqa: S105 - the published root credentials of a cloud that listens on loopback only
START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class LocalCloud:
    """A running server."""

    endpoint_url: str
    root: Path
    """Its state; removed when it ends."""
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """CPU time that the server has used until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def local_cloud(folder: Path) -> Iterator[LocalCloud]:
    """Serve an empty cloud on a free port, with its state in a new folder below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder, prefix="cloud-") as root:
        log = Path(root) / "benchmark.log"
        command = [sys.executable, "-m", "local", "serve", "--root", root, "--port", str(port)]
        with log.open("wb") as output:
            server = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        endpoint_url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(server, endpoint_url, log)
            yield LocalCloud(endpoint_url=endpoint_url, root=Path(root), process=psutil.Process(server.pid))
        finally:
            server.terminate()
            try:
                server.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def aws_environment(endpoint_url: str) -> dict[str, str]:
    """This process's environment, with exactly the AWS variables that lead to the cloud as root."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return inherited | {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], endpoint_url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _ready(endpoint_url):
        if server.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"The local cloud did not start:\n{tail}")
        time.sleep(0.1)


def _ready(endpoint_url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint_url}/_local/status", timeout=5) as response:
            return b'"ready": true' in response.read()
    except OSError:  # not listening yet
        return False
