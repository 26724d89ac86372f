"""A training on two ranks: torchrun on this machine, on phantoms.

The whole job runs in processes of its own, as in its container; what interrupts it is real.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from training_jobs import PROGRAM, Finished, run_job, run_main
from training_phantoms import SMALL, environment, lay_out_training

from healthimaging.manifest import Split

CASES: dict[Split, list[str]] = {
    "train": ["chest-1", "chest-2", "chest-3", "chest-4", "chest-5"],
    # One more than a multiple of the ranks: the last round has a case for one rank only.
    "validation": ["chest-6", "chest-7", "chest-8"],
}
MEASURED = re.compile(r"^step=(\d+) (train_loss|val_mean_dice)=(\S+)$", re.MULTILINE)


def lay_out(base: Path, splits: dict[Split, list[str]] = CASES, **changes: object) -> Path:
    settings: dict[str, object] = {"max_steps": 40, "validate_every": 20, "checkpoint_every": 7}
    settings |= {"batch_size": 1, "processes_per_host": 2, "overrides": dict(SMALL), "workers": 2}
    settings |= {"cache_folder": str(base / "cache")}
    lay_out_training(base, splits, **(settings | changes))
    return base


def measured(output: str) -> dict[tuple[int, str], float]:
    return {(int(step), name): float(value) for step, name, value in MEASURED.findall(output)}


def weights(base: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(base / "model" / "models" / "model.pt", weights_only=True)
    return found


def processes_of(base: Path) -> list[int]:
    """Processes that were started with this /opt/ml, whoever their parent is by now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SAGEMAKER_BASE_DIR={base}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def all_gone(base: Path, *, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while processes_of(base):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def started(base: Path, *, until: str) -> Iterator[subprocess.Popen[str]]:
    """A job that has just printed a line."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "train"],
        env=environment(base),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if until in line:
                break
        else:
            pytest.fail("".join(seen))
        yield process


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    done = run_job("train", lay_out(tmp_path_factory.mktemp("ranks")))
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("share", [{"batch_size": 2}, {"accumulate": 2}], ids=str)
def test_one_rank_with_the_double_batch_gives_the_same(
    on_two_ranks: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: dict[str, int]
) -> None:
    assert run_main("train", lay_out(tmp_path, processes_per_host=1, **share)) == 0
    ours, theirs = measured(capsys.readouterr().out), measured(on_two_ranks.output)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=2e-3), key


def test_a_killed_and_a_stopped_training_end_as_an_undisturbed_one(
    on_two_ranks: Finished, tmp_path: Path
) -> None:
    lay_out(tmp_path)
    with started(tmp_path, until="checkpoint step-00000007.pt") as process:
        process.kill()
        process.wait()
        assert all_gone(tmp_path), "ranks outlive the process that started them"
    assert not (tmp_path / "output" / "failure").exists()
    with started(tmp_path, until="resumed after step") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 0, rest
    assert "stopped on request" in rest
    assert not (tmp_path / "output" / "failure").exists()
    assert not (tmp_path / "model" / "models").exists()
    done = run_job("train", tmp_path)
    assert done.exit_code == 0, done.output
    assert "resumed after step" in done.output
    last, undisturbed = measured(done.output), measured(on_two_ranks.output)
    for name in ("train_loss", "val_mean_dice"):
        assert last[40, name] == undisturbed[40, name]
    theirs = weights(on_two_ranks.base)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)


def test_a_rank_that_is_killed_ends_the_job_with_a_reason(tmp_path: Path) -> None:
    lay_out(tmp_path, max_steps=4000)
    with started(tmp_path, until="checkpoint step-00000007.pt") as process:
        ranks = [pid for pid in processes_of(tmp_path) if _is_rank(pid)]
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGKILL)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 1, rest
    failure = (tmp_path / "output" / "failure").read_text()
    assert failure.startswith("RankError: "), failure
    assert "out of memory" in failure
    assert all_gone(tmp_path)
    assert not (tmp_path / "model" / "models").exists()
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_what_one_rank_finds_is_the_jobs_failure(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train": ["chest-1", "nan-2"]})
    done = run_job("train", tmp_path)
    assert done.exit_code == 1, done.output
    failure = (tmp_path / "output" / "failure").read_text()
    assert failure.startswith("DivergenceError: The loss is nan at step 1"), failure
    assert all_gone(tmp_path)


def test_two_hosts_give_the_same_as_two_ranks_of_one(on_two_ranks: Finished, tmp_path: Path) -> None:
    """Hosts are told apart by addresses of this machine."""
    hosts = ["127.0.0.1", "127.0.0.2"]
    bases = [lay_out(tmp_path / host, processes_per_host=1) for host in hosts]
    processes = []
    for host, base in zip(hosts, bases, strict=True):
        resources = {"current_host": host, "hosts": hosts, "network_interface_name": "lo"}
        (base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
        processes.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), "train"],
                # Hosts find each other by the job's name: another run of this test must not meet this one.
                env=environment(base) | {"TRAINING_JOB_NAME": tmp_path.as_posix()},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert measured(outputs[0]) == measured(on_two_ranks.output)
    assert not measured(outputs[1]), "only the first rank prints"
    assert (bases[0] / "model" / "models").exists()
    assert not list((bases[1] / "model").iterdir())


def _is_rank(pid: int) -> bool:
    return b"\0RANK=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
