"""The workbench reads the pipelines that infra/training defines: parameters, conditions, files, runs."""

from __future__ import annotations

import pytest

from infra.environment import load_environment
from infra.training.pipeline_definition import pipeline_definition
from infra.training.surroundings import Surroundings
from workbench.errors import WorkbenchError
from workbench.training.pipeline import Pipeline
from workbench.training.refusal import refusal

AROUND = Surroundings(
    training_image="training:1",
    inference_image="runtime:1",
    trainer_role_arn="arn:trainer",
    evaluator_role_arn="arn:evaluator",
    key_arn="arn:key",
    network={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    model_package_group_name="models",
    training_uri="s3://models/training/",
    checkpoint_uri="s3://models/checkpoints/lungs/",
    evaluation_uri="s3://models/evaluation/",
)
TASKS = {task.name: task for task in load_environment("local").training.tasks}
GIVEN = {"ManifestUri": "s3://models/manifests/a.json", "Run": "r"}


@pytest.fixture(params=sorted(TASKS))
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    task = TASKS[request.param]
    return Pipeline(name=task.name, definition=pipeline_definition(task=task, around=AROUND))


def test_what_train_gives_is_what_the_pipeline_takes(pipeline: Pipeline) -> None:
    given = {
        **GIVEN,
        "Bundle": "b",
        "Overrides": "{}",
        "MaxSteps": "3",
        "MinimumScore": "0.5",
        "MinimumImprovement": "-1",
        "RequireHeldOut": "0",
        "InstanceType": TASKS[pipeline.name].instance_type,
    }
    pipeline.check(given)
    with pytest.raises(WorkbenchError, match="Run has no value"):
        pipeline.check({"ManifestUri": "s3://m"})


def test_the_evaluation_is_found_where_the_pipeline_puts_it(pipeline: Pipeline) -> None:
    assert pipeline.evaluation_folder("abc", GIVEN) == "s3://models/evaluation/abc"


def test_each_condition_of_the_pipeline_is_held_against_the_evaluation(pipeline: Pipeline) -> None:
    metric = TASKS[pipeline.name].metric
    good = {"metrics": {metric: 1.0}, "gate": {"heldOut": 1, "improvement": 0.0}}
    assert refusal(pipeline, good, GIVEN) is None
    bad = {"metrics": {metric: 0.0}, "gate": {"heldOut": 0, "improvement": -0.1}}
    found = refusal(pipeline, bad, GIVEN)
    assert found is not None
    paths = sorted(reason.partition(" ")[0] for reason in found.reasons)
    assert paths == ["gate.heldOut", "gate.improvement", f"metrics.{metric}"]
    assert len(found.advice) == 3


def test_a_run_is_of_what_is_trained_and_not_of_what_judges(pipeline: Pipeline) -> None:
    run = pipeline.run(GIVEN)
    assert pipeline.run({**GIVEN, "Run": "another", "MinimumScore": "0"}) == run
    changed = [{"MaxSteps": "3"}, {"Bundle": "b"}, {"Overrides": '{"a": 1}'}, {"ManifestUri": "s3://n"}]
    assert len({run, *(pipeline.run({**GIVEN, **one}) for one in changed)}) == 5
