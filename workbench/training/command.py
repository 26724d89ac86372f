"""`monai-aws train`: starts a training, or follows or stops one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from workbench.command_line import Env, Json, TaskName, deployment_of, name_and_value, reporting
from workbench.deployment import Deployment
from workbench.environment import REPOSITORY
from workbench.errors import WorkbenchError
from workbench.output import Output
from workbench.training.evaluation_files import EvaluationFiles, download_evaluation
from workbench.training.execution import execution_arn
from workbench.training.live_line import live_progress
from workbench.training.request import TrainingRequest, start_training
from workbench.training.train import TrainingResult, follow_training, stop_training

REPORTS = REPOSITORY / "build" / "training"
"""Where the evaluation of an execution is put, in a folder of the execution's id."""

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C has ended."""


def train_command(
    bundle: Annotated[
        str | None,
        typer.Argument(
            help="Task; or a bundle that a task trains; or the folder of a bundle of your own, or its S3 URI."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Dataset manifest: S3 URI, or a file, which is uploaded.")
    ] = None,
    env: Env = "local",
    as_json: Json = False,
    task: TaskName = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE of the bundle's configuration, VALUE as JSON or text; repeatable."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, if not the task's.")] = None,
    minimum_score: Annotated[
        float | None, typer.Option(help="Score that registers a model, if not the task's.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(help="Machine of the training, if not the task's first.")
    ] = None,
    allow_training_patients: Annotated[
        bool,
        typer.Option(
            "--allow-training-patients", help="Register although it was measured on patients it has seen."
        ),
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="Any other pipeline parameter NAME=VALUE, as MinimumImprovement; repeatable."),
    ] = None,
    follow: Annotated[
        str | None, typer.Option(help="Start nothing: follow this execution, by ARN or id.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(help="Start nothing: stop this execution, by ARN or id.")
    ] = None,
) -> None:
    """Train, evaluate and register a model; fails if the quality gate refuses it."""
    output = Output(as_json)
    with reporting(output):
        chosen = [one for one in (bundle or data, follow, stop) if one is not None]
        if len(chosen) != 1 or bool(bundle) != bool(data):
            raise WorkbenchError(
                "A training has a bundle and data; --follow and --stop have neither, and exclude each other.",
                advice="monai-aws train BUNDLE --data MANIFEST, or monai-aws train --follow EXECUTION",
            )
        deployment = deployment_of(env)
        if stop is not None:
            arn = execution_arn(deployment, stop, task=task)
            stop_training(deployment, arn)
            output.result(
                {"executionArn": arn, "stopping": True},
                ["stopping; the same training goes on from its last checkpoint"],
            )
            return
        total: int | None = None
        parameters: Mapping[str, str] | None = None
        if bundle is not None and data is not None:
            request = TrainingRequest(
                bundle=bundle,
                data=data,
                task=task,
                overrides=dict(_override(one) for one in override or []),
                steps=steps,
                minimum_score=minimum_score,
                instance_type=instance_type,
                allow_training_patients=allow_training_patients,
                parameters=dict(
                    name_and_value(one, option="--parameter MinimumImprovement=0.01")
                    for one in parameter or []
                ),
            )
            started = start_training(deployment, request, progress=output.progress)
            arn, total, parameters = started.execution_arn, started.steps, started.parameters
        else:
            arn = execution_arn(deployment, str(follow), task=task)
        _follow(deployment, arn, parameters=parameters, total=total, output=output, env=env)


def _follow(
    deployment: Deployment,
    arn: str,
    *,
    parameters: Mapping[str, str] | None,
    total: int | None,
    output: Output,
    env: str,
) -> None:
    try:
        with live_progress(
            output.errors, output.progress, total=total, wanted=not output.as_json
        ) as progress:
            result = follow_training(deployment, arn, parameters=parameters, progress=progress)
    except KeyboardInterrupt:
        _say_how_to_come_back(arn, output=output, env=env)
        raise typer.Exit(INTERRUPTED) from None
    except (BotoCoreError, ClientError) as error:
        # A network that is gone or a sign-in that ran out ends the following and not the training.
        if not (isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFound"):
            _say_how_to_come_back(arn, output=output, env=env)
        raise
    files = None
    if result.evaluation is not None:
        folder = REPORTS / arn.rpartition("/")[2]
        files = download_evaluation(deployment.session, result.evaluation, folder)
    document = {**result.to_json(), "files": files.to_json() if files else None}
    output.result(document, _lines(result, files))


def _say_how_to_come_back(arn: str, *, output: Output, env: str) -> None:
    output.errors.print(
        f"\nThe training goes on in SageMaker.\n"
        f"  follow: monai-aws train --follow {arn} --env {env}\n"
        f"  stop:   monai-aws train --stop {arn} --env {env}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _lines(result: TrainingResult, files: EvaluationFiles | None) -> Iterator[str]:
    yield result.model_package_arn
    cached = [step.name for step in result.steps if step.cached_from]
    if cached:
        yield f"  not run again, the result was there: {', '.join(cached)}"
    if result.evaluation is not None:
        measured = result.evaluation
        yield from (f"  {line}" for line in measured.lines())
        if measured.held_out_reason:
            yield f"  {measured.held_out_reason}."
        if measured.baseline and measured.improvement is not None:
            approved = measured.baseline.partition(":model-package/")[2]
            yield f"  {measured.improvement:+.4f} against the approved {approved}"
        yield f"  evaluation: {measured.uri}"
    if files is not None and files.report is not None:
        yield f"  report: {files.report}"
    if result.model_card:
        where = f": {files.model_card}" if files is not None and files.model_card else ", in the package"
        yield f"  model card ({result.model_card.lower()}){where}"


def _override(text: str) -> tuple[str, Any]:
    name, value = name_and_value(text, option="--set learning_rate=0.001")
    try:
        return name, json.loads(value)
    except ValueError:
        # Text needs no quotes; what looks like broken JSON is no text.
        if re.match(r"""[\[{"]""", value):
            raise WorkbenchError(
                f"The value of --set {name} is not JSON.",
                advice="""Quote it for the shell, for example --set 'channels=[16, 32]'""",
            ) from None
        return name, value
