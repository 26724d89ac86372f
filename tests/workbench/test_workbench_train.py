"""Training, approval and prediction against fakes: progress, results, and failures with their reasons and
log tails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from workbench_fakes import FakePaginator, FakeS3, deployment, error

from healthimaging.reference import ImageSetRef
from workbench.approve import approve, mark_approved
from workbench.errors import DeploymentFailed, PredictionFailed, TrainingFailed, WorkbenchError
from workbench.log_tail import TRAINING_JOBS, LogFollower
from workbench.predict import Prediction, failure_message, predict, read_answer
from workbench.train import train
from workbench.training_curve import read_training_curve

EXECUTION = "arn:aws:sagemaker:us-east-1:000000000000:pipeline/lung-pipeline/execution/abc"
PACKAGE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/lung-models/3"
JOB = "arn:aws:sagemaker:us-east-1:000000000000:training-job/job-1"
BEGIN = datetime(2026, 1, 2, 3, 4, 5)


class FakeLogs:
    """Log groups with the lines of their streams, two lines a page; a group that is not there answers as
    AWS does.
    """

    def __init__(self, groups: dict[str, list[str]], *, stream: str = "job-1/algo-1") -> None:
        self.groups = groups
        self.streams = {
            group: {stream: lines, "another-job/algo-1": ["of another job"]}
            for group, lines in groups.items()
        }

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "describe_log_streams"

        def pages(**request: Any) -> list[dict[str, Any]]:
            if request["logGroupName"] not in self.streams:
                raise error("ResourceNotFoundException")
            prefix = request.get("logStreamNamePrefix", "job-1")
            names = [name for name in self.streams[request["logGroupName"]] if name.startswith(prefix)]
            return [{"logStreams": [{"logStreamName": name} for name in names]}]

        return FakePaginator(pages)

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        lines = self.streams[request["logGroupName"]][request["logStreamName"]]
        begin = int(request.get("nextToken", "0"))
        events = [{"timestamp": n, "message": line} for n, line in enumerate(lines)][begin : begin + 2]
        return {"events": events, "nextForwardToken": str(begin + len(events))}


class FakePipeline:
    """An execution that goes through `stages`, one per look."""

    def __init__(self, stages: list[tuple[str, list[dict[str, Any]]]]) -> None:
        self.stages = stages
        self.started: dict[str, Any] = {}
        self.approved: dict[str, Any] = {}
        self.pending: list[str] = [PACKAGE]

    def start_pipeline_execution(self, **request: Any) -> dict[str, Any]:
        self.started = request
        return {"PipelineExecutionArn": EXECUTION}

    def describe_pipeline_execution(self, **_: Any) -> dict[str, Any]:
        if len(self.stages) > 1:
            self.stages.pop(0)
        return {"PipelineExecutionStatus": self.stages[0][0], "FailureReason": "a step failed"}

    def describe_model_package(self, **_: Any) -> dict[str, Any]:
        return {"ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": "s3://models/evaluation.json"}}}}

    def update_model_package(self, **request: Any) -> None:
        self.approved = request

    def list_model_packages(self, **_: Any) -> dict[str, Any]:
        return {"ModelPackageSummaryList": [{"ModelPackageArn": arn} for arn in self.pending]}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_pipeline_execution_steps"
        return FakePaginator(lambda **_: [{"PipelineExecutionSteps": self.stages[0][1]}])


def step(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "StepName": name,
        "StepStatus": status,
        "StartTime": BEGIN,
        "EndTime": BEGIN + timedelta(seconds=30),
        **more,
    }


TRAIN = {"Metadata": {"TrainingJob": {"Arn": JOB}}}


def test_training_follows_steps_and_lines_to_the_package() -> None:
    sagemaker = FakePipeline(
        [
            ("Executing", []),
            ("Executing", [step("Train", "Executing", **TRAIN)]),
            (
                "Succeeded",
                [
                    step("Train", "Succeeded", **TRAIN),
                    step("Register", "Succeeded", Metadata={"RegisterModel": {"Arn": PACKAGE}}),
                ],
            ),
        ]
    )
    logs = FakeLogs({TRAINING_JOBS: ["step=10 train_loss=0.5", "step=10 val_mean_dice=0.8"]})
    evaluation = {"split": "test", "metrics": {"mean_dice": 0.93}}
    s3 = FakeS3({"models/evaluation.json": json.dumps(evaluation).encode()})
    lines: list[str] = []
    result = train(
        deployment(sagemaker=sagemaker, logs=logs, s3=s3),
        "s3://models/manifests/a.json",
        parameters={"MaxSteps": "7"},
        progress=lines.append,
        every_seconds=0.0,
    )
    assert result.model_package_arn == PACKAGE
    assert result.training_job == "job-1"
    assert result.curve.train_loss == ((10, 0.5),)
    assert result.evaluation is not None
    assert (result.evaluation.split, result.evaluation.metrics["mean_dice"]) == ("test", 0.93)
    assert result.steps[0].seconds == 30.0
    assert lines.count("Train | step=10 train_loss=0.5") == 1
    assert lines.count("Train: Succeeded") == 1
    parameters = {one["Name"]: one["Value"] for one in sagemaker.started["PipelineParameters"]}
    assert parameters == {"ManifestUri": "s3://models/manifests/a.json", "MaxSteps": "7"}


def test_failed_training_says_why_with_the_log_tail() -> None:
    failed = step("Train", "Failed", FailureReason="AlgorithmError: loss is not finite", **TRAIN)
    sagemaker = FakePipeline([("Executing", []), ("Failed", [failed])])
    logs = FakeLogs({TRAINING_JOBS: ["Traceback", "ValueError: loss is nan"]})
    with pytest.raises(TrainingFailed, match="loss is not finite") as caught:
        train(deployment(sagemaker=sagemaker, logs=logs), "s3://m", every_seconds=0.0)
    assert caught.value.details == ("Traceback", "ValueError: loss is nan")


def test_quality_gate_is_a_failure_with_its_own_words() -> None:
    reject = step("Reject", "Failed", FailureReason="mean Dice is 0.2, below the required 0.85")
    sagemaker = FakePipeline([("Executing", []), ("Failed", [reject])])
    with pytest.raises(TrainingFailed, match=r"0\.2, below the required 0\.85"):
        train(deployment(sagemaker=sagemaker, logs=FakeLogs({})), "s3://m", every_seconds=0.0)


def test_success_without_a_package_is_a_failure() -> None:
    sagemaker = FakePipeline([("Executing", []), ("Succeeded", [step("Train", "Succeeded")])])
    with pytest.raises(TrainingFailed, match="without registering"):
        train(deployment(sagemaker=sagemaker, logs=FakeLogs({})), "s3://m", every_seconds=0.0)


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(WorkbenchError) as caught:
        train(deployment(sagemaker=None), "s3://m", task="brain-tumour")
    assert "LungSegmentation" in caught.value.advice


def test_log_lines_come_once_over_pages_and_of_one_job() -> None:
    logs = FakeLogs({"g": ["a", "b", "c"]})
    follower = LogFollower(deployment(logs=logs).session, "g", "job-1")
    assert follower.read() == ["a", "b", "c"]
    logs.groups["g"].append("d")
    assert follower.read() == ["d"]
    assert follower.read() == []


def test_curve_reads_only_its_lines() -> None:
    curve = read_training_curve(
        [
            "INFO step=1 train_loss=0.5",
            "step=2 train_loss=nan",
            "noise",
            "step=3 train_loss=x",
            "step=4 val_mean_dice=1e-1",
        ]
    )
    assert curve.train_loss == ((1, 0.5),)
    assert curve.val_mean_dice == ((4, 0.1),)


class FakeCloudFormation:
    """One stack that an update brings into `ends`, with `events` on the way."""

    def __init__(self, *, ends: str, events: list[dict[str, Any]], refuse: str | None = None) -> None:
        self.ends, self.events, self.refuse = ends, events, refuse
        self.status = "CREATE_COMPLETE"
        self.update: dict[str, Any] = {}

    def describe_stacks(self, **_: Any) -> dict[str, Any]:
        parameters = [
            {"ParameterKey": "LungSegmentationModelPackageArn"},
            {"ParameterKey": "BootstrapVersion"},
        ]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": parameters}]}

    def update_stack(self, **request: Any) -> None:
        if self.refuse:
            raise error("ValidationError", self.refuse)
        self.update = request
        self.status = self.ends

    def describe_stack_resource(self, **_: Any) -> dict[str, Any]:
        return {"StackResourceDetail": {"PhysicalResourceId": "lung-9"}}

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "describe_stack_events"
        old = {"EventId": "old", "ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "long ago"}
        events = [old, *(self.events if self.update else [])]
        return FakePaginator(lambda **_: [{"StackEvents": events[::-1]}])


def event(number: int, status: str, **more: str) -> dict[str, Any]:
    """A stack event at millisecond `number`, the clock of FakeLogs."""
    at = datetime.fromtimestamp(number / 1000, UTC)
    return {
        "EventId": str(number),
        "Timestamp": at,
        "ResourceStatus": status,
        "LogicalResourceId": "Endpoint",
        **more,
    }


def test_approval_updates_one_parameter_and_keeps_the_rest() -> None:
    sagemaker = FakePipeline([])
    cloudformation = FakeCloudFormation(ends="UPDATE_COMPLETE", events=[event(1, "UPDATE_IN_PROGRESS")])
    lines: list[str] = []
    result = approve(
        deployment(sagemaker=sagemaker, cloudformation=cloudformation),
        progress=lines.append,
        every_seconds=0.0,
    )
    assert result.changed
    assert result.endpoint_name == "lung-endpoint"
    assert sagemaker.approved["ModelApprovalStatus"] == "Approved"
    assert cloudformation.update["UsePreviousTemplate"] is True
    assert cloudformation.update["Parameters"] == [
        {"ParameterKey": "LungSegmentationModelPackageArn", "ParameterValue": PACKAGE},
        {"ParameterKey": "BootstrapVersion", "UsePreviousValue": True},
    ]
    assert "UPDATE_IN_PROGRESS Endpoint" in lines
    assert not any("long ago" in line for line in lines)


def test_the_same_package_again_changes_nothing() -> None:
    cloudformation = FakeCloudFormation(ends="", events=[], refuse="No updates are to be performed.")
    result = approve(
        deployment(sagemaker=FakePipeline([]), cloudformation=cloudformation), model_package_arn=PACKAGE
    )
    assert not result.changed


def test_a_reviewer_approves_without_touching_a_stack() -> None:
    sagemaker = FakePipeline([])
    lines: list[str] = []
    package = mark_approved(
        deployment(sagemaker=sagemaker, cloudformation=None), note="seen", progress=lines.append
    )
    assert package == PACKAGE
    assert sagemaker.approved["ModelApprovalStatus"] == "Approved"
    assert sagemaker.approved["ApprovalDescription"] == "seen"
    assert len(lines) == 1


def test_nothing_to_approve_is_said() -> None:
    sagemaker = FakePipeline([])
    sagemaker.pending = []
    with pytest.raises(WorkbenchError, match="waits for approval"):
        approve(deployment(sagemaker=sagemaker, cloudformation=None))


@pytest.mark.parametrize("identity", ["arn:aws:sagemaker:us-east-1:000000000000:endpoint/lung-9", ""])
def test_failed_endpoint_shows_the_reason_and_its_log_tail(identity: str) -> None:
    endpoint: Mapping[str, str] = {
        "ResourceType": "AWS::SageMaker::Endpoint",
        "PhysicalResourceId": identity,
        "StackName": "monai-test-inference",
        "ResourceStatusReason": "container did not answer /ping",
    }
    cloudformation = FakeCloudFormation(
        ends="UPDATE_ROLLBACK_COMPLETE", events=[event(1, "CREATE_FAILED", **endpoint)]
    )
    lines = ["of the container before", "ImportError: no module named monai"]
    logs = FakeLogs({"/aws/sagemaker/Endpoints/lung-9": lines})
    with pytest.raises(DeploymentFailed, match="did not answer /ping") as caught:
        approve(
            deployment(sagemaker=FakePipeline([]), cloudformation=cloudformation, logs=logs),
            every_seconds=0.0,
        )
    assert any("no module named monai" in line for line in caught.value.details)
    assert not any("container before" in line for line in caught.value.details)


ANSWER = {
    "results": [
        {
            "imageSetId": "i",
            "versionId": "2",
            "segmentation": {
                "seriesInstanceUid": "1.2",
                "sopInstanceUid": "1.3",
                "imageSetId": "s",
                "isPrimary": True,
                "s3Uri": None,
            },
            "segments": [{"label": "lung", "volumeMl": 4000.5}],
            "model": {"name": "ct_segmentation", "version": "1", "sha256": "ab"},
            "seconds": {"total": 3.5},
        }
    ]
}


class FakeRuntime:
    """Answers an asynchronous request into S3, as the endpoint does."""

    def __init__(self, s3: FakeS3, *, answer: bytes | None = None, failure: bytes | None = None) -> None:
        self.s3, self.answer, self.failure = s3, answer, failure
        self.request: dict[str, Any] = {}

    def invoke_endpoint_async(self, **request: Any) -> dict[str, str]:
        self.request = json.loads(self.s3.objects[request["InputLocation"].removeprefix("s3://")])
        if self.answer is not None:
            self.s3.objects["results/responses/1.out"] = self.answer
            self.s3.late["results/responses/1.out"] = 2
        if self.failure is not None:
            self.s3.objects["results/failures/1.out"] = self.failure
        return {
            "OutputLocation": "s3://results/responses/1.out",
            "FailureLocation": "s3://results/failures/1.out",
        }


IMAGE = ImageSetRef(datastore_id="d", image_set_id="i", version_id="2")


def run_prediction(
    runtime: FakeRuntime, logs: FakeLogs | None = None, *, timeout_seconds: float = 30.0
) -> Prediction:
    fakes = deployment(s3=runtime.s3, sagemaker_runtime=runtime, logs=logs or FakeLogs({}))
    return predict(fakes, IMAGE, every_seconds=0.0, timeout_seconds=timeout_seconds)


def test_prediction_waits_for_the_answer() -> None:
    runtime = FakeRuntime(FakeS3(), answer=json.dumps(ANSWER).encode())
    answer = run_prediction(runtime)
    assert runtime.request == {"datastoreId": "d", "imageSetId": "i", "versionId": "2"}
    assert answer.segmentation.image_set_id == "s"
    assert answer.segments[0].volume_ml == 4000.5
    assert answer.to_json() == ANSWER["results"][0]


def test_failed_prediction_quotes_the_endpoint() -> None:
    body = json.dumps({"error": {"type": "MissingSliceError", "message": "slice 7 is missing"}}).encode()
    logs = FakeLogs({"/aws/sagemaker/Endpoints/lung-endpoint": ["last words"]})
    with pytest.raises(PredictionFailed, match="MissingSliceError: slice 7 is missing") as caught:
        run_prediction(FakeRuntime(FakeS3(), failure=body), logs)
    assert caught.value.details == ("last words",)


def test_no_answer_in_time_is_a_failure() -> None:
    with pytest.raises(PredictionFailed, match="has not answered"):
        run_prediction(FakeRuntime(FakeS3()), timeout_seconds=0.0)


def test_an_answer_in_another_form_is_refused() -> None:
    with pytest.raises(PredictionFailed, match="promised form"):
        read_answer({"results": [{"imageSetId": "i"}]})


def test_failure_that_is_not_json_is_quoted() -> None:
    assert failure_message(b"Received server error (500)") == "Received server error (500)"
