"""Whether the same training runs already: two of them would pay twice and write the same checkpoints."""

from __future__ import annotations

from botocore.exceptions import ClientError

from workbench.deployment import Deployment, TrainingTask
from workbench.failures import ACCESS_DENIED
from workbench.progress import Progress

RUNNING = frozenset({"Executing", "Stopping"})


def running_execution(
    deployment: Deployment, task: TrainingTask, run: str, *, progress: Progress
) -> str | None:
    """ARN of an execution of `run` that has not ended; None if there is none.

    Executions are started with the run as their display name. Whoever may not list them is told so, and is
    not kept from training.
    """
    client = deployment.session.client("sagemaker")
    try:
        pages = client.get_paginator("list_pipeline_executions").paginate(
            PipelineName=task.pipeline, SortBy="CreationTime", SortOrder="Descending"
        )
        for page in pages:
            for one in page["PipelineExecutionSummaries"]:
                if (
                    one.get("PipelineExecutionDisplayName") == run
                    and one["PipelineExecutionStatus"] in RUNNING
                ):
                    return str(one["PipelineExecutionArn"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ACCESS_DENIED:
            raise
        progress("not checked whether the same training runs already: ListPipelineExecutions is not allowed")
    return None
