"""Asks for results of many image sets with one batch transform job: machines that come, work and go.

Each image set is one request object below a prefix of the job's own, and its answer an object of the same
name below another. A job goes on when a request fails and ends Failed
(https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-errors.html), so what counts is which answers
are there, and not the job's status alone.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from arrival.s3_uri import split_s3_uri
from arrival.waiting import poll
from healthimaging.manifest import Manifest
from healthimaging.reference import ImageSetRef
from workbench.catalog import DERIVED_MODALITIES, series_rows
from workbench.deployment import Deployment
from workbench.errors import PredictionFailed, QueryFailed, WorkbenchError
from workbench.log_tail import TRANSFORM_JOBS, log_tail
from workbench.predicting.answer import Prediction, read_body, request_body
from workbench.predicting.asynchronous import object_if_there
from workbench.progress import Progress, silent
from workbench.query import query
from workbench.served import Mode, Served

BATCH_TIMEOUT_SECONDS = 5 * 24 * 3600.0
"""SageMaker's own limit for a job."""
ENDED = frozenset({"Completed", "Failed", "Stopped"})
THREADS = 16
"""Requests that are written, and answers that are read, at a time."""


@dataclass(frozen=True, kw_only=True)
class BatchFailure:
    """An image set without a result."""

    image_set_id: str
    version_id: str
    reason: str

    def to_json(self) -> dict[str, object]:
        return {"imageSetId": self.image_set_id, "versionId": self.version_id, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What became of a batch: of every image set either a result or a failure."""

    job: str
    status: str
    """As SageMaker says: Completed, Failed, Stopped."""
    seconds: float
    """From the job's creation to its end."""
    results: tuple[Prediction, ...]
    failures: tuple[BatchFailure, ...]
    log: tuple[str, ...]
    """The container's last lines, where something failed."""

    @property
    def ok(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "transformJob": self.job,
            "status": self.status,
            "seconds": self.seconds,
            "results": [one.to_json() for one in self.results],
            "failures": [one.to_json() for one in self.failures],
            "log": list(self.log),
        }


def predict_batch(
    deployment: Deployment,
    images: Iterable[ImageSetRef],
    *,
    endpoint: str | None = None,
    progress: Progress = silent,
    every_seconds: float = 2.0,
    timeout_seconds: float = BATCH_TIMEOUT_SECONDS,
) -> BatchResult:
    """Start a transform job over `images`, and wait for its end.

    Args:
        deployment: The environment's stacks.
        images: Image sets, each at a version; one that is there twice is asked for once.
        endpoint: The model for batch jobs, as the environment file names it; None takes the first.
        progress: Gets how many answers there are.
        every_seconds: Time between two looks at the job.
        timeout_seconds: How long to wait; the job goes on after it.

    Raises:
        WorkbenchError: There is no such model, or nothing to do.
        PredictionFailed: The job has not ended in time.
    """
    chosen = tuple(dict.fromkeys(images))
    if not chosen:
        raise WorkbenchError(
            "A batch needs at least one image set.", advice="Name some, a manifest or a query."
        )
    served = deployment.served(endpoint, Mode.BATCH)
    job = _Job.of(deployment, served)
    _write_requests(deployment, job, chosen)
    sagemaker = deployment.session.client("sagemaker")
    sagemaker.create_transform_job(**job.request)
    progress(f"transform job {job.name} over {len(chosen)} image sets")
    told = -1

    def ended() -> Mapping[str, Any] | None:
        nonlocal told
        described: Mapping[str, Any] = sagemaker.describe_transform_job(TransformJobName=job.name)
        answered = _answered(deployment, job)
        if answered != told:
            told = answered
            progress(f"{answered} of {len(chosen)} answered")
        return described if described["TransformJobStatus"] in ENDED else None

    described = poll(
        ended,
        every_seconds=every_seconds,
        timeout_seconds=timeout_seconds,
        on_timeout=lambda: PredictionFailed(
            f"Transform job {job.name} has not ended after {timeout_seconds:.0f} s.",
            advice=f"It goes on; its answers come to {job.output_uri}. To end it: aws sagemaker "
            f"stop-transform-job --transform-job-name {job.name}",
        ),
    )
    return _collect(deployment, job, chosen, described)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One transform job: the request that the stack gives, with a name and prefixes of its own."""

    name: str
    request: Mapping[str, Any]
    input_uri: str
    output_uri: str

    @classmethod
    def of(cls, deployment: Deployment, served: Served) -> _Job:
        template = json.loads(deployment.stack("inference")[served.job_output])
        name = f"{served.name[:40].rstrip('-')}-{uuid.uuid4().hex[:12]}"
        source = template["TransformInput"]["DataSource"]["S3DataSource"]
        input_uri = f"{source['S3Uri'].rstrip('/')}/{name}/"
        output_uri = f"{template['TransformOutput']['S3OutputPath'].rstrip('/')}/{name}/"
        source["S3Uri"] = input_uri
        template["TransformOutput"]["S3OutputPath"] = output_uri
        return cls(
            name=name,
            request={"TransformJobName": name, **template},
            input_uri=input_uri,
            output_uri=output_uri,
        )

    def request_uri(self, image: ImageSetRef) -> str:
        return f"{self.input_uri}{image.image_set_id}-{image.version_id}.json"

    def answer_uri(self, image: ImageSetRef) -> str:
        """SageMaker adds `.out` to the request's name."""
        return f"{self.output_uri}{image.image_set_id}-{image.version_id}.json.out"


def _write_requests(deployment: Deployment, job: _Job, images: Sequence[ImageSetRef]) -> None:
    s3 = deployment.session.client("s3")

    def write(image: ImageSetRef) -> None:
        bucket, key = split_s3_uri(job.request_uri(image))
        s3.put_object(Bucket=bucket, Key=key, Body=request_body(image), ContentType="application/json")

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(write, images):
            continue


def _answered(deployment: Deployment, job: _Job) -> int:
    bucket, prefix = split_s3_uri(job.output_uri)
    pages = deployment.session.client("s3").get_paginator("list_objects_v2")
    return sum(len(page.get("Contents", ())) for page in pages.paginate(Bucket=bucket, Prefix=prefix))


def _collect(
    deployment: Deployment, job: _Job, images: Sequence[ImageSetRef], described: Mapping[str, Any]
) -> BatchResult:
    s3 = deployment.session.client("s3")
    status = str(described["TransformJobStatus"])
    reason = str(described.get("FailureReason", ""))

    def outcome(image: ImageSetRef) -> Prediction | BatchFailure:
        body = object_if_there(s3, job.answer_uri(image))
        why = reason or f"the job ended as {status} without an answer"
        if body is not None:
            try:
                return read_body(body)
            except PredictionFailed as error:
                why = error.message
        return BatchFailure(image_set_id=image.image_set_id, version_id=image.version_id, reason=why)

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(outcome, images))
    failures = tuple(one for one in outcomes if isinstance(one, BatchFailure))
    return BatchResult(
        job=job.name,
        status=status,
        seconds=_seconds(described),
        results=tuple(one for one in outcomes if isinstance(one, Prediction)),
        failures=failures,
        log=log_tail(deployment.session, group=TRANSFORM_JOBS, stream_prefix=f"{job.name}/")
        if failures
        else (),
    )


