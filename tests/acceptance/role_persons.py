"""What people do with the workbench, in the role of their persona."""

from __future__ import annotations

import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from role_training import ROLE_TASK, StepFailed
from role_world import RoleWorld

from healthimaging.reference import ImageSetRef
from workbench.approve import mark_approved
from workbench.compare import compare
from workbench.datasets.make import Division, make_dataset
from workbench.datasets.selection import default_sql
from workbench.dead_letters.letters import list_dead_letters, replay_dead_letters
from workbench.demo.label import SERIES_DESCRIPTION
from workbench.ingest import Options, ingest
from workbench.log_tail import TRAINING_JOBS, endpoint_log_group, log_tail
from workbench.named_queries import named_queries
from workbench.predicting.batch import predict_batch
from workbench.predicting.predict import predict
from workbench.query import query
from workbench.show import show
from workbench.showing.viewer import write_viewer
from workbench.training.execution import execution_parameters
from workbench.training.pipeline import read_pipeline
from workbench.training.running import running_execution

SCIENTIST = "studio/DataScientist"
REVIEWER = "studio/ModelReviewer"
INTEGRATOR = "studio/ClinicalIntegrator"


def ask_the_catalog(world: RoleWorld) -> None:
    """`monai-aws query`, and `--list`"""
    person = world.as_persona(SCIENTIST)
    if not named_queries(person):
        raise StepFailed("no named queries")
    result = query(person, "SELECT count(*) AS n FROM series")
    if not result.rows:
        raise StepFailed("no rows")


def interrupt_a_query(world: RoleWorld) -> None:
    """`monai-aws query`, and Ctrl-C as soon as it says that it has started"""
    told: list[str] = []

    def interrupt(line: str) -> None:
        told.append(line)
        if len(told) == 1:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        query(world.as_persona(SCIENTIST), "SELECT count(*) AS n FROM instances", progress=interrupt)
    if not told[-1].endswith("stopped"):
        raise StepFailed(told[-1])


def make_a_dataset(world: RoleWorld) -> None:
    """`monai-aws dataset`, and reading it again"""
    person = world.as_persona(SCIENTIST)
    sql = default_sql(patients=[world.study.patient.patient_id], label_description=SERIES_DESCRIPTION)
    name = f"person-{uuid.uuid4().hex[:8]}"
    made = make_dataset(person, sql, name=name, division=Division(validation=0.0))
    if not person.session.read_json(made.uri)["cases"]:
        raise StepFailed("the manifest has no cases")


def _look(world: RoleWorld, role: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shown = show(world.as_persona(role), world.image_set[1], folder=Path(folder))
    if shown.png is None:
        raise StepFailed(shown.note)


def _view(world: RoleWorld, role: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        viewed = write_viewer(world.as_persona(role), world.image_set[1], folder=Path(folder))
    # Without the permission the page is written, and says what it lacks.
    lacking = [note for note in viewed.notes if "Nobody looked for segmentations" in note]
    if lacking:
        raise StepFailed(lacking[0])


def look_at_images(world: RoleWorld) -> None:
    """`monai-aws show`"""
    _look(world, SCIENTIST)


def view_images(world: RoleWorld) -> None:
    """`monai-aws show --viewer`"""
    _view(world, SCIENTIST)


def start_training(world: RoleWorld) -> None:
    """What `monai-aws train` calls: read the pipeline, start, find it running, watch, and stop"""
    person = world.as_persona(SCIENTIST)
    sagemaker = person.session.client("sagemaker")
    pipeline = read_pipeline(person, person.task(ROLE_TASK))
    # A run of its own: it begins to train, and does not find another's training.
    values = {"ManifestUri": world.manifest_uri, "Run": uuid.uuid4().hex[:12]}
    arn = sagemaker.start_pipeline_execution(
        PipelineName=pipeline.name,
        PipelineExecutionDisplayName=values["Run"],
        PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
        ClientRequestToken=uuid.uuid4().hex,
    )["PipelineExecutionArn"]
    try:
        sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)
        told: list[str] = []
        task = person.task(ROLE_TASK)
        if running_execution(person, task, values["Run"], progress=told.append) != arn:
            raise StepFailed(f"the running training is not found: {told}")
        if execution_parameters(person, arn)["Run"] != values["Run"]:
            raise StepFailed("it runs with other parameters")
        sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    except Exception:
        world.client("sagemaker").stop_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex
        )
        raise
    finally:
        world.over(arn)


