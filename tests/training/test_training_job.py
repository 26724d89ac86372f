"""SageMaker's container contract, without training anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from training_phantoms import lay_out_training

from training.__main__ import main
from training.errors import DataError, JobConfigurationError
from training.job.cluster import launched_already
from training.job.contract import EvaluationJob, TrainingJob
from training.job.failure import FAILURE_CHARACTERS, describe_failure, write_failure
from training.job.gpu import compatibility_path, require_usable_gpu
from training.job.hyperparameters import Hyperparameters


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


def test_hosts_are_ranked_by_name_and_agree_on_a_port(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]}, processes_per_host=2)
    resources = {
        "current_host": "algo-2",
        "hosts": ["algo-2", "algo-1"],
        "network_interface_name": "eth0",
    }
    (tmp_path / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    second = TrainingJob.from_environment(environ).cluster
    assert second.hosts == ("algo-1", "algo-2")
    assert (second.node_rank, second.world_size, second.network_interface) == (1, 4, "eth0")
    first = TrainingJob.from_environment({**environ, "SM_CURRENT_HOST": "algo-1"}).cluster
    assert first.node_rank == 0
    assert first.master_port("job") == second.master_port("job") != second.master_port("another")


def test_sm_variables_say_hosts_and_gpus(tmp_path: Path) -> None:
    lay_out_training(tmp_path, {"train": ["chest-1"]})
    environ = {
        "SAGEMAKER_BASE_DIR": str(tmp_path),
        "SM_HOSTS": '["algo-1", "algo-2"]',
        "SM_CURRENT_HOST": "algo-2",
        "SM_NUM_GPUS": "4",
    }
    assert TrainingJob.from_environment(environ).cluster.world_size == 8
    with pytest.raises(JobConfigurationError, match="this one is algo-9"):
        TrainingJob.from_environment({**environ, "SM_CURRENT_HOST": "algo-9"})
    with pytest.raises(JobConfigurationError, match="SM_HOSTS"):
        TrainingJob.from_environment({**environ, "SM_HOSTS": "algo-1"})


def test_the_sdks_torchrun_is_recognised() -> None:
    assert launched_already({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    assert not launched_already({"WORLD_SIZE": "2"})


def test_what_cannot_be_combined_or_read_is_told() -> None:
    with pytest.raises(JobConfigurationError) as caught:
        Hyperparameters.from_strings(
            {"max_steps": "1", "max_epochs": "1", "overrides": "[1]", "amp": "yes", "cache_gib": "nan"}
            | {"deterministic": "maybe", "cache_folder": "here"}
        )
    for part in ("give one", "a JSON object", "auto, on, off", "GiB", "true, false", "absolute path"):
        assert part in str(caught.value)


def test_values_are_read_again_as_they_were_recorded() -> None:
    read = Hyperparameters.from_strings(
        {"overrides": '{"network_def#norm": "instance"}', "deterministic": "True", "cache_gib": "0.5"}
        | {"cache_folder": "/tmp/cache", "max_epochs": "2"}
    )
    assert read.overrides == {"network_def#norm": "instance"}
    assert read.deterministic
    assert Hyperparameters.from_strings(read.as_strings()) == read


def test_the_first_failure_is_the_jobs(tmp_path: Path) -> None:
    for text in ("the reason", "what followed from it"):
        write_failure(text, file=tmp_path / "output" / "failure")
    assert (tmp_path / "output" / "failure").read_text() == "the reason"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU of this machine can be used")
def test_a_gpu_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    require_usable_gpu(device=device)
    device.touch()
    with pytest.raises(JobConfigurationError, match="GPU base image"):
        require_usable_gpu(device=device)


def test_only_an_older_driver_needs_the_compatibility_library(tmp_path: Path) -> None:
    folder, driver = tmp_path / "compat", tmp_path / "version"
    assert compatibility_path({}, folder=folder, driver=driver) is None
    folder.mkdir()
    (folder / "libcuda.so.1").symlink_to("libcuda.so.580.65.06")
    told = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\nGCC version: 12.3.0\n"
    driver.write_text(told.format("570.172.08"))
    path = compatibility_path({"LD_LIBRARY_PATH": "/lib/x"}, folder=folder, driver=driver)
    assert path == f"{folder}:/lib/x"
    driver.write_text(told.format("590.10.01"))
    assert compatibility_path({}, folder=folder, driver=driver) is None


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
