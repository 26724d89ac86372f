"""The application in the process of the tests, with everything around it that a container has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from running_endpoint import Archive

from runtime.application import InferenceApplication
from runtime.bundles.bundle import Bundle
from runtime.bundles.class_scores import ClassScore
from runtime.bundles.task import Task
from runtime.metrics import Metrics
from runtime.operators.series_rules import SeriesRule
from runtime.results.answer import ModelIdentity, Result
from runtime.results.archive import ResultArchive
from runtime.results.outputs import Output
from runtime.results.result_files import ResultFiles
from runtime.results.results import Results
from runtime.serving.request import ImageSetInput
from runtime.settings import S3Prefix

BUCKET = "runtime-results"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Stands for a classification bundle: what the application asks of one, and no network."""

    scores: tuple[ClassScore, ...]
    task: Task = Task.CLASSIFICATION

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name="classifier", version="1", sha256="c1" * 32)

    @property
    def files(self) -> Any:
        return SimpleNamespace(fingerprint="c1" * 32, modality="CT")

    def classify(self, image: Any, *, phase: Any) -> tuple[ClassScore, ...]:
        with phase("network"):
            assert image.shape[0] == 1
            return self.scores


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container's application and the clients that it has."""

    application: InferenceApplication
    client: Any
    s3: Any

    def infer(self, archive: Archive, image_set_id: str) -> Result:
        return self.application.infer(ImageSetInput.model_validate(archive.request(image_set_id)))


def start_container(
    cloud: Any,
    bundle: Bundle | Classifier,
    *,
    outputs: Sequence[Output] = (),
    files: bool = False,
    wait_seconds: float = 10,
) -> Container:
    client, s3 = cloud.client("medical-imaging"), cloud.client("s3")
    application = InferenceApplication(
        client=client,
        bundle=bundle,  # type: ignore[arg-type]  # a classifier has what is asked of it
        rules=[SeriesRule(modality="CT")],
        results=Results(
            archive=ResultArchive(client, wait_seconds=wait_seconds),
            model=bundle.identity,
            task=bundle.task,
            outputs=frozenset(outputs),
            files=ResultFiles(s3, prefix=S3Prefix(bucket=BUCKET, key="copies")) if files else None,
        ),
        metrics=Metrics(endpoint="tested"),
    )
    return Container(application=application, client=client, s3=s3)
