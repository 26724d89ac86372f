"""One training job, as the deployed pipeline would start it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from role_world import RoleWorld

ROLE_TASK = "lung-segmentation"
"""The task whose pipeline and endpoint show what roles may do."""
ROLE_MACHINE = "ml.m5.xlarge"
"""The machine of the environment `local`."""


class StepFailed(AssertionError):
    """A piece of work did not succeed; the text is what its log or answer says."""


def train_model(world: RoleWorld) -> str:
    """A training job of the deployed pipeline reads the data set and stores a model; its URI."""
    arguments = resolved(
        world.pipeline["Steps"][0]["Arguments"],
        {
            "Parameters.ManifestUri": world.manifest_uri,
            "Parameters.Run": uuid.uuid4().hex[:12],
            "Parameters.Bundle": "ct_segmentation",
            "Parameters.Overrides": "{}",
            "Parameters.MaxSteps": "1",
            "Parameters.InstanceType": ROLE_MACHINE,
        },
    )
    name = f"roles-{uuid.uuid4().hex[:12]}"
    sagemaker = world.client("sagemaker")
    sagemaker.create_training_job(TrainingJobName=name, **arguments)

    def ended() -> Any:
        job = sagemaker.describe_training_job(TrainingJobName=name)
        return job if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

    job = world.wait(ended)
    if job["TrainingJobStatus"] != "Completed":
        raise StepFailed(str(job.get("FailureReason")))
    return str(job["ModelArtifacts"]["S3ModelArtifacts"])


def resolved(value: Any, names: Mapping[str, str]) -> Any:
    """A step's arguments with the pipeline's references replaced."""
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            return names[value["Get"]]
        if set(value) == {"Std:Join"}:
            return value["Std:Join"]["On"].join(
                str(resolved(one, names)) for one in value["Std:Join"]["Values"]
            )
        return {key: resolved(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [resolved(one, names) for one in value]
    return value
