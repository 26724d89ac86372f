"""One evaluation, as the deployed pipeline would start it, with the real container."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from role_training import StepFailed, resolved

if TYPE_CHECKING:
    from role_world import RoleWorld


def evaluate_model(world: RoleWorld) -> None:
    """A processing job of the deployed pipeline reads the model, the data set and the model that is approved,
    and stores its report.
    """
    world.approved  # noqa: B018 - there is something to compare with
    (step,) = [one for one in world.pipeline["Steps"] if one["Name"] == "Evaluate"]
    arguments = resolved(
        step["Arguments"],
        {
            "Parameters.ManifestUri": world.manifest_uri,
            "Steps.Train.ModelArtifacts.S3ModelArtifacts": world.model_uri,
            "Execution.PipelineExecutionId": uuid.uuid4().hex[:12],
        },
    )
    name = f"roles-{uuid.uuid4().hex[:12]}"
    sagemaker = world.client("sagemaker")
    sagemaker.create_processing_job(ProcessingJobName=name, **arguments)

    def ended() -> Any:
        job = sagemaker.describe_processing_job(ProcessingJobName=name)
        return job if job["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped") else None

    job = world.wait(ended)
    if job["ProcessingJobStatus"] != "Completed":
        raise StepFailed(f"{job.get('FailureReason')} {job.get('ExitMessage')}")
    [output] = arguments["ProcessingOutputConfig"]["Outputs"]
    report = world.deployment.session.read_json(output["S3Output"]["S3Uri"] + "/evaluation.json")
    # A comparison that was not possible does not fail the job: no model is registered on it, and it says why.
    # The one patient is one that the approved model was trained on: it is found and opened, not compared.
    told = json.dumps([report["baseline"], report.get("baselineReason")])
    if ":model-package/" not in told or "error" in (report["baseline"] or {}):
        raise StepFailed(told)
