"""A Condition step of several conditions over a nested evaluation: what is registered, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sagemaker_pipeline_runs import finished, make_pipeline, start, steps
from sagemaker_pipeline_steps import PROGRAM, definition, pipeline_statements
from sagemaker_workbench import Workbench

from local.sagemaker.conditions import ConditionError, hold


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


def evaluation(path: str) -> dict[str, Any]:
    """A value of the evaluation's file."""
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"}, "Path": path}}


@pytest.fixture(scope="module")
def pipeline(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pipeline with three conditions, whose Fail step says what it saw."""
    group = f"{bench.name}-models"
    bench.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    image = bench.image(tmp_path_factory.mktemp("image"), PROGRAM, tag="both")
    document = definition(bench, image, group)
    document["Parameters"] += [
        {"Name": "RequireHeldOut", "Type": "Integer", "DefaultValue": 1},
        {"Name": "MinimumImprovement", "Type": "Float", "DefaultValue": 0.0},
    ]
    check = document["Steps"][2]["Arguments"]
    for path, parameter in (("gate.heldOut", "RequireHeldOut"), ("gate.improvement", "MinimumImprovement")):
        check["Conditions"].append(
            {
                "Type": "GreaterThanOrEqualTo",
                "LeftValue": evaluation(path),
                "RightValue": {"Get": f"Parameters.{parameter}"},
            }
        )
    check["ElseSteps"][0]["Arguments"]["ErrorMessage"] = {
        "Std:Join": {
            "On": "",
            "Values": [
                "held out ",
                evaluation("gate.heldOut"),
                ", better by ",
                evaluation("gate.improvement"),
            ],
        }
    }
    return make_pipeline(bench, "gated", document, bench.make_role("gate", pipeline_statements(bench)))


def run(bench: Workbench, pipeline: str, name: str, gate: dict[str, Any], **parameters: str) -> Any:
    manifest = {"dice": 0.9, "evaluation": {"gate": gate}}
    uri = bench.put(f"manifests/{name}/m.json", json.dumps(manifest))
    arn = start(bench, pipeline, 0.9, ManifestUri=uri, **parameters)
    return finished(bench, arn), steps(bench, arn)


def test_all_conditions_must_hold(bench: Workbench, pipeline: str) -> None:
    done, ran = run(bench, pipeline, "good", {"heldOut": 1, "improvement": 0.02})
    assert done["PipelineExecutionStatus"] == "Succeeded"
    assert "Register" in ran
    failed, ran = run(bench, pipeline, "seen", {"heldOut": 0, "improvement": 0.02})
    assert failed["FailureReason"] == "held out 0, better by 0.02"
    assert "Register" not in ran
    done, ran = run(bench, pipeline, "allowed", {"heldOut": 0, "improvement": 0}, RequireHeldOut="0")
    assert done["PipelineExecutionStatus"] == "Succeeded"
    failed, _ = run(
        bench, pipeline, "no-better", {"heldOut": 1, "improvement": 0.02}, MinimumImprovement="0.05"
    )
    assert failed["FailureReason"] == "held out 1, better by 0.02"


def test_a_value_that_is_missing_or_null_fails_the_step(bench: Workbench, pipeline: str) -> None:
    failed, ran = run(bench, pipeline, "null", {"heldOut": 1, "improvement": None})
    assert failed["PipelineExecutionStatus"] == "Failed"
    assert ran["CheckQuality"]["StepStatus"] == "Failed"
    reason = "ClientError: GreaterThanOrEqualTo compares numbers, got null and 0.0"
    assert ran["CheckQuality"]["FailureReason"] == reason
    _, ran = run(bench, pipeline, "missing", {"heldOut": 1})
    assert (
        ran["CheckQuality"]["FailureReason"] == "ClientError: nothing at 'improvement' of 'gate.improvement'"
    )
    assert "Register" not in ran
    assert "Fail" not in ran


def test_a_condition_that_cannot_be_decided_is_no_matter_of_order() -> None:
    no = {"Type": "GreaterThan", "LeftValue": 1, "RightValue": 2}
    undecided = {"Type": "LessThan", "LeftValue": None, "RightValue": 2}
    assert not hold([no, {"Type": "Equals", "LeftValue": None, "RightValue": 2}])
    with pytest.raises(ConditionError, match="got null and 2"):
        hold([no, undecided])
