"""From an import to the stored SEG with no command between, over the stacks of the environment `local`."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.local_cloud import LocalCloud
from benchmarks.report import Progress
from workbench.approve import approve
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient
from workbench.deployment import Deployment
from workbench.environment import DEFAULT_FOLDER, load_environment
from workbench.ingest import ingest
from workbench.provision import bootstrap, deploy
from workbench.session import Session

ENVIRONMENT = "local"
TASK = "lung-segmentation"
ANSWER_SECONDS = 180.0
_LOOK_SECONDS = 0.05

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """When what happened to an arriving study, as seconds of the epoch."""

    begun: float
    """The first file is uploaded."""
    created: float
    """The image set exists (`createdAt`), and its event is due."""
    sent: float
    """The request to the endpoint is in S3, where an asynchronous endpoint takes it from."""
    stored: float
    """The SEG's image set exists (`createdAt`)."""
    answered: float
    """The endpoint's answer is in S3."""
    phases: dict[str, float]
    """Seconds that the answer names, without their sum."""


def quiet_seconds() -> float:
    """How long an image set has to be left alone before it is dispatched, of the environment's file."""
    document = tomllib.loads((DEFAULT_FOLDER / f"{ENVIRONMENT}.toml").read_text(encoding="utf-8"))
    return float(document["inference"]["quiet_seconds"])


@dataclass(frozen=True, kw_only=True)
class EventPath:
    """The deployed stacks with a model in service."""

    deployment: Deployment

    @classmethod
    def deploy(cls, cloud: LocalCloud, model: Path, progress: Progress) -> EventPath:
        """Deploy into an empty cloud and put the bundle in the folder `model` into service."""
        environment = load_environment(ENVIRONMENT)
        if environment.local is None:
            raise AssertionError("the environment is the local one")
        local = replace(environment.local, endpoint_url=cloud.endpoint_url)
        session = Session(replace(environment, local=local))
        progress("deploying the stacks")
        bootstrap(session, progress=_silent)
        deploy(session, progress=_silent)
        deployment = Deployment(session)
        progress("putting the model into service")
        package = _register(deployment, model)
        approve(deployment, model_package_arn=package, task=TASK)
        return cls(deployment=deployment)

    def arrive(self, volume: CtVolume, *, name: str) -> Arrival:
        """Import the volume as the study of a new patient and wait for its result."""
        with _files(volume, name) as files:
            begun = time.time()
            report = ingest(self.deployment, files)
        (image_set,) = report.image_sets
        requests = f"requests/dispatch/{report.datastore_id}/{image_set.image_set_id}/"
        sent = _wait("the request", lambda: self._first_object(requests))
        answer = _wait("the answer", lambda: self._answer(image_set.image_set_id))
        answered = time.time()
        (result,) = answer["results"]
        return Arrival(
            begun=begun,
            created=self._created(image_set.image_set_id),
            sent=sent,
            stored=self._created(result["segmentation"]["imageSetId"]),
            answered=answered,
            phases={name: float(value) for name, value in result["seconds"].items() if name != "total"},
        )

    def _created(self, image_set_id: str) -> float:
        found: Any = self._client("medical-imaging").get_image_set(
            datastoreId=self.deployment.stack("data")["DatastoreId"], imageSetId=image_set_id
        )
        return float(found["createdAt"].timestamp())

    def _first_object(self, prefix: str) -> float | None:
        """When the first object below the prefix was seen; its own time has whole seconds only."""
        found = self._client("s3").list_objects_v2(Bucket=self._bucket, Prefix=prefix)
        return time.time() if found.get("Contents") else None

    def _answer(self, image_set_id: str) -> dict[str, Any] | None:
        s3 = self._client("s3")
        found = s3.list_objects_v2(Bucket=self._bucket, Prefix="responses/").get("Contents", [])
        for one in found:
            document: dict[str, Any] = json.loads(
                s3.get_object(Bucket=self._bucket, Key=one["Key"])["Body"].read()
            )
            if any(result["imageSetId"] == image_set_id for result in document["results"]):
                return document
        return None

    @property
    def _bucket(self) -> str:
        return self.deployment.stack("data")["ResultBucketName"]

    def _client(self, service: str) -> Any:
        return self.deployment.session.client(service)


def _wait(what: str, look: Callable[[], _Found | None]) -> _Found:
    deadline = time.monotonic() + ANSWER_SECONDS
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"The event path gave not {what} within {ANSWER_SECONDS:g} s.")
        time.sleep(_LOOK_SECONDS)
    return found


@contextmanager
def _files(volume: CtVolume, name: str) -> Iterator[list[Path]]:
    patient = Patient(
        name=f"event-path-{name}",
        patient_name="Synthetic^Benchmark",
        patient_id=f"BENCH-{name}",
        study_id="BENCH",
        accession_number=f"BENCH-{name}"[:16],
        study_date="20000101",
    )
    with tempfile.TemporaryDirectory() as folder:
        yield write_series(ct_datasets(volume, patient), Path(folder))


def _register(deployment: Deployment, model: Path) -> str:
    """Register the bundle as the task's training would, with the image that its pipeline names."""
    sagemaker, s3 = deployment.session.client("sagemaker"), deployment.session.client("s3")
    task = deployment.task(TASK)
    definition = json.loads(sagemaker.describe_pipeline(PipelineName=task.pipeline)["PipelineDefinition"])
    register = next(_steps(definition, "RegisterModel"))["Arguments"]
    bucket = deployment.stack("data")["ModelBucketName"]
    key = "training/benchmark/output/model.tar.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=_archive(model))
    specification = register["InferenceSpecification"]
    container = {
        "Image": specification["Containers"][0]["Image"],
        "ModelDataUrl": f"s3://{bucket}/{key}",
    }
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=task.model_package_group,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification=specification | {"Containers": [container]},
    )
    return str(answer["ModelPackageArn"])


def _steps(part: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Steps of this type anywhere in a pipeline's definition: those of conditions are nested."""
    if isinstance(part, dict):
        if part.get("Type") == kind:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _steps(one, kind)


def _archive(model: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for entry in sorted(model.iterdir()):
            tar.add(entry, arcname=entry.name)
    return buffer.getvalue()


def _silent(_line: str) -> None:
    """The deployment's own progress would hide the benchmark's."""
