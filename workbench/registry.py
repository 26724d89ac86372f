"""The model packages of a task, with what was measured of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workbench.deployment import Deployment, TrainingTask
from workbench.errors import WorkbenchError
from workbench.training.evaluation import Evaluation, evaluation_of

PENDING = "PendingManualApproval"


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """One version of a task's model."""

    arn: str
    version: int | None
    status: str
    """Approved, Rejected or PendingManualApproval."""
    created: datetime
    model_uri: str
    """Of the archive with the weights."""
    manifest_uri: str
    training_job: str
    evaluation: Evaluation | None
    problem: str = ""
    """Why the evaluation could not be read; empty if it could, or if there is none."""

    def to_json(self) -> dict[str, object]:
        return {
            "modelPackageArn": self.arn,
            "version": self.version,
            "status": self.status,
            "created": self.created.isoformat(),
            "modelUri": self.model_uri or None,
            "manifestUri": self.manifest_uri or None,
            "trainingJob": self.training_job or None,
            "evaluation": self.evaluation.to_json() if self.evaluation else None,
            "problem": self.problem or None,
        }


def read_package(deployment: Deployment, arn: str) -> ModelPackage:
    """One package with its evaluation."""
    described: Mapping[str, Any] = deployment.session.client("sagemaker").describe_model_package(
        ModelPackageName=arn
    )
    evaluation, problem = None, ""
    try:
        evaluation = evaluation_of(deployment.session, described)
    except WorkbenchError as error:
        problem = error.message
    containers = described.get("InferenceSpecification", {}).get("Containers", [{}])
    properties = described.get("CustomerMetadataProperties", {})
    return ModelPackage(
        arn=str(described.get("ModelPackageArn", arn)),
        version=described.get("ModelPackageVersion"),
        status=str(described.get("ModelApprovalStatus", "")),
        created=described["CreationTime"],
        model_uri=str(containers[0].get("ModelDataUrl", "")),
        manifest_uri=str(properties.get("manifestUri", "")),
        training_job=str(properties.get("trainingJob", "")).rpartition("/")[2],
        evaluation=evaluation,
        problem=problem,
    )


def newest_packages(
    deployment: Deployment, task: TrainingTask, *, limit: int, status: str | None = None
) -> tuple[str, ...]:
    """ARNs of the newest packages of a task's group, the newest first."""
    only = {"ModelApprovalStatus": status} if status else {}
    answer = deployment.session.client("sagemaker").list_model_packages(
        ModelPackageGroupName=task.model_package_group,
        SortBy="CreationTime",
        SortOrder="Descending",
        MaxResults=limit,
        **only,
    )
    return tuple(str(one["ModelPackageArn"]) for one in answer["ModelPackageSummaryList"])


def tasks_with_pending(deployment: Deployment, tasks: Iterable[TrainingTask]) -> tuple[TrainingTask, ...]:
    """Those of which a package waits for approval."""
    return tuple(task for task in tasks if newest_packages(deployment, task, limit=1, status=PENDING))
