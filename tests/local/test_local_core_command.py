"""`python -m local up | down | status | serve`, as a person meets it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import REPOSITORY, SERVER_PYTHON, free_port

from local.containers.records import ProcessRecords


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


def test_a_file_in_the_way_of_the_state(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    failed = local("up", "--root", tmp_path, "--port", free_port(), check=False)
    assert failed.returncode == 1
    assert f"is not writable (File exists: {tmp_path / 'state'})" in failed.stderr


def test_a_number_that_is_no_port(tmp_path: Path) -> None:
    failed = local("up", "--root", tmp_path, "--port", "99999", check=False)
    assert failed.returncode == 2
    assert "99999 is not a port" in failed.stderr


def test_damaged_state_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    damaged = tmp_path / "state" / "sqs.json"
    damaged.write_text('{"pay')
    failed = local("up", "--root", tmp_path, "--port", free_port(), check=False)
    assert failed.returncode == 1
    assert f"error: {damaged} is damaged" in failed.stderr
    assert "Move it away" in failed.stderr
    assert damaged.read_text() == '{"pay'


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"pid": %d, "started": 1.0, "endpointUrl": "http://127.0.0.1:1"}'],
    ids=["empty", "something else", "a reused process id"],
)
def test_a_stale_process_file_misleads_nobody(tmp_path: Path, content: str) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "cloud.json").write_text(content % innocent.pid if "%d" in content else content)
        place = ("--root", tmp_path, "--port", free_port())
        assert json.loads(local("status", "--json", *place).stdout)["running"] is False
        assert "is not running" in local("down", *place).stdout
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_cloud_that_does_not_answer_runs_all_the_same(own_cloud) -> None:
    place = ("--root", own_cloud.root, "--port", free_port())
    pid = json.loads(local("status", "--json", *place).stdout)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        state = json.loads(local("status", "--json", *place).stdout)
        assert (state["running"], state["ready"], state["pid"]) == (True, False, pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    # It is a child of this process, so it stays in the table of processes until it is waited for.
    assert "is down" in local("down", *place).stdout
    assert json.loads(local("status", "--json", *place).stdout)["running"] is False


def test_down_after_a_kill_stops_the_containers_that_are_left(tmp_path: Path) -> None:
    container = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        ProcessRecords(tmp_path).write(container.pid, "endpoint e, variant v")
        said = local("down", "--root", tmp_path, "--port", free_port()).stdout
        assert "Stopped a container that a killed cloud had left running: endpoint e, variant v" in said
        assert container.wait(10) == -signal.SIGTERM
    finally:
        container.kill()
        container.wait()


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
