"""What a training is asked for: a bundle, a manifest, parameters; checked before any machine is paid for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from healthimaging.manifest import Manifest
from workbench.datasets.make import store_manifest
from workbench.deployment import Deployment, TrainingTask
from workbench.errors import DatasetInvalid, WorkbenchError
from workbench.progress import Progress, silent
from workbench.served import pascal_case
from workbench.training.own_bundle import pack_bundle, upload_bundle
from workbench.training.pipeline import RUN, read_pipeline
from workbench.training.running import running_execution


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A training that one asks for.

    Attributes:
        bundle: A task ("lung-segmentation"), a bundle of the training image that one task trains
            ("ct_segmentation"), the S3 URI of a packed bundle, or the folder of a bundle of one's own.
        data: S3 URI of a dataset manifest, or a file with one.
        task: Which task's pipeline and registry; needed where `bundle` does not say it.
        overrides: Values for keys of the bundle's configuration: {"learning_rate": 0.001}.
        steps: Optimizer steps; None leaves it to the task.
        minimum_score: Below it the model is not registered; None leaves it to the task.
        instance_type: Machine of the training; None leaves it to the task.
        allow_training_patients: Register although it was measured on patients that the model has seen.
        parameters: Further parameters of the pipeline, by their names.
    """

    bundle: str
    data: str | Path
    task: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    minimum_score: float | None = None
    instance_type: str | None = None
    allow_training_patients: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StartedTraining:
    """A pipeline execution that was started."""

    task: TrainingTask
    execution_arn: str
    run: str
    """Name of its checkpoints; the same for the same training."""
    parameters: Mapping[str, str]
    """What the pipeline was given."""
    steps: int | None
    """Optimizer steps that it was asked for; None if the bundle decides."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Which task trains which bundle."""

    task: TrainingTask
    bundle: str = ""
    """Name or URI, as the parameter Bundle takes it; empty leaves it to the task."""
    folder: Path | None = None
    """A bundle of one's own, which has no URI yet."""


def start_training(
    deployment: Deployment, request: TrainingRequest, *, progress: Progress = silent
) -> StartedTraining:
    """Check a request, upload what it brings along, and start the pipeline.

    Raises:
        WorkbenchError: The request is wrong in itself, or the same training runs; nothing was started.
    """
    trained = choose_trained(deployment, request.bundle, request.task)
    task, bundle = trained.task, trained.bundle
    pipeline = read_pipeline(deployment, task)
    manifest = _read_manifest(deployment, request.data)
    _require_held_out(manifest, request)
    packed = pack_bundle(trained.folder) if trained.folder is not None else None
    values = _parameters(request)
    # What has to be uploaded has no URI yet: everything else is checked before it is.
    to_come = {"ManifestUri": "s3://", RUN: "0", **({"Bundle": "-"} if packed or bundle else {})}
    pipeline.check({**to_come, **values})
    if packed is not None:
        bundle = upload_bundle(deployment, packed)
        progress(f"bundle {bundle}")
    if bundle:
        values["Bundle"] = bundle
    values["ManifestUri"] = _manifest_uri(deployment, request.data, manifest)
    values[RUN] = values.get(RUN) or pipeline.run(values)
    running = running_execution(deployment, task, values[RUN], progress=progress)
    if running is not None:
        raise WorkbenchError(
            f"The same training runs already: {running}.",
            advice=f"Follow it: monai-aws train --follow {running}",
        )
    arn = str(
        deployment.session.client("sagemaker").start_pipeline_execution(
            PipelineName=task.pipeline,
            PipelineExecutionDisplayName=values[RUN],
            PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
            ClientRequestToken=uuid.uuid4().hex,
        )["PipelineExecutionArn"]
    )
    progress(f"pipeline execution {arn.rpartition('/')[2]} of {task.pipeline}, run {values[RUN]}")
    steps = pipeline.value("MaxSteps", values)
    return StartedTraining(
        task=task,
        execution_arn=arn,
        run=values[RUN],
        parameters=values,
        steps=int(steps) if steps.isdecimal() and int(steps) > 0 else None,
    )


