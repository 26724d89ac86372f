"""Starting the ranks of a host, without training anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from training.errors import RankError
from training.job.cluster import Cluster
from training.job.launch import launch
from training.loop.ranks import open_ranks
from training.stopping import StopRequest

REPOSITORY = Path(__file__).resolve().parents[2]
ALONE = Cluster(hosts=("algo-1",), current_host="algo-1", processes_per_host=2, network_interface=None)

WAITING = """
import json, os, pathlib, time
from training.stopping import STOP_FILE, StopRequest
stop = StopRequest.of_process()
while not stop.requested:
    time.sleep(0.05)
told = {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")}
told["session"] = os.getsid(0)
told["threads"] = int(os.environ["OMP_NUM_THREADS"])
pathlib.Path(__file__).with_name(f"{os.environ['RANK']}.json").write_text(json.dumps(told))
"""
"""A rank that does nothing until it is asked to stop."""


@pytest.fixture(autouse=True)
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")


def test_a_wish_to_stop_reaches_every_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    wish = tmp_path / "wish"
    wish.touch()
    program = tmp_path / "waiting.py"
    program.write_text(WAITING)
    launch(ALONE, job_name="waiting", stop=StopRequest(file=wish), program=[str(program)])
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"]) for one in told] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert {one["GLOO_SOCKET_IFNAME"] for one in told} == {"lo"}
    # A signal to the group of the process that was started first must not reach them.
    assert os.getsid(0) not in {one["session"] for one in told}
    assert {one["threads"] for one in told} == {max(1, (os.cpu_count() or 1) // 2)}


def test_ranks_run_this_package_and_say_why_they_failed(tmp_path: Path) -> None:
    with pytest.raises(RankError, match="ranks of algo-1 ended with exit code 1"):
        launch(ALONE, job_name="failing", stop=StopRequest())
    failure = (tmp_path / "output" / "failure").read_text()
    assert (
        failure
        == "JobConfigurationError: The channel manifest must hold one manifest (*.json), it holds none"
    )


def test_one_rank_alone_needs_no_group() -> None:
    for environ in ({}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}):
        with open_ranks(environ) as ranks:
            assert (ranks.rank, ranks.world_size, ranks.is_first, ranks.group) == (0, 1, True, None)
            assert ranks.agree(stop=True, loss=0.5) == (True, 0.5)
            assert ranks.from_first({"step": 1}) == {"step": 1}
