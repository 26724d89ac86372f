"""Predictions against fakes: each mode its call, answers in full, and failures with what to do."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from workbench_fakes import SERVED, FakeLogs, FakeS3, deployment

from healthimaging.reference import ImageSetRef
from workbench.errors import PredictionFailed, WorkbenchError
from workbench.predicting import real_time
from workbench.predicting.answer import Prediction, failure_message, read_answer
from workbench.predicting.predict import predict
from workbench.served import Mode

REPORT = {
    "kind": "measurement-report",
    "seriesInstanceUid": "1.4",
    "sopInstanceUid": "1.5",
    "imageSetId": "r",
    "isPrimary": False,
    "s3Uri": None,
}
RESULT: dict[str, Any] = {
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
    "classes": [],
    "reports": [REPORT],
    "model": {"name": "ct_segmentation", "version": "1", "sha256": "ab"},
    "seconds": {"total": 3.5},
}
ANSWER = {"results": [RESULT]}
IMAGE = ImageSetRef(datastore_id="d", image_set_id="i", version_id="2")
REQUEST = {"datastoreId": "d", "imageSetId": "i", "versionId": "2"}


class FakeRuntime:
    """Answers an asynchronous request into S3, as the endpoint does; a synchronous one from `replies`."""

    def __init__(
        self,
        s3: FakeS3,
        *,
        answer: bytes | None = None,
        failure: bytes | None = None,
        replies: tuple[bytes | Exception, ...] = (),
    ) -> None:
        self.s3, self.answer, self.failure = s3, answer, failure
        self.request: dict[str, Any] = {}
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []

    def invoke_endpoint_async(self, **request: Any) -> dict[str, str]:
        assert request["InvocationTimeoutSeconds"] == 3600, "unasked, SageMaker gives 15 minutes"
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

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return {"Body": io.BytesIO(reply)}


def model_error(status: int, message: str, **headers: str) -> ClientError:
    """What SageMaker makes of a container's error."""
    text = f'Received server error ({status}) from primary with message "{message}". See the log group.'
    response: Any = {
        "Error": {"Code": "ModelError", "Message": text},
        "OriginalStatusCode": status,
        "OriginalMessage": message,
        "ResponseMetadata": {"HTTPHeaders": headers},
    }
    return ClientError(response, "InvokeEndpoint")


def run_prediction(
    runtime: FakeRuntime, logs: FakeLogs | None = None, *, timeout_seconds: float = 30.0, **more: str
) -> Prediction:
    fakes = deployment(s3=runtime.s3, sagemaker_runtime=runtime, logs=logs or FakeLogs({}))
    return predict(fakes, IMAGE, every_seconds=0.0, timeout_seconds=timeout_seconds, **more)


def test_prediction_waits_for_the_answer() -> None:
    runtime = FakeRuntime(FakeS3(), answer=json.dumps(ANSWER).encode())
    answer = run_prediction(runtime)
    assert runtime.request == REQUEST
    assert answer.segmentation.image_set_id == "s"
    assert answer.segments[0].volume_ml == 4000.5
    assert answer.to_json() == RESULT
    assert answer.non_primary == ("r",)


def test_failed_prediction_quotes_the_endpoint() -> None:
    body = json.dumps({"error": {"type": "MissingSliceError", "message": "slice 7 is missing"}}).encode()
    logs = FakeLogs({"/aws/sagemaker/Endpoints/lung-endpoint": ["last words"]})
    with pytest.raises(PredictionFailed, match="MissingSliceError: slice 7 is missing") as caught:
        run_prediction(FakeRuntime(FakeS3(), failure=body), logs)
    assert caught.value.details == ("last words",)


def test_no_answer_in_time_is_a_failure() -> None:
    with pytest.raises(PredictionFailed, match="has not answered"):
        run_prediction(FakeRuntime(FakeS3()), timeout_seconds=0.0)


@pytest.mark.parametrize(
    "answer", [{"results": [{"imageSetId": "i"}]}, {"results": []}, [], {"results": [{**RESULT, "model": 3}]}]
)
def test_an_answer_in_another_form_is_refused(answer: Any) -> None:
    with pytest.raises(PredictionFailed, match="promised form"):
        read_answer(answer)


def test_a_classification_has_classes_and_no_segmentation() -> None:
    classes = [{"label": "pneumonia", "probability": 0.75}, {"label": "none", "probability": 0.25}]
    document = {**RESULT, "segmentation": None, "segments": [], "classes": classes}
    answer = read_answer({"results": [document]})
    assert answer.to_json() == document
    assert answer.stored_segmentation is None
    with pytest.raises(PredictionFailed, match="classifies"):
        _ = answer.segmentation


def test_answers_of_containers_from_before_reports_are_read() -> None:
    older = {name: value for name, value in RESULT.items() if name not in ("classes", "reports")}
    assert read_answer({"results": [older]}).to_json() == {**older, "classes": [], "reports": []}


