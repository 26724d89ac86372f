"""What to watch of training: pipeline executions that fail."""

from __future__ import annotations

from infra.environment import Environment, Task
from infra.observability.alarms import Watch
from infra.observability.metrics import Reading, aws_metric


def pipeline_reading(environment: Environment, task: Task, metric: str, *, label: str) -> Reading:
    """A metric of the task's pipeline, whose name follows from the environment."""
    return aws_metric("AWS/Sagemaker/ModelBuildingPipeline", metric, "PipelineName").of(
        statistic="Sum", label=label, PipelineName=f"monai-{environment.name}-{task.name}"
    )


def training_watches(environment: Environment) -> tuple[Watch, ...]:
    """One alarm a task. A job that fails outside a pipeline is an event (`failures.py`)."""
    return tuple(
        Watch(
            id=f"{task.logical_name}PipelineFailed",
            happened=f"An execution of the pipeline that trains {task.name} failed.",
            advice="Its steps in Studio say where: in Reject, the new model is not good enough and was not "
            "registered (its evaluation says why); elsewhere, repair and retry the execution.",
            reading=pipeline_reading(environment, task, "ExecutionFailed", label=task.name),
            threshold=0,
        )
        for task in environment.training.tasks
    )
