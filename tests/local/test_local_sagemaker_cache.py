"""Step caching: what is used again, what is not, and for how long."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sagemaker_pipeline_runs import finished, job_of, make_pipeline, start, steps
from sagemaker_pipeline_steps import PROGRAM, definition, pipeline_statements
from sagemaker_workbench import Workbench

from local.sagemaker.step_cache import cache_key, earlier_run, read_cache_config
from local.service import ServiceError


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def image(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return bench.image(tmp_path_factory.mktemp("image"), PROGRAM, tag="both")


@pytest.fixture(scope="module")
def document(bench: Workbench, image: str) -> dict[str, Any]:
    """The pipeline's definition, with a cached training step."""
    group = f"{bench.name}-models"
    bench.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    made = definition(bench, image, group)
    made["Steps"][0]["CacheConfig"] = {"Enabled": True, "ExpireAfter": "P30D"}
    return made


@pytest.fixture(scope="module")
def role(bench: Workbench) -> str:
    return bench.make_role("pipeline", pipeline_statements(bench))


def run(bench: Workbench, pipeline: str, **parameters: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """A whole execution: its ARN and its steps."""
    arn = start(bench, pipeline, 0.9, **parameters)
    finished(bench, arn)
    return arn, steps(bench, arn)


def test_a_step_with_the_same_inputs_is_not_run_again(
    bench: Workbench, document: dict[str, Any], role: str
) -> None:
    pipeline = make_pipeline(bench, "cached", document, role)
    same = {"ManifestUri": bench.put("manifests/same/m.json", json.dumps({"dice": 0.9}))}
    first, ran = run(bench, pipeline, **same)
    assert "CacheHitResult" not in ran["Train"]
    # Neither the machine nor another definition of other steps makes it another training.
    changed = json.loads(json.dumps(document))
    changed["Parameters"][1]["DefaultValue"] = 0.7
    bench.sagemaker.update_pipeline(PipelineName=pipeline, PipelineDefinition=json.dumps(changed))
    _, again = run(bench, pipeline, **same, InstanceType="ml.g5.xlarge")
    assert again["Train"]["StepStatus"] == "Succeeded"
    assert again["Train"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert job_of(again["Train"]) == job_of(ran["Train"])
    # The steps after it work with the model of the first run.
    assert "CacheHitResult" not in again["Evaluate"]
    assert job_of(again["Evaluate"]) != job_of(ran["Evaluate"])
    package = bench.sagemaker.describe_model_package(
        ModelPackageName=again["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    trained = bench.sagemaker.describe_training_job(TrainingJobName=job_of(ran["Train"]))
    model = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert model == trained["ModelArtifacts"]["S3ModelArtifacts"]
    # A run that took its results from the cache is not the source of the next.
    _, third = run(bench, pipeline, **same)
    assert third["Train"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    _, other = run(bench, pipeline, **same, MaxSteps="121")
    assert "CacheHitResult" not in other["Train"]


def test_a_run_that_failed_and_another_pipeline_are_not_used(
    bench: Workbench, document: dict[str, Any], role: str
) -> None:
    pipeline = make_pipeline(bench, "fails-first", document, role)
    uri = bench.uri("manifests/late/m.json")
    _, failed = run(bench, pipeline, ManifestUri=uri)
    assert failed["Train"]["StepStatus"] == "Failed"
    bench.put("manifests/late/m.json", json.dumps({"dice": 0.9}))
    _, mended = run(bench, pipeline, ManifestUri=uri)
    assert mended["Train"]["StepStatus"] == "Succeeded"
    assert "CacheHitResult" not in mended["Train"]
    _, elsewhere = run(bench, make_pipeline(bench, "other", document, role), ManifestUri=uri)
    assert "CacheHitResult" not in elsewhere["Train"]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("P30D", timedelta(days=30)),
        ("30d", timedelta(days=30)),
        ("5y", timedelta(days=5 * 365)),
        ("T16m", timedelta(minutes=16)),
        ("30dT5h", timedelta(days=30, hours=5)),
        ("P2M", timedelta(days=60)),
        ("PT1H30M", timedelta(minutes=90)),
    ],
)
def test_ages_are_iso_8601_durations_as_sagemaker_writes_them(text: str, age: timedelta) -> None:
    assert read_cache_config(step="T", kind="Training", config={"Enabled": True, "ExpireAfter": text}) == age


@pytest.mark.parametrize("text", ["", "P", "PT", "T", "30", "PT5S", "one day", None])
def test_an_age_that_says_nothing_is_refused(text: str | None) -> None:
    with pytest.raises(ServiceError, match="ISO 8601"):
        read_cache_config(step="T", kind="Training", config={"Enabled": True, "ExpireAfter": text})


def execution(ended: datetime, key: str, **step: Any) -> dict[str, Any]:
    entry = {"StepName": "Train", "StepStatus": "Succeeded", "EndTime": ended, "_CacheKey": key, **step}
    return {"PipelineExecutionArn": uuid.uuid4().hex, "_Steps": [entry]}


def test_the_newest_run_that_is_young_enough_is_used() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    old, new, hit, stopped = (
        execution(moment - timedelta(days=9), "k"),
        execution(moment - timedelta(days=5), "k"),
        execution(moment - timedelta(days=1), "k", CacheHitResult={}),
        execution(moment - timedelta(days=1), "k", StepStatus="Stopped"),
    )
    everything = [new, old, hit, stopped, execution(moment, "other")]

    def found(days: int) -> str | None:
        run = earlier_run(everything, step="Train", key="k", since=moment - timedelta(days=days))
        return run[0] if run else None

    assert found(30) == new["PipelineExecutionArn"]
    assert found(4) is None
    assert earlier_run(everything, step="Evaluate", key="k", since=moment - timedelta(days=30)) is None


def test_what_counts_is_what_sagemaker_counts() -> None:
    base = {
        "HyperParameters": {"a": "1"},
        "Environment": {"IMAGE": "x"},
        "RoleArn": "r",
        "OutputDataConfig": {},
    }
    key = cache_key("Training", base)
    assert cache_key("Training", base | {"RoleArn": "s", "ResourceConfig": {"InstanceCount": 2}}) == key
    assert cache_key("Training", base | {"Environment": {"IMAGE": "y"}}) != key
    assert cache_key("Training", base | {"CheckpointConfig": {"S3Uri": "s3://b/c"}}) != key
    processing = cache_key("Processing", {"AppSpecification": {"ImageUri": "i"}})
    assert cache_key("Processing", {"AppSpecification": {"ImageUri": "j"}}) != processing
    outputs = {"ProcessingOutputConfig": {"Outputs": []}}
    assert cache_key("Processing", {"AppSpecification": {"ImageUri": "i"}, **outputs}) == processing
