"""Whether a trained model is registered, and as what."""

from __future__ import annotations

from typing import Any

from infra.environment import Task
from infra.training import retries
from infra.training.model_card import model_card
from infra.training.references import Reference, join, of_step, parameter
from infra.training.surroundings import EVALUATION_FILE, Surroundings


def check_quality(*, task: Task, around: Surroundings) -> dict[str, Any]:
    """The step that registers a model, or fails the execution with what would have been needed.

    One step with three conditions, because conditions cannot be nested
    (https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-condition),
    and a step that fails cannot read the evaluation: which of the three did not hold, the evaluation's own
    report says.
    """
    return {
        "Name": "CheckQuality",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                _at_least("gate.heldOut", parameter("RequireHeldOut")),
                _at_least(f"metrics.{task.metric}", parameter("MinimumScore")),
                _at_least("gate.improvement", parameter("MinimumImprovement")),
            ],
            "IfSteps": [_register(around=around)],
            "ElseSteps": [_reject(task=task, around=around)],
        },
    }


def _at_least(path: str, least: Reference) -> dict[str, Any]:
    found = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
            "Path": path,
        }
    }
    return {"Type": "GreaterThanOrEqualTo", "LeftValue": found, "RightValue": least}


def _reject(*, task: Task, around: Surroundings) -> dict[str, Any]:
    return {
        "Name": "Reject",
        "Type": "Fail",
        "Arguments": {
            "ErrorMessage": join(
                f"{task.name}: the model is not registered. Wanted are {task.metric} of at least ",
                parameter("MinimumScore"),
                ", an improvement over the approved model of at least ",
                parameter("MinimumImprovement"),
                ", and, where RequireHeldOut is not 0 (it is ",
                parameter("RequireHeldOut"),
                "), patients that training has not seen. What it reached: ",
                around.in_evaluation("report.html"),
            )
        },
    }


def _register(*, around: Surroundings) -> dict[str, Any]:
    archive = of_step("Train", "ModelArtifacts.S3ModelArtifacts")
    evaluation = around.in_evaluation(EVALUATION_FILE)
    return {
        "Name": "Register",
        "Type": "RegisterModel",
        "RetryPolicies": retries.OF_REQUESTS,
        "Arguments": {
            "ModelPackageGroupName": around.model_package_group_name,
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [{"Image": around.inference_image, "ModelDataUrl": archive}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            "ModelMetrics": {
                "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation}}
            },
            "ModelCard": {
                "ModelCardContent": model_card(around=around, archive=archive),
                "ModelCardStatus": "Draft",
            },
            "CustomerMetadataProperties": {
                "manifestUri": parameter("ManifestUri"),
                "evaluationUri": evaluation,
                "trainingJob": of_step("Train", "TrainingJobName"),
            },
        },
    }
