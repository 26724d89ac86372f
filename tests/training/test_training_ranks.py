"""A training on two ranks: torchrun on this machine, on phantoms.

The whole job runs in processes of its own, as in its container; what interrupts it is real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from training_jobs import PROGRAM, Finished, run_job, run_main
from training_phantoms import SMALL, SMALL_CLASSIFIER, environment, lay_out_training

from healthimaging.manifest import Split

CASES: dict[Split, list[str]] = {
    "train": ["chest-1", "chest-2", "chest-3", "chest-4", "chest-5"],
    # One more than a multiple of the ranks: the last round has a case for one rank only.
    "validation": ["chest-6", "chest-7", "chest-8"],
}
MEASURED = re.compile(r"^step=(\d+) (train_loss|val_[a-z_]+)=(\S+)$", re.MULTILINE)


def lay_out(base: Path, splits: dict[Split, list[str]] = CASES, **changes: Any) -> Path:
    settings: dict[str, Any] = {"max_steps": 20, "validate_every": 10, "checkpoint_every": 4}
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
def started(base: Path, *, until: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A job, in a process group of its own, that has just printed a line; and what it printed up to there."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "train"],
        env=environment(base),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if until in line:
                break
        else:
            pytest.fail("".join(seen))
        try:
            yield process, seen
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[str], *, exit_code: int) -> str:
    assert process.stdout is not None
    rest = process.stdout.read()
    assert process.wait(timeout=60) == exit_code, rest
    return rest


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """A rank alone on its host would get all cores, and with more threads sums are added up in another order:
    what must be equal to the last bit needs the same number everywhere.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


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
    assert len(ours) == 4
    for key, value in theirs.items():
        # They are printed with six digits. What differs is the order in which gradients are added up.
        assert ours[key] == pytest.approx(value, rel=1e-4), key


def test_a_training_that_is_killed_stopped_and_moved_ends_as_an_undisturbed_one(
    on_two_ranks: Finished, tmp_path: Path
) -> None:
    """Two ranks of one host are killed, then stopped; two hosts with a rank each bring it to its end."""
    base = lay_out(tmp_path / "one")
    with started(base, until="checkpoint step-00000004.pt") as (process, _):
        process.kill()
        process.wait()
        assert all_gone(base), "ranks outlive the process that started them"
    assert not (base / "output" / "failure").exists()
    with started(base, until="resumed after step") as (process, _):
        os.killpg(process.pid, signal.SIGTERM)
        rest = rest_of(process, exit_code=0)
    assert "stopped on request" in rest
    assert not (base / "output" / "failure").exists()
    assert not (base / "model" / "models").exists()

    outputs, models = on_two_hosts(tmp_path, checkpoints=base / "checkpoints")
    assert "resumed after step" in outputs[0]
    last, undisturbed = measured(outputs[0]), measured(on_two_ranks.output)
    for name in ("train_loss", "val_mean_dice"):
        assert last[20, name] == undisturbed[20, name]
    theirs = weights(on_two_ranks.base)
    for name, value in weights(models[0]).items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)
    assert not measured(outputs[1]), "only the first rank prints"
    assert not list((models[1] / "model").iterdir()), "only the first rank leaves a model"


def on_two_hosts(folder: Path, *, checkpoints: Path) -> tuple[list[str], list[Path]]:
    """What two hosts say and where each has its /opt/ml; they are told apart by addresses of this machine."""
    hosts = ["127.0.0.1", "127.0.0.2"]
    bases = [lay_out(folder / host, processes_per_host=1) for host in hosts]
    # SageMaker gives each host what S3 has; only the first one's checkpoints count.
    shutil.copytree(checkpoints, bases[0] / "checkpoints")
    processes = []
    for host, base in zip(hosts, bases, strict=True):
        resources = {"current_host": host, "hosts": hosts, "network_interface_name": "lo"}
        (base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
        processes.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), "train"],
                # Hosts find each other by the job's name: another run of this test must not meet this one.
                env=environment(base) | {"TRAINING_JOB_NAME": folder.as_posix()},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs, bases


def test_a_rank_that_is_killed_ends_the_job_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a classification, whose first validation is that of one rank: an area under the curve needs all."""
    names = [f"chest-{number}" for number in range(1, 8)]
    splits: dict[Split, list[str]] = {"train": names[:4], "validation": names[4:]}
    settings: dict[str, Any] = {
        "classes": {name: ("negative", "positive")[number % 2] for number, name in enumerate(names)},
        "bundle": "volume_classification",
        # A schedule that does not depend on how many steps there are.
        "overrides": {**SMALL_CLASSIFIER, "lr_scheduler#total_steps": 5000},
        "validate_every": 10,
        "checkpoint_every": 10,
    }
    killed = lay_out(tmp_path / "killed", splits, max_steps=4000, **settings)
    with started(killed, until="step=10 val_accuracy=") as (process, seen):
        ranks = [pid for pid in processes_of(killed) if _is_rank(pid)]
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGKILL)
        rest_of(process, exit_code=1)
    failure = (killed / "output" / "failure").read_text()
    assert failure.startswith("RankError: "), failure
    assert "out of memory" in failure
    assert all_gone(killed)
    assert not (killed / "model" / "models").exists()
    assert not list((killed / "checkpoints").glob("*.partial"))

    alone = lay_out(tmp_path / "alone", splits, max_steps=10, **settings, batch_size=2, processes_per_host=1)
    assert run_main("train", alone) == 0
    ours, theirs = measured("".join(seen)), measured(capsys.readouterr().out)
    assert {name for _, name in ours} == {"train_loss", "val_auc", "val_accuracy"}
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=1e-4), key


def test_what_the_ranks_find_is_the_jobs_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One case is no number. Before its turn comes, one case is validated: fewer than there are ranks."""
    splits: dict[Split, list[str]] = {"train": [*CASES["train"], "nan-9"], "validation": ["chest-6"]}
    two = lay_out(tmp_path / "two", splits, validate_every=1)
    one = lay_out(tmp_path / "one", splits, validate_every=1, processes_per_host=1, batch_size=2)
    done = run_job("train", two)
    assert done.exit_code == 1, done.output
    assert run_main("train", one) == 1
    failure = (two / "output" / "failure").read_text()
    assert re.match(r"DivergenceError: The loss is nan at step [23]", failure), failure
    assert failure == (one / "output" / "failure").read_text()
    assert all_gone(two)
    ours, theirs = measured(done.output), measured(capsys.readouterr().out)
    assert ours.keys() == theirs.keys()
    assert (1, "val_mean_dice") in ours
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=1e-4), key


def _is_rank(pid: int) -> bool:
    return b"\0RANK=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
