"""The training pipeline: every step is a request that SageMaker's API model accepts, and a model is
registered only for reasons that the environment gives.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pipeline_documents
import pytest
from infra_assembly import Assembly
from sagemaker.core.shapes.model_card_shapes import ModelCardContent
from training_pipelines import EXAMPLE, all_steps, defaults, definitions_of, resolved, steps_by_name

from infra.environment import Task, load_environment
from infra.training.pipeline_definition import pipeline_definition
from infra.training.references import json_text
from infra.training.surroundings import Surroundings
from local.sagemaker.model_card import check_model_card


def around(**changed: Any) -> Surroundings:
    values = {
        "training_image": "training",
        "inference_image": "inference",
        "trainer_role_arn": "arn:aws:iam::111122223333:role/Trainer",
        "evaluator_role_arn": "arn:aws:iam::111122223333:role/Evaluator",
        "key_arn": "key",
        "network": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "model_package_group_name": "monai-prod-lung-segmentation",
        "training_uri": "s3://models/training/",
        "checkpoint_uri": "s3://models/checkpoints/lung-segmentation/",
        "evaluation_uri": "s3://models/evaluation/",
    }
    return Surroundings(**{**values, **changed})


def definition(**changed: Any) -> dict[str, Any]:
    """The definition of production's task, with some of the task's values changed."""
    [task] = load_environment("prod").training.tasks
    changed_task: Task = task.model_copy(update=changed)
    return pipeline_definition(task=changed_task, around=around())


def steps(**changed: Any) -> dict[str, dict[str, Any]]:
    return steps_by_name(definition(**changed))


def executed(step: str, *, task: dict[str, Any] | None = None, **parameters: Any) -> Any:
    """The arguments of a step in an execution."""
    found = definition(**(task or {}))
    return resolved(steps_by_name(found)[step]["Arguments"], defaults(found) | EXAMPLE | parameters)


def test_every_environment_has_a_sound_pipeline_for_each_task(assembly: Assembly) -> None:
    definitions = definitions_of(assembly)
    assert list(definitions) == [task.name for task in load_environment(assembly.environment).training.tasks]
    for found in definitions.values():
        assert list(pipeline_documents.pipeline(found)) == []
        assert {step["Name"]: step["Type"] for step in all_steps(found["Steps"])} == {
            "Train": "Training",
            "Evaluate": "Processing",
            "CheckQuality": "Condition",
            "Register": "RegisterModel",
            "Reject": "Fail",
        }


def test_the_parameters() -> None:
    assert {p["Name"]: (p["Type"], p.get("DefaultValue")) for p in definition()["Parameters"]} == {
        "ManifestUri": ("String", None),
        "Run": ("String", None),
        "Bundle": ("String", "ct_segmentation"),
        "Overrides": ("String", "{}"),
        "MaxSteps": ("Integer", 2000),
        "MinimumScore": ("Float", 0.9),
        "MinimumImprovement": ("Float", 0.0),
        "RequireHeldOut": ("Integer", 1),
        "InstanceType": ("String", "ml.g5.2xlarge"),
    }


def test_what_a_person_asks_for_reaches_the_training_as_strings() -> None:
    archive = "s3://models/bundles/mine-" + "a" * 64 + ".tar.gz"
    overrides = json.dumps({"learning_rate": 0.001})
    asked = executed("Train", Bundle=archive, Overrides=overrides, MaxSteps=7)
    assert asked["HyperParameters"] == {"bundle": archive, "overrides": overrides, "max_steps": "7"}
    set_by_task = executed("Train", task={"batch_size": 2, "accumulate": 4, "patience": 5})
    assert set_by_task["HyperParameters"] == {
        "bundle": "ct_segmentation",
        "overrides": "{}",
        "max_steps": "12",
        "batch_size": "2",
        "accumulate": "4",
        "patience": "5",
    }


def test_jobs_know_what_they_write_down_and_compare_with() -> None:
    assert executed("Train")["Environment"] == {"TRAINING_IMAGE": "training"}
    assert executed("Evaluate", task={"metric": "auc"})["Environment"] == {
        "MODEL_PACKAGE_GROUP": "monai-prod-lung-segmentation",
        "GATE_METRIC": "auc",
        "MODEL_ARCHIVE_URI": "s3://models/training/job/output/model.tar.gz",
    }


def test_metrics_are_read_from_what_training_prints() -> None:
    metrics = {
        one["Name"]: one["Regex"]
        for one in steps(metric="auc")["Train"]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    }

    def read(line: str) -> dict[str, float]:
        found = {name: re.search(regex, line) for name, regex in metrics.items()}
        return {name: float(match[1]) for name, match in found.items() if match}

    assert read("step=10 train_loss=0.31") == {"train:loss": 0.31}
    assert read("step=50 val_auc=0.93") == {"validation:auc": 0.93}
    assert read("step=10 input_wait_share=3e-03 seconds_per_step=0.21") == {
        "train:input_wait_share": 0.003,
        "train:seconds_per_step": 0.21,
    }
    lungs = steps()["Train"]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert "validation:mean_dice" in [one["Name"] for one in lungs]


def test_spot_capacity() -> None:
    spot = executed("Train", task={"spot": True, "max_runtime_minutes": 60, "max_wait_minutes": 90})
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5400}
    on_demand = executed("Train", task={"max_runtime_minutes": 60})
    assert "EnableManagedSpotTraining" not in on_demand
    assert on_demand["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}


def test_an_interrupted_training_goes_on_and_meets_no_other() -> None:
    # Only the URI: the container writes to SageMaker's default folder. With a slash at its end, because what
    # SageMaker brings to the machine is all that begins with it: run1 must not bring run12.
    assert executed("Train", Run="run1")["CheckpointConfig"] == {
        "S3Uri": "s3://models/checkpoints/lung-segmentation/run1/"
    }
    assert executed("Train", task={"instance_count": 2})["ResourceConfig"]["InstanceCount"] == 2


def test_the_same_training_is_not_done_twice_and_every_model_is_judged_anew() -> None:
    found = steps()
    assert found["Train"]["CacheConfig"] == {"Enabled": True, "ExpireAfter": "P30D"}
    assert [name for name, step in found.items() if "CacheConfig" in step] == ["Train"]
    # Nothing in what must be equal is of one execution: it would never be found again.
    assert "Execution." not in json.dumps(found["Train"]["Arguments"])
    # What only judges a model changes nothing of its training.
    judged = [
        executed("Train", MinimumScore=one, RequireHeldOut=0, MinimumImprovement=one) for one in (0.1, 1)
    ]
    assert judged[0] == judged[1] == executed("Train")


def test_what_waiting_or_another_machine_can_help_is_tried_again() -> None:
    tried = {
        name: {exception for policy in step["RetryPolicies"] for exception in policy["ExceptionType"]}
        for name, step in steps().items()
        if "RetryPolicies" in step
    }
    of_requests = {"Step.SERVICE_FAULT", "Step.THROTTLING"}
    of_jobs = of_requests | {
        "SageMaker.JOB_INTERNAL_ERROR",
        "SageMaker.CAPACITY_ERROR",
        "SageMaker.RESOURCE_LIMIT",
    }
    assert tried == {"Train": of_jobs, "Evaluate": of_jobs, "Register": of_requests}
    for step in steps().values():
        for policy in step.get("RetryPolicies", []):
            # SageMaker refuses a policy with both.
            assert ("MaxAttempts" in policy) is not ("ExpireAfterMin" in policy)


def registered(evaluation: dict[str, Any], **parameters: Any) -> bool:
    """Whether an evaluation of this content registers the model."""
    found = definition()
    values = defaults(found) | EXAMPLE | parameters
    holds = []
    for one in steps_by_name(found)["CheckQuality"]["Arguments"]["Conditions"]:
        assert one["Type"] == "GreaterThanOrEqualTo"
        score: Any = evaluation
        for part in one["LeftValue"]["Std:JsonGet"]["Path"].split("."):
            score = score[part]
        holds.append(score >= resolved(one["RightValue"], values))
    return all(holds)


@pytest.mark.parametrize(
    ("score", "held_out", "improvement", "parameters", "wanted"),
    [
        (0.92, 1, 0.01, {}, True),
        (0.9, 1, 0.0, {}, True),
        (0.89, 1, 0.01, {}, False),
        (0.92, 1, -0.01, {}, False),
        (0.92, 1, -0.01, {"MinimumImprovement": -0.02}, True),
        (0.99, 0, 0.2, {}, False),
        (0.99, 0, 0.2, {"RequireHeldOut": 0}, True),
        (0.89, 1, 0.01, {"MinimumScore": 0.85}, True),
    ],
)
def test_only_a_model_that_is_good_enough_on_unseen_patients_is_registered(
    score: float, held_out: int, improvement: float, parameters: dict[str, Any], wanted: bool
) -> None:
    evaluation = {
        "metrics": {"mean_dice": score, "auc": 0.0},
        "gate": {"heldOut": held_out, "improvement": improvement},
    }
    assert registered(evaluation, **parameters) is wanted


def test_a_rejection_says_what_was_wanted_and_where_to_read_what_was_reached() -> None:
    message = executed("Reject", MinimumScore=0.9)["ErrorMessage"]
    assert message.startswith("lung-segmentation: the model is not registered.")
    assert "mean_dice of at least 0.9," in message
    assert "improvement over the approved model of at least 0.0" in message
    assert "RequireHeldOut is not 0 (it is 1)" in message
    assert message.endswith("s3://models/evaluation/execution1/report.html")
    assert (
        len(message) < 3072
    )  # https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html


def test_a_model_waits_for_approval_with_its_evaluation() -> None:
    register = executed("Register")
    assert register["ModelApprovalStatus"] == "PendingManualApproval"
    assert register["ModelPackageGroupName"] == "monai-prod-lung-segmentation"
    [output] = executed("Evaluate")["ProcessingOutputConfig"]["Outputs"]
    written = output["S3Output"]["S3Uri"]
    assert written == "s3://models/evaluation/execution1"
    shown = register["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert shown == f"{written}/evaluation.json"
    assert register["CustomerMetadataProperties"] == {
        "manifestUri": "s3://models/manifests/a.json",
        "evaluationUri": shown,
        "trainingJob": "pipelines-execution1-train",
    }
    # What SageMaker allows in these values.
    assert all(
        re.fullmatch(r"[\w\s.:/=+\-@]{1,256}", one) for one in register["CustomerMetadataProperties"].values()
    )


def test_a_model_card_says_where_the_model_comes_from() -> None:
    card = executed("Register")["ModelCard"]
    assert card["ModelCardStatus"] == "Draft"
    content = json.loads(card["ModelCardContent"])
    # The schema of packages' cards, and that of all cards as SageMaker's SDK has it.
    check_model_card(card)
    parsed = ModelCardContent.model_validate(content)
    assert parsed.model_dump(mode="json", exclude_unset=True) == content
    # "simplified compared to the schema of ModelCard" (API reference, ModelPackageModelCard)
    assert set(content["model_overview"]) == {"model_creator", "model_artifact"}
    assert "model_package_details" not in content
    training = content["training_details"]["training_job_details"]
    assert training["training_arn"].endswith(":training-job/pipelines-execution1-train")
    assert training["training_datasets"] == ["s3://models/manifests/a.json"]
    assert {"name": "max_steps", "value": "12"} in training["user_provided_hyper_parameters"]
    [evaluation] = content["evaluation_details"]
    lowered = executed("Register", MinimumScore=0.1, MinimumImprovement=-1.0, RequireHeldOut=0)["ModelCard"]
    told = json.loads(lowered["ModelCardContent"])["additional_information"]["custom_details"]
    assert (told["minimum score"], told["minimum improvement"]) == ("0.1", "-1.0")
    assert told["held-out patients required"] == "0"
    check_model_card(lowered)
    assert evaluation["metadata"]["report"] == "s3://models/evaluation/execution1/report.html"


def test_a_document_with_references_is_json_when_they_are_filled_in() -> None:
    text = json_text(
        {"a": [{"Get": "Parameters.Run"}, 1], "b": {"c": '"{x}"'}, "d": {"Get": "Parameters.Run"}}
    )
    assert json.loads(resolved(text, {"Run": "r"})) == {"a": ["r", 1], "b": {"c": '"{x}"'}, "d": "r"}
