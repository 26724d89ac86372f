"""What a training is asked for: tasks and bundles, parameters, names of runs; and what is refused before it
costs anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_world import MANIFEST_URI, FakePipeline, manifest
from workbench_fakes import FakeS3, deployment, error

from workbench.errors import DatasetInvalid, WorkbenchError
from workbench.training.own_bundle import pack_bundle
from workbench.training.request import StartedTraining, TrainingRequest, start_training


def start(
    sagemaker: FakePipeline, *, s3: FakeS3 | None = None, bundle: str = "lung-segmentation", **more: Any
) -> StartedTraining:
    objects = {"models/manifests/a.json": manifest("train", "test")}
    request = TrainingRequest(bundle=bundle, data=more.pop("data", MANIFEST_URI), **more)
    return start_training(deployment(sagemaker=sagemaker, s3=s3 or FakeS3(objects)), request)


def run_of(*, image: str = "training:1", **more: Any) -> str:
    return start(FakePipeline(image=image), **more).run


def test_the_same_training_has_the_same_name_and_every_other_one_another() -> None:
    same = run_of()
    assert run_of() == same
    assert run_of(steps=140) == same, "a default that is said is the default"
    assert run_of(minimum_score=0.5) == same, "what judges the model does not change its training"
    assert run_of(parameters={"MinimumImprovement": "0.1"}) == same
    others = [
        run_of(steps=141),
        run_of(overrides={"learning_rate": 0.1}),
        run_of(image="training:2"),
        run_of(instance_type="ml.b"),
        run_of(bundle="other_bundle", task="lung-segmentation"),
    ]
    assert len({same, *others}) == 6


def test_parameters_reach_the_pipeline() -> None:
    sagemaker = FakePipeline()
    started = start(
        sagemaker,
        overrides={"network_def#norm": "instance", "lr": 0.1},
        steps=9,
        minimum_score=0.5,
        instance_type="ml.b",
        allow_training_patients=True,
        parameters={"MinimumImprovement": "-1"},
    )
    given = sagemaker.parameters
    assert json.loads(given.pop("Overrides")) == {"network_def#norm": "instance", "lr": 0.1}
    assert given.pop("Run") == started.run
    assert given == {
        "ManifestUri": MANIFEST_URI,
        "MaxSteps": "9",
        "MinimumScore": "0.5",
        "InstanceType": "ml.b",
        "RequireHeldOut": "0",
        "MinimumImprovement": "-1",
    }
    assert started.steps == 9


@pytest.mark.parametrize(
    ("bundle", "task", "sent"),
    [
        ("lung-segmentation", None, None),
        ("ct_segmentation", None, "ct_segmentation"),
        ("another_one", "lung-segmentation", "another_one"),
        ("s3://models/bundles/x-1.tar.gz", None, "s3://models/bundles/x-1.tar.gz"),
    ],
)
def test_a_bundle_is_named_by_task_name_or_uri(bundle: str, task: str | None, sent: str | None) -> None:
    sagemaker = FakePipeline()
    assert start(sagemaker, bundle=bundle, task=task).task.name == "lung-segmentation"
    assert sagemaker.parameters.get("Bundle") == sent


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bundle": "brain"}, "no task"),
        ({"task": "brain-tumour"}, "no training task 'brain-tumour'"),
        ({"parameters": {"MaxStep": "3"}}, "MaxStep is none of its parameters"),
        ({"parameters": {"Run": "my_run"}}, "Run is 'my_run', not letters, digits and hyphens"),
        ({"minimum_score": float("nan")}, "MinimumScore is 'nan', and it takes: Float"),
        ({"parameters": {"MinimumImprovement": "-inf"}}, "MinimumImprovement is '-inf', and it takes: Float"),
        ({"parameters": {"MaxSteps": "many"}}, "MaxSteps is 'many'"),
        ({"overrides": {"a": "x" * 1100}}, "Overrides has 1109 characters, more than 1024"),
        ({"instance_type": "ml.c"}, "not one of ml.a, ml.b"),
        ({"steps": 3, "parameters": {"MaxSteps": "4"}}, "given twice"),
        ({"parameters": {"ManifestUri": "s3://x"}}, "given twice"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(more: dict[str, Any], words: str) -> None:
    sagemaker = FakePipeline()
    with pytest.raises(WorkbenchError, match=words) as caught:
        start(sagemaker, **more)
    assert caught.value.advice
    assert not sagemaker.started


@pytest.mark.parametrize("splits", [["train"], ["test"]])
def test_a_training_that_cannot_be_registered_or_done_is_not_started(splits: list[Any]) -> None:
    s3 = FakeS3({"models/manifests/a.json": manifest(*splits)})
    sagemaker = FakePipeline()
    with pytest.raises(DatasetInvalid):
        start(sagemaker, s3=s3)
    assert not sagemaker.started


def test_training_patients_are_measured_on_knowingly() -> None:
    sagemaker = FakePipeline()
    s3 = FakeS3({"models/manifests/a.json": manifest("train")})
    start(sagemaker, s3=s3, allow_training_patients=True)
    assert sagemaker.parameters["RequireHeldOut"] == "0"


def test_the_same_training_does_not_run_twice_at_a_time() -> None:
    first = FakePipeline()
    run = start(first).run
    assert first.started["PipelineExecutionDisplayName"] == run
    again = FakePipeline()
    one = {"PipelineExecutionArn": "arn:first", "PipelineExecutionDisplayName": run}
    again.executions = [{**one, "PipelineExecutionStatus": "Failed"}]
    start(again)
    assert again.started, "one that has ended is no obstacle"
    third = FakePipeline()
    third.executions = [{**one, "PipelineExecutionStatus": "Executing"}]
    with pytest.raises(WorkbenchError, match="runs already: arn:first") as caught:
        start(third)
    assert "--follow arn:first" in caught.value.advice
    assert not third.started
    start(third, steps=3)
    assert third.started, "another training is none of its business"


def test_who_may_not_list_executions_may_train(monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker, said = FakePipeline(), []
    monkeypatch.setattr(sagemaker, "get_paginator", denied)
    request = TrainingRequest(bundle="lung-segmentation", data=MANIFEST_URI)
    s3 = FakeS3({"models/manifests/a.json": manifest("train", "test")})
    start_training(deployment(sagemaker=sagemaker, s3=s3), request, progress=said.append)
    assert sagemaker.started
    assert any("not checked" in line for line in said)


def denied(_name: str) -> Any:
    raise error("AccessDeniedException")


def test_a_manifest_file_is_uploaded_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(manifest("train", "test"))
    s3, first, second = FakeS3(), FakePipeline(), FakePipeline()
    start(first, s3=s3, data=file)
    [key] = s3.objects
    assert first.parameters["ManifestUri"] == f"s3://{key}"
    assert key.startswith("models/manifests/mine-")
    start(second, s3=s3, data=file)
    assert second.parameters == first.parameters


def test_a_bundle_of_ones_own_is_packed_uploaded_once_and_trained(tmp_path: Path) -> None:
    folder = tmp_path / "my_bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    (folder / "configs" / "train.yaml").write_text("a: 1")
    objects = {"models/manifests/a.json": manifest("train", "test")}
    s3, sagemaker = FakeS3(objects), FakePipeline()
    started = start(sagemaker, s3=s3, bundle=str(folder))
    uri = sagemaker.parameters["Bundle"]
    assert uri == f"s3://models/bundles/{pack_bundle(folder).file_name}"
    assert s3.objects[uri.removeprefix("s3://")] == pack_bundle(folder).content
    again = FakePipeline()
    assert start(again, s3=s3, bundle=str(folder)).run == started.run
    (folder / "configs" / "train.yaml").write_text("a: 2")
    assert start(FakePipeline(), s3=s3, bundle=str(folder)).run != started.run