def _seconds(described: Mapping[str, Any]) -> float:
    begin, end = described.get("CreationTime"), described.get("TransformEndTime")
    return round((end - begin).total_seconds(), 2) if begin and end else 0.0


def images_of_manifest(deployment: Deployment, uri: str) -> tuple[ImageSetRef, ...]:
    """The images of a dataset manifest, at the versions that it pins, from both sides of its split."""
    manifest = Manifest.from_json(json.dumps(deployment.session.read_json(uri)))
    return tuple(case.image for case in manifest.cases)


def images_of_query(deployment: Deployment, sql: str) -> tuple[ImageSetRef, ...]:
    """The primary image sets that a query selects, at the versions that the catalog has; what was said about
    images (segmentations, reports) is passed over.
    """
    rows = series_rows(query(deployment, sql))
    images = {
        ImageSetRef(
            datastore_id=row.datastore_id, image_set_id=row.image_set_id, version_id=str(row.version_id)
        ): None
        for row in rows
        if row.is_primary and row.modality not in DERIVED_MODALITIES
    }
    if not images:
        raise QueryFailed(
            f"None of the {len(rows)} rows of the query is a primary image set with images.",
            advice='Look at what there is: monai-aws query "SELECT modality, is_primary, count(*) FROM '
            'series GROUP BY 1, 2"',
        )
    return tuple(images)