def test_failure_that_is_not_json_is_quoted() -> None:
    assert failure_message(b"Received server error (500)") == "Received server error (500)"


def test_a_real_time_endpoint_is_asked_directly() -> None:
    runtime = FakeRuntime(FakeS3(), replies=(json.dumps(ANSWER).encode(),))
    assert run_prediction(runtime, endpoint="lung-now").to_json() == RESULT
    [asked] = runtime.asked
    assert asked["EndpointName"] == "now-endpoint"
    assert json.loads(asked["Body"]) == REQUEST
    assert not runtime.s3.objects, "nothing goes through S3"


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    throttled: Any = {"Error": {"Code": "ThrottlingException", "Message": "slower"}}
    replies = (
        model_error(503, '{"error": {"type": "QueueFullError", "message": "full"}}', **{"retry-after": "7"}),
        ClientError(throttled, "InvokeEndpoint"),
        json.dumps(ANSWER).encode(),
    )
    runtime = FakeRuntime(FakeS3(), replies=replies)
    waited: list[float] = []
    fakes = deployment(sagemaker_runtime=runtime, logs=FakeLogs({}))
    answer = real_time.ask_now(
        fakes,
        SERVED[1],
        IMAGE,
        model=None,
        progress=lambda _: None,
        timeout_seconds=60,
        sleep=waited.append,
        clock=lambda: sum(waited),
    )
    assert answer.to_json() == RESULT
    assert waited == [7.0, real_time.RETRY_SECONDS]


def test_an_endpoint_that_stays_busy_is_given_up_with_advice() -> None:
    runtime = FakeRuntime(FakeS3(), replies=(model_error(503, "full"),))
    with pytest.raises(PredictionFailed, match="was busy") as caught:
        run_prediction(runtime, endpoint="lung-now", timeout_seconds=1.0)
    assert "asynchronous" in caught.value.advice
    assert len(runtime.asked) == 1


@pytest.mark.parametrize(
    "reply",
    [
        model_error(0, "Your invocation timed out while waiting for a response from container primary."),
        ReadTimeoutError(endpoint_url="https://runtime"),
    ],
)
def test_the_limit_of_sixty_seconds_is_explained_and_the_work_not_asked_for_twice(reply: Exception) -> None:
    runtime = FakeRuntime(FakeS3(), replies=(reply,))
    with pytest.raises(PredictionFailed, match="60 s") as caught:
        run_prediction(runtime, endpoint="lung-now")
    assert "asynchronous" in caught.value.advice
    assert len(runtime.asked) == 1


def test_what_the_container_refuses_is_quoted_with_its_log() -> None:
    refused = model_error(404, '{"error": {"type": "ImageSetNotFoundError", "message": "no i"}}')
    logs = FakeLogs({"/aws/sagemaker/Endpoints/now-endpoint": ["last words"]})
    with pytest.raises(PredictionFailed, match="ImageSetNotFoundError: no i") as caught:
        run_prediction(FakeRuntime(FakeS3(), replies=(refused,)), logs, endpoint="lung-now")
    assert caught.value.details == ("last words",)


def test_a_model_among_several_is_named() -> None:
    body = json.dumps(ANSWER).encode()
    runtime = FakeRuntime(FakeS3(), replies=(body, body))
    run_prediction(runtime, endpoint="shared", model="lung-segmentation")
    run_prediction(runtime, endpoint="zoo", model="spleen-3")
    assert runtime.asked[0]["InferenceComponentName"] == "shared-lung"
    assert runtime.asked[1]["TargetModel"] == "spleen-3.tar.gz"
    for endpoint in ("shared", "zoo"):
        with pytest.raises(WorkbenchError) as caught:
            run_prediction(runtime, endpoint=endpoint)
        assert "--model" in caught.value.advice
    with pytest.raises(WorkbenchError, match="has one model"):
        run_prediction(runtime, endpoint="lung-now", model="spleen-3")
    assert len(runtime.asked) == 2


def test_an_endpoint_is_found_by_name_or_by_mode() -> None:
    fakes = deployment()
    assert fakes.served(None, Mode.REAL_TIME, Mode.ASYNCHRONOUS).name == "lung-now"
    assert fakes.served("zoo", Mode.MULTI_MODEL).mode is Mode.MULTI_MODEL
    with pytest.raises(WorkbenchError, match="no endpoint 'liver'") as caught:
        fakes.served("liver", Mode.ASYNCHRONOUS)
    assert "lung-now (real-time)" in caught.value.advice
    with pytest.raises(WorkbenchError, match="no endpoint of mode serverless"):
        fakes.served(None, Mode.SERVERLESS)
    with pytest.raises(WorkbenchError, match="has the mode batch"):
        fakes.served("lung-batch", Mode.ASYNCHRONOUS)