def choose_trained(deployment: Deployment, bundle: str, task: str | None) -> Trained:
    """What the argument BUNDLE means.

    Raises:
        WorkbenchError: It names nothing, or something of several tasks.
    """
    named = deployment.session.environment.tasks
    if bundle.startswith("s3://"):
        return Trained(task=deployment.task(task), bundle=bundle)
    known = any(bundle in (one.name, one.bundle) for one in named)
    if "/" in bundle or "\\" in bundle or (not known and Path(bundle).is_dir()):
        return Trained(task=deployment.task(task), folder=Path(bundle))
    if task is not None:
        chosen = deployment.task(task)
        return Trained(task=chosen, bundle="" if pascal_case(bundle) == chosen.identifier else bundle)
    for one in deployment.tasks:
        if one.identifier == pascal_case(bundle):
            return Trained(task=one)
    of_bundle = [one.name for one in named if one.bundle == bundle]
    if len(of_bundle) == 1:
        return Trained(task=deployment.task(of_bundle[0]), bundle=bundle)
    tasks = ", ".join(f"{one.name} ({one.bundle})" for one in named) or "none"
    what = "the bundle of several tasks" if of_bundle else "no task, no bundle of a task, and no folder"
    raise WorkbenchError(
        f"{bundle!r} is {what}.",
        advice=f"Say with --task where its models belong. Tasks and their bundles: {tasks}.",
    )


def _parameters(request: TrainingRequest) -> dict[str, str]:
    """The pipeline's parameters as they were asked for; one that is given twice is a mistake."""
    options: dict[str, str] = {}
    if request.overrides:
        options["Overrides"] = json.dumps(dict(request.overrides), sort_keys=True)
    if request.steps is not None:
        options["MaxSteps"] = str(request.steps)
    if request.minimum_score is not None:
        options["MinimumScore"] = str(request.minimum_score)
    if request.instance_type is not None:
        options["InstanceType"] = request.instance_type
    if request.allow_training_patients:
        options["RequireHeldOut"] = "0"
    twice = sorted(options.keys() & request.parameters.keys())
    own = sorted({"ManifestUri", "Bundle"} & request.parameters.keys())
    if twice or own:
        raise WorkbenchError(
            f"{', '.join([*twice, *own])} {'is' if len([*twice, *own]) == 1 else 'are'} given twice.",
            advice="Leave out the --parameter where an argument or option says the same.",
        )
    return {**options, **request.parameters}


def _read_manifest(deployment: Deployment, data: str | Path) -> Manifest:
    uri = str(data)
    if not uri.startswith("s3://"):
        return Manifest.from_json(Path(data).read_bytes())
    return Manifest.from_json(json.dumps(deployment.session.read_json(uri)))


def _require_held_out(manifest: Manifest, request: TrainingRequest) -> None:
    """A training whose model the gate would refuse in any case is not worth its hours."""
    if not manifest.split("train"):
        raise DatasetInvalid(
            "The manifest has no case to train on.", advice="Make one whose split leaves training patients."
        )
    held_out = manifest.split("test") or manifest.split("validation")
    asked = request.parameters.get("RequireHeldOut", "1") != "0" and not request.allow_training_patients
    if asked and not held_out:
        raise DatasetInvalid(
            "The manifest holds no patient out: a model could only be measured on patients that it has seen.",
            advice="Make the data set with --test or --validation above 0, or name patients with "
            "--test-patient. To register such a model knowingly: --allow-training-patients.",
        )


def _manifest_uri(deployment: Deployment, data: str | Path, manifest: Manifest) -> str:
    if str(data).startswith("s3://"):
        return str(data)
    return store_manifest(deployment, manifest, name=Path(data).stem)
