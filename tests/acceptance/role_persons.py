"""What people do with the workbench, in the role of their persona."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from role_training import StepFailed
from role_world import RoleWorld

from healthimaging.reference import ImageSetRef
from workbench.approve import mark_approved
from workbench.dataset import default_sql, make_dataset
from workbench.demo.label import SERIES_DESCRIPTION
from workbench.ingest import ingest
from workbench.log_tail import TRAINING_JOBS, endpoint_log_group, log_tail
from workbench.predict import predict
from workbench.query import query
from workbench.show import show

SCIENTIST = "studio/DataScientist"
REVIEWER = "studio/ModelReviewer"
INTEGRATOR = "studio/ClinicalIntegrator"


def ask_the_catalog(world: RoleWorld) -> None:
    """`monai-aws query`"""
    result = query(world.as_persona(SCIENTIST), "SELECT count(*) AS n FROM series")
    if not result.rows:
        raise StepFailed("no rows")


def make_a_dataset(world: RoleWorld) -> None:
    """`monai-aws dataset`, and reading it again"""
    person = world.as_persona(SCIENTIST)
    sql = default_sql(patients=[world.study.patient.patient_id], label_description=SERIES_DESCRIPTION)
    made = make_dataset(person, sql, name=f"person-{uuid.uuid4().hex[:8]}", validation=0.0)
    if not person.session.read_json(made.uri)["cases"]:
        raise StepFailed("the manifest has no cases")


def _look(world: RoleWorld, role: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shown = show(world.as_persona(role), world.image_set[1], folder=Path(folder))
    if shown.png is None:
        raise StepFailed(shown.note)


def look_at_images(world: RoleWorld) -> None:
    """`monai-aws show`"""
    _look(world, SCIENTIST)


def start_training(world: RoleWorld) -> None:
    """What `monai-aws train` calls: start, watch, read the log, and stop"""
    person = world.as_persona(SCIENTIST)
    sagemaker = person.session.client("sagemaker")
    arn = sagemaker.start_pipeline_execution(
        PipelineName=person.task(None).pipeline,
        PipelineParameters=[{"Name": "ManifestUri", "Value": world.manifest_uri}],
        ClientRequestToken=uuid.uuid4().hex,
    )["PipelineExecutionArn"]
    try:
        sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)
        sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex)
    except Exception:
        world.client("sagemaker").stop_pipeline_execution(
            PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex
        )
        raise
    finally:
        world.over(arn)


def read_training_results(world: RoleWorld) -> None:
    """The registered package, and what the training printed"""
    person = world.as_persona(SCIENTIST)
    person.session.client("sagemaker").describe_model_package(ModelPackageName=world.package)
    if not log_tail(person.session, group=TRAINING_JOBS):
        raise StepFailed("the training printed nothing")


def approve_a_model(world: RoleWorld) -> None:
    """`monai-aws approve --no-deploy`, after reading the package and the data set it was trained on"""
    waiting = world.register()
    person = world.as_persona(REVIEWER)
    person.session.client("sagemaker").describe_model_package(ModelPackageName=waiting)
    person.session.read_json(world.manifest_uri)
    if mark_approved(person) != waiting:
        raise StepFailed("another package was approved")


def bring_in_a_study(world: RoleWorld) -> None:
    """`monai-aws ingest`"""
    report = ingest(world.as_persona(INTEGRATOR), world.study.images)
    if not report.ok:
        raise StepFailed(str([one.reason for one in report.failed]))


def look_at_a_study(world: RoleWorld) -> None:
    """`monai-aws show`"""
    _look(world, INTEGRATOR)


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
