"""What a training is told, and what it meets on its way: whole jobs on phantoms, in this process."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from training_jobs import run_main
from training_phantoms import SMALL, SMALL_CLASSIFIER, PhantomReader, lay_out_training

from healthimaging import Case
from healthimaging.manifest import Split
from training.configuration.sources import open_bundle

TWO: dict[Split, list[str]] = {"train": ["chest-1", "chest-2"], "validation": ["chest-3"]}
CLASSES = {"chest-1": "positive", "chest-2": "negative", "chest-3": "positive", "chest-4": "negative"}


def lay_out(base: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {"max_steps": 4, "checkpoint_every": 2, "validate_every": 2}
    settings |= {"overrides": dict(SMALL), "cache_folder": str(base / "cache")}
    lay_out_training(base, TWO, **(settings | changes))
    return base


def weights(base: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(base / "model" / "models" / "model.pt", weights_only=True)
    return found


def same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def failure(base: Path) -> str:
    return (base / "output" / "failure").read_text()


def provenance(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / "model" / "provenance.json").read_text())
    return found


def test_a_validation_that_is_no_number_names_no_best_weights(tmp_path: Path) -> None:
    of_the_images = {
        "_target_": "ignite.metrics.MeanSquaredError",
        "output_transform": "$lambda batch: (batch[0]['image'], batch[0]['image'])",
    }
    lay_out_training(
        tmp_path,
        {"train": ["chest-1"], "validation": ["nan-2"]},
        overrides={**SMALL, "validate#key_metric": {"val_error": of_the_images}},
        max_steps=4,
        validate_every=3,
    )
    assert run_main("train", tmp_path) == 1
    assert "val_error is nan at step 3" in failure(tmp_path)
    assert not (tmp_path / "model" / "models").exists()


def test_the_seed_decides_and_the_cache_and_the_threads_do_not(tmp_path: Path) -> None:
    trained = {}
    for name, settings in {
        "kept": {"seed": 1, "workers": 1},
        "not kept": {"seed": 1, "workers": 3, "cache_gib": 0},
        "other": {"seed": 2},
    }.items():
        base = lay_out(tmp_path / name, **settings)
        assert run_main("train", base) == 0
        trained[name] = weights(base)
        assert provenance(base)["seed"] == settings["seed"]
    assert same(trained["kept"], trained["not kept"])
    assert not same(trained["kept"], trained["other"])
    assert len([file for file in (tmp_path / "kept" / "cache").rglob("*") if file.stat().st_size > 1000]) == 3
    assert not (tmp_path / "not kept" / "cache").exists()


class FineReader(PhantomReader):
    """Phantoms that come from images of 1 mm, and keeps the levels at which they were asked for."""

    levels: set[int]

    def spacing(self, case: Case) -> tuple[float, float, float]:
        return 1.0, 1.0, 1.0

    def read(self, case: Case, *, level: int = 0) -> dict[str, MetaTensor]:
        type(self).levels.add(level)
        return super().read(case)


@pytest.mark.parametrize(("resolution", "level"), [("auto", 1), ("full", 0)])
def test_images_are_read_no_finer_than_the_grid_needs(tmp_path: Path, resolution: str, level: int) -> None:
    """The bundle's grid is 4 mm: half of the pixels of 1 mm are left out, and half of its spacing remains."""
    FineReader.levels = set()
    lay_out(tmp_path, resolution=resolution, max_steps=1)
    assert run_main("train", tmp_path, open_reader=FineReader) == 0
    assert FineReader.levels == {level}


def test_a_full_disk_costs_checkpoints_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, full = lay_out(tmp_path / "whole"), lay_out(tmp_path / "full")
    assert run_main("train", whole) == 0

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        assert run_main("train", full) == 0
    assert "step-00000004.pt cannot be written (No space left on device)" in caplog.text
    assert not list((full / "checkpoints").iterdir())
    assert same(weights(full), weights(whole))


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder is wanted")
    kept, without = lay_out(tmp_path / "kept"), lay_out(tmp_path / "without")
    lay_out(without, cache_folder=str(tmp_path / "taken"))
    for base in (kept, without):
        assert run_main("train", base) == 0
    assert caplog.text.count(str(tmp_path / "taken")) == 1
    assert same(weights(without), weights(kept))


@pytest.mark.parametrize(
    ("bundle", "splits", "classes", "reason"),
    [
        ("ct_segmentation", TWO, CLASSES, "have a class"),
        ("volume_classification", TWO, None, "segmentation"),
        ("volume_classification", {"train": ["chest-1", "chest-3"]}, CLASSES, "is of class 'negative'"),
        (
            "volume_classification",
            TWO,
            {**CLASSES, "chest-2": "unclear"},
            "'unclear'.*'negative', 'positive'",
        ),
    ],
)
def test_labels_that_do_not_fit_the_task_are_told(
    tmp_path: Path,
    bundle: str,
    splits: dict[Split, list[str]],
    classes: dict[str, str] | None,
    reason: str,
) -> None:
    lay_out_training(tmp_path, splits, classes=classes, bundle=bundle, max_steps=1)
    assert run_main("train", tmp_path) == 1
    assert re.search(f"^DataError: .*{reason}", failure(tmp_path)), failure(tmp_path)


def test_a_classification_is_trained_and_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits: dict[Split, list[str]] = {"train": ["chest-1", "chest-2"], "validation": ["chest-3", "chest-4"]}
    settings = {"bundle": "volume_classification", "overrides": SMALL_CLASSIFIER, "max_epochs": 2}
    lay_out_training(tmp_path, splits, classes=CLASSES, validate_every=1, batch_size=1, **settings)
    assert run_main("train", tmp_path) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"step=(\d) val_auc=(?:0|1|0\.5)$", printed, re.MULTILINE) == ["1", "2", "3", "4"]
    assert "step=4 val_accuracy=" in printed
    assert provenance(tmp_path)["steps"] == 4


def test_a_bundle_of_the_users_own_comes_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = open_bundle("ct_segmentation", scratch=tmp_path, s3=lambda: None).root
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(shipped, arcname="own")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()

    def download(bucket: str, key: str, file: str) -> None:
        assert (bucket, key) == ("models", f"bundles/own-{digest}.tar.gz")
        Path(file).write_bytes(buffer.getvalue())

    monkeypatch.setattr("training.loop.train._s3", lambda: SimpleNamespace(download_file=download))
    base = lay_out(tmp_path / "ml", bundle=f"s3://models/bundles/own-{digest}.tar.gz", max_steps=1)
    assert run_main("train", base) == 0
    assert digest in provenance(base)["hyperparameters"]["bundle"]


def test_ranks_that_the_sdk_started_start_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's ModelTrainer can call torchrun itself; its variables then count, not the hyperparameter."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    base = lay_out(tmp_path, processes_per_host=2, max_steps=1)
    assert run_main("train", base) == 0
    assert provenance(base)["worldSize"] == 1


def test_an_override_that_fits_nowhere_and_precision_without_a_gpu_are_refused(tmp_path: Path) -> None:
    lay_out(tmp_path / "override", overrides={"learning_rat": 1})
    assert run_main("train", tmp_path / "override") == 1
    assert "learning_rate" in failure(tmp_path / "override")
    if not torch.cuda.is_available():
        lay_out(tmp_path / "amp", amp="on")
        assert run_main("train", tmp_path / "amp") == 1
        assert "GPU" in failure(tmp_path / "amp")
