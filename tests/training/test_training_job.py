"""SageMaker's container contract, without training anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from training_phantoms import lay_out_training

from training.__main__ import main
from training.errors import DataError, JobConfigurationError
from training.job.contract import (
    FAILURE_CHARACTERS,
    EvaluationJob,
    Hyperparameters,
    TrainingJob,
    describe_failure,
)


def test_hyperparameters_are_strings() -> None:
    read = Hyperparameters.from_strings({"bundle": "ct_segmentation", "max_steps": "120", "seed": "0"})
    assert read == Hyperparameters(bundle="ct_segmentation", max_steps=120, seed=0)


def test_the_sdk_writes_values_as_json_and_adds_its_own() -> None:
    read = Hyperparameters.from_strings(
        {
            "bundle": '"ct_segmentation"',
            "max_steps": '"7"',
            "sagemaker_program": "x",
            "_tuning_objective_metric": "y",
        }
    )
    assert read == Hyperparameters(bundle="ct_segmentation", max_steps=7)


def test_all_bad_hyperparameters_are_told_at_once() -> None:
    with pytest.raises(JobConfigurationError) as caught:
        Hyperparameters.from_strings(
            {"bundle": "../etc", "max_steps": "0", "seed": "-1", "validate_every": "x", "epochs": "3"}
        )
    for name in ("bundle is '../etc'", "max_steps is '0'", "seed is '-1'", "validate_every is 'x'", "epochs"):
        assert name in str(caught.value)


def test_files_are_read_from_the_base_directory(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, max_steps=3)
    job = TrainingJob.from_environment({"SAGEMAKER_BASE_DIR": str(tmp_path), "TRAINING_JOB_NAME": "t-1"})
    assert job.name == "t-1"
    assert job.hyperparameters.max_steps == 3
    assert job.manifest_file == tmp_path / "input" / "data" / "manifest" / "phantoms.json"
    assert job.model_dir == tmp_path / "model"
    assert job.checkpoint_dir == tmp_path / "checkpoints"


def test_sm_variables_win_over_files(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, max_steps=3)
    job = TrainingJob.from_environment(
        {
            "SAGEMAKER_BASE_DIR": str(tmp_path),
            "SM_HPS": json.dumps({"max_steps": 5}),
            "SM_CHANNEL_MANIFEST": str(tmp_path / "input" / "data" / "manifest"),
            "SM_MODEL_DIR": str(tmp_path / "elsewhere"),
        }
    )
    assert job.hyperparameters.max_steps == 5
    assert job.model_dir == tmp_path / "elsewhere"


def test_several_hosts_are_refused(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]})
    hosts = {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}
    (tmp_path / "input" / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    with pytest.raises(JobConfigurationError, match="2 hosts"):
        TrainingJob.from_environment({"SAGEMAKER_BASE_DIR": str(tmp_path)})


@pytest.mark.parametrize("names", [(), ("a.json", "b.json")])
def test_a_channel_holds_one_manifest(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "processing" / "input" / "manifest"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    with pytest.raises(JobConfigurationError, match="must hold one manifest"):
        EvaluationJob.from_environment({"SAGEMAKER_BASE_DIR": str(tmp_path)})


def test_the_region_is_found_by_either_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert main(["evaluate"]) == 1, "there is no job"
    assert os.environ["AWS_DEFAULT_REGION"] == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert main(["evaluate"]) == 1
    assert os.environ["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_a_failure_text_fits_and_says_where() -> None:
    assert describe_failure(DataError("case 7")) == "DataError: case 7"
    assert len(describe_failure(DataError("x" * 5000))) == FAILURE_CHARACTERS
    with pytest.raises(ValueError, match="Expecting property name") as caught:
        json.loads("{")
    assert "test_training_job.py" in describe_failure(caught.value)