def read_training_results(world: RoleWorld) -> None:
    """`monai-aws compare`, and what the training printed"""
    person = world.as_persona(SCIENTIST)
    registered = world.package
    if registered not in [one.arn for one in compare(person, task=ROLE_TASK).packages]:
        raise StepFailed("the newest package is not shown")
    if not log_tail(person.session, group=TRAINING_JOBS):
        raise StepFailed("the training printed nothing")


def approve_a_model(world: RoleWorld) -> None:
    """`monai-aws approve --no-deploy`, after reading the package and the data set it was trained on"""
    waiting = world.register()
    person = world.as_persona(REVIEWER)
    person.session.client("sagemaker").describe_model_package(ModelPackageName=waiting)
    person.session.read_json(world.manifest_uri)
    if mark_approved(person, task=ROLE_TASK) != waiting:
        raise StepFailed("another package was approved")


def bring_in_a_study(world: RoleWorld) -> None:
    """`monai-aws ingest`, by somebody without a journal: with one, the job of an earlier step would do"""
    with tempfile.TemporaryDirectory() as folder:
        report = ingest(
            world.as_persona(INTEGRATOR),
            world.study.images,
            options=Options(again=True, journal=Path(folder) / "journal.sqlite"),
        )
    if not report.ok:
        raise StepFailed(str([one.reason for one in report.failed]))


def look_at_a_study(world: RoleWorld) -> None:
    """`monai-aws show`"""
    _look(world, INTEGRATOR)


def view_a_study(world: RoleWorld) -> None:
    """`monai-aws show --viewer`"""
    _view(world, INTEGRATOR)


def ask_at_once(world: RoleWorld) -> None:
    """`monai-aws predict --endpoint ...` of an endpoint in real time, about a version that has no result"""
    world.endpoint  # noqa: B018 - everything that serves the task is deployed with it
    answer = predict(
        world.as_persona(INTEGRATOR),
        _new_version(world),
        endpoint="lung-segmentation-now",
        timeout_seconds=20,
    )
    if answer.non_primary:
        raise StepFailed(f"not primary: {answer.non_primary}")


def ask_for_a_batch(world: RoleWorld) -> None:
    """`monai-aws predict --batch`, about a version that has no result"""
    world.endpoint  # noqa: B018 - everything that serves the task is deployed with it
    person, image = world.as_persona(INTEGRATOR), _new_version(world)
    result = predict_batch(person, [image], every_seconds=0.3, timeout_seconds=60)
    if not result.ok:
        raise StepFailed(" ".join([result.failures[0].reason, *result.log]))


def _new_version(world: RoleWorld) -> ImageSetRef:
    [images] = ingest(world.deployment, world.study.images, options=Options(again=True)).image_sets
    return ImageSetRef(
        datastore_id=world.image_set[0],
        image_set_id=images.image_set_id,
        version_id=str(images.version_id),
    )


def repair_what_was_missed(world: RoleWorld) -> None:
    """`monai-aws dead-letters list` and `replay`"""
    sqs, outputs = world.client("sqs"), world.deployment.stack("inference")
    # Of an image set that there is not: when it is sent again, the function passes it over.
    body = world.message("Image Set Created", uuid.uuid4().hex)["Records"][0]["body"]
    sent = sqs.send_message(QueueUrl=outputs["DispatchDeadLetterQueueUrl"], MessageBody=body)["MessageId"]
    person = world.as_persona(INTEGRATOR)
    if sent not in [one.id for one in list_dead_letters(person)]:
        raise StepFailed("it is not listed")
    replay_dead_letters(person, [sent])
    if sent in [one.id for one in list_dead_letters(world.deployment)]:
        raise StepFailed("it is still there")


def ask_for_a_segmentation(world: RoleWorld) -> None:
    """`monai-aws predict`, and the endpoint's log"""
    endpoint = world.endpoint
    datastore, image_set = world.image_set
    version = world.client("medical-imaging").get_image_set(datastoreId=datastore, imageSetId=image_set)
    person = world.as_persona(INTEGRATOR)
    reference = ImageSetRef(datastore_id=datastore, image_set_id=image_set, version_id=version["versionId"])
    predict(person, reference, every_seconds=0.1, timeout_seconds=20)
    if not log_tail(person.session, group=endpoint_log_group(endpoint)):
        raise StepFailed("the endpoint printed nothing")
