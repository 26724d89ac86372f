"""`python -m local up | down | status | serve`, as a person meets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import REPOSITORY, SERVER_PYTHON, free_port


def local(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SERVER_PYTHON, "-m", "local", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
    )


def test_up_status_down(tmp_path: Path) -> None:
    place = ("--root", tmp_path / "cloud", "--port", free_port())
    assert json.loads(local("status", "--json", *place).stdout)["running"] is False
    try:
        started = local("up", *place)
        assert "Starting the local cloud on http://127.0.0.1:" in started.stdout
        assert "is up after" in started.stdout
        state = json.loads(local("status", "--json", *place).stdout)
        assert state["running"] is True
        assert state["ready"] is True
        assert state["recordedOnly"] == []
        assert state["root"] == str(tmp_path / "cloud")
        assert "is up already" in local("up", *place).stdout
        other = local("up", "--root", tmp_path / "cloud", "--port", free_port(), check=False)
        assert "is up already" in other.stdout, "one folder, one cloud"
    finally:
        down = local("down", *place)
    assert "is down" in down.stdout
    assert json.loads(local("status", "--json", *place).stdout)["running"] is False
    assert "is not running" in local("down", *place).stdout


@pytest.mark.parametrize("command", ["up", "serve"])
def test_taken_port(tmp_path: Path, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = local(command, "--root", tmp_path / "cloud", "--port", port, check=False)
    assert failed.returncode == 1
    assert failed.stderr == (
        f"error: Port {port} on 127.0.0.1 cannot be used (Address already in use). "
        "Stop the program that has it, or choose another with --port.\n"
    )


@pytest.mark.parametrize("command", ["up", "serve"])
def test_folder_that_cannot_be_written(tmp_path: Path, command: str) -> None:
    file = tmp_path / "file"
    file.touch()
    failed = local(command, "--root", file / "cloud", "--port", free_port(), check=False)
    assert failed.returncode == 1
    assert f"error: The folder {file / 'cloud'} is not writable" in failed.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    failed = local("up", "--root", closed / "cloud", "--port", free_port(), check=False)
    assert failed.returncode == 1
    assert "is not writable (Permission denied)" in failed.stderr


def test_second_server_on_a_folder(cloud) -> None:
    failed = local("serve", "--root", cloud.root, "--port", free_port(), check=False)
    assert failed.returncode == 1
    assert "Another local cloud uses the folder" in failed.stderr


def test_listens_on_loopback_only(cloud) -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        if address.startswith("127."):
            continue
        with socket.socket() as probe:
            probe.settimeout(1)
            assert probe.connect_ex((address, cloud.port)) != 0
