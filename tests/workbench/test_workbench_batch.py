"""Batch jobs against fakes: a prefix of their own, every image set accounted for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from test_workbench_predict import RESULT
from workbench_fakes import TRANSFORM_JOB, FakeLogs, FakeS3, deployment

from healthimaging.reference import ImageSetRef
from workbench.errors import PredictionFailed, QueryFailed, WorkbenchError
from workbench.log_tail import TRANSFORM_JOBS
from workbench.predicting import batch
from workbench.predicting.batch import BatchResult, images_of_manifest, images_of_query, predict_batch
from workbench.query import Column, QueryResult

DATASTORE = "d" * 32
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def image(letter: str, version: str = "1") -> ImageSetRef:
    return ImageSetRef(datastore_id=DATASTORE, image_set_id=letter * 32, version_id=version)


class FakeTransform:
    """Answers each request but those of `failing`, one a look, and ends."""

    def __init__(self, s3: FakeS3, *, failing: tuple[str, ...] = (), reason: str = "") -> None:
        self.s3, self.failing, self.reason = s3, failing, reason
        self.request: dict[str, Any] = {}
        self.waiting: list[str] = []
        self.logs = FakeLogs({TRANSFORM_JOBS: ["of another job"]})

    def create_transform_job(self, **request: Any) -> None:
        self.request = request
        prefix = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://")
        self.logs.streams[TRANSFORM_JOBS][f"{request['TransformJobName']}/i-1"] = ["last words"]
        self.waiting = sorted(one for one in self.s3.objects if one.startswith(prefix))

    def describe_transform_job(self, **_: Any) -> dict[str, Any]:
        if self.waiting:
            name = self.waiting.pop(0)
            asked = json.loads(self.s3.objects[name])
            if asked["imageSetId"] not in self.failing:
                output = self.request["TransformOutput"]["S3OutputPath"].removeprefix("s3://")
                answer = {"results": [{**RESULT, **{k: asked[k] for k in ("imageSetId", "versionId")}}]}
                self.s3.objects[f"{output}{name.rpartition('/')[2]}.out"] = json.dumps(answer).encode()
            return {"TransformJobStatus": "InProgress"}
        return {
            "TransformJobStatus": "Failed" if self.failing else "Completed",
            "FailureReason": self.reason,
            "CreationTime": BEGIN,
            "TransformEndTime": BEGIN + timedelta(seconds=90),
        }


def run(job: FakeTransform, *images: ImageSetRef, lines: list[str] | None = None) -> BatchResult:
    return predict_batch(
        deployment(s3=job.s3, sagemaker=job, logs=job.logs),
        images,
        progress=(lines if lines is not None else []).append,
        every_seconds=0.0,
    )


def test_each_image_set_is_a_request_below_a_prefix_of_the_job() -> None:
    job = FakeTransform(FakeS3({"results/requests/batch/lung/older.json": b"{}"}))
    lines: list[str] = []
    result = run(job, image("a"), image("b", "3"), image("a"), lines=lines)
    assert result.ok
    assert [(one.image_set_id[0], one.version_id) for one in result.results] == [("a", "1"), ("b", "3")]
    assert (result.status, result.seconds) == ("Completed", 90.0)
    assert job.request["TransformJobName"] == result.job
    source = job.request["TransformInput"]["DataSource"]["S3DataSource"]
    assert source["S3Uri"] == f"s3://results/requests/batch/lung/{result.job}/"
    assert job.request["ModelName"] == TRANSFORM_JOB["ModelName"]
    assert lines[1:] == ["1 of 2 answered", "2 of 2 answered"]
    assert TRANSFORM_JOB["TransformOutput"] == {"S3OutputPath": "s3://results/responses/batch/lung/"}


def test_an_image_set_without_an_answer_is_a_failure_and_the_others_are_results() -> None:
    job = FakeTransform(FakeS3(), failing=("b" * 32,), reason="AlgorithmError: see the log")
    result = run(job, image("a"), image("b"), image("c"))
    assert not result.ok
    assert [one.image_set_id[0] for one in result.results] == ["a", "c"]
    [failure] = result.failures
    assert (failure.image_set_id[0], failure.reason) == ("b", "AlgorithmError: see the log")
    assert result.log == ("last words",)
    document = json.loads(json.dumps(result.to_json()))
    assert (document["ok"], document["status"], len(document["failures"])) == (False, "Failed", 1)


def test_an_answer_that_cannot_be_read_is_a_failure_of_its_own() -> None:
    job = FakeTransform(FakeS3())
    create = job.create_transform_job

    def spoil(**request: Any) -> None:
        create(**request)
        output = request["TransformOutput"]["S3OutputPath"].removeprefix("s3://")
        job.waiting = []
        job.s3.objects[f"{output}{'a' * 32}-1.json.out"] = b"<html>"

    job.create_transform_job = spoil  # type: ignore[method-assign] # this job writes something else
    [failure] = run(job, image("a")).failures
    assert "promised form" in failure.reason


def test_a_job_that_does_not_end_is_left_with_what_to_do() -> None:
    job = FakeTransform(FakeS3())
    with pytest.raises(PredictionFailed, match="has not ended") as caught:
        predict_batch(
            deployment(s3=job.s3, sagemaker=job), [image("a")], every_seconds=0.0, timeout_seconds=0.0
        )
    assert "stop-transform-job" in caught.value.advice


def test_nothing_to_do_starts_nothing() -> None:
    with pytest.raises(WorkbenchError, match="at least one"):
        predict_batch(deployment(), [])


def test_a_manifest_names_images_at_their_versions() -> None:
    def reference(letter: str) -> dict[str, str]:
        return {"imageSetId": letter * 32, "versionId": "2"}

    manifest = {
        "schema": "monai-on-aws/dataset-manifest/1",
        "query": "SELECT",
        "datastoreId": DATASTORE,
        "seed": 0,
        "statistics": {},
        "cases": [
            {"patientKey": "0" * 16, "split": "train", "image": reference("a"), "label": reference("f")},
            {"patientKey": "1" * 16, "split": "test", "image": reference("b"), "label": None},
        ],
    }
    s3 = FakeS3({"models/m.json": json.dumps(manifest).encode()})
    assert images_of_manifest(deployment(s3=s3), "s3://models/m.json") == (image("a", "2"), image("b", "2"))


def test_a_query_gives_primary_images_and_passes_results_over(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        *("datastore_id", "image_set_id", "version_id", "is_primary", "patient_id"),
        *("study_instance_uid", "series_instance_uid", "modality"),
    )
    rows: list[tuple[Any, ...]] = [
        (DATASTORE, "a" * 32, 4, True, "P", "1", "1.1", "CT"),
        (DATASTORE, "a" * 32, 4, True, "P", "1", "1.2", "CT"),
        (DATASTORE, "b" * 32, 1, False, "P", "1", "1.3", "CT"),
        (DATASTORE, "c" * 32, 1, True, "P", "1", "1.4", "SEG"),
    ]

    def answer(_deployment: object, sql: str) -> QueryResult:
        return QueryResult(
            execution_id="q",
            sql=sql,
            columns=tuple(Column(name=name, type="varchar") for name in names),
            rows=tuple(rows),
            bytes_scanned=0,
            seconds=0.0,
        )

    monkeypatch.setattr(batch, "query", answer)
    assert images_of_query(deployment(), "SELECT * FROM series") == (image("a", "4"),)
    del rows[:2]
    with pytest.raises(QueryFailed, match="None of the 2 rows"):
        images_of_query(deployment(), "SELECT * FROM series")
