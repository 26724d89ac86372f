"""A run is sent once, and is never lost: whatever dies, in whatever order events come."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from dispatch_documents import DATASTORE, IMAGE_SET, Bucket, Endpoints, refusal

from healthimaging.reference import ImageSetRef
from runtime.functions.dispatch.errors import RunUnderWayError
from runtime.functions.dispatch.runs import CLAIM_SECONDS, Requests, Run


def run(**changed: Any) -> Run:
    image_set = ImageSetRef(
        datastore_id=DATASTORE, image_set_id=IMAGE_SET, version_id=changed.pop("version", "1")
    )
    known = {"image_set": image_set, "images": "digest", "endpoint": "lung", "model": "arn:1"}
    return Run(**(known | changed))


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def endpoints(bucket: Bucket) -> Endpoints:
    return Endpoints(bucket)


@pytest.fixture
def requests(bucket: Bucket, endpoints: Endpoints) -> Requests:
    return Requests(s3=bucket, sagemaker_runtime=endpoints, bucket="results", prefix="requests/dispatch/")


def test_the_promised_request(requests: Requests, bucket: Bucket, endpoints: Endpoints) -> None:
    assert requests.send(run())
    (invocation,) = endpoints.invocations
    assert invocation["EndpointName"] == "lung"
    assert invocation["ContentType"] == "application/json"
    assert invocation["InferenceId"] == run().id
    assert invocation["InvocationTimeoutSeconds"] == 3600, "unasked, SageMaker gives 15 minutes"
    assert endpoints.requests == [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "1"}]
    (key,) = bucket.objects
    assert key == f"requests/dispatch/{DATASTORE}/{IMAGE_SET}/{run().id}.json"
    assert bucket.objects[key]["Metadata"] == {"state": "accepted", "output": "s3://results/responses/a.out"}


def test_it_is_sent_once(requests: Requests, endpoints: Endpoints) -> None:
    assert [requests.send(run()), requests.send(run()), requests.send(run(version="2"))] == [
        True,
        False,
        False,
    ]
    assert len(endpoints.invocations) == 1


def test_what_makes_another_run() -> None:
    other = ImageSetRef(datastore_id=DATASTORE, image_set_id="2" * 32, version_id="1")
    ids = {
        run().id,
        run(image_set=other).id,
        run(images="other").id,
        run(endpoint="liver").id,
        run(model="arn:2").id,
    }
    assert len(ids) == 5
    assert run(version="2").id == run().id


def test_of_two_at_the_same_time_one_sends(requests: Requests, endpoints: Endpoints) -> None:
    original = endpoints.invoke_endpoint_async

    def while_another_comes(**params: Any) -> dict[str, Any]:
        with pytest.raises(RunUnderWayError):
            requests.send(run())
        return original(**params)

    endpoints.invoke_endpoint_async = while_another_comes  # type: ignore[method-assign]  # answers differently for once
    assert requests.send(run())
    assert len(endpoints.invocations) == 1


def test_a_claim_whose_invocation_failed_is_taken_over(
    requests: Requests, bucket: Bucket, endpoints: Endpoints
) -> None:
    endpoints.fails = "ServiceUnavailable"
    with pytest.raises(ClientError):
        requests.send(run())
    endpoints.fails = None
    with pytest.raises(RunUnderWayError):
        requests.send(run())
    bucket.age(CLAIM_SECONDS + 1)
    assert requests.send(run(version="2"))
    assert endpoints.requests == [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "2"}]
    assert not requests.send(run())


def test_of_two_that_take_a_claim_over_one_sends(
    requests: Requests, bucket: Bucket, endpoints: Endpoints
) -> None:
    """Both have seen that it is old; the one that comes second finds it taken over, or even sent."""
    endpoints.fails = "ServiceUnavailable"
    with pytest.raises(ClientError):
        requests.send(run())
    endpoints.fails = None
    bucket.age(CLAIM_SECONDS + 1)

    def another_is_faster(params: dict[str, Any]) -> None:
        if "IfMatch" in params:
            bucket.before_put = None
            assert requests.send(run())

    bucket.before_put = another_is_faster
    with pytest.raises(RunUnderWayError, match="taken over"):
        requests.send(run())
    assert len(endpoints.invocations) == 1
    assert not requests.send(run()), "it stays noted as sent"


def test_death_between_invoking_and_noting_it_sends_again(
    requests: Requests, bucket: Bucket, endpoints: Endpoints
) -> None:
    def die(params: dict[str, Any]) -> None:
        if params["Metadata"]["state"] == "accepted":
            raise refusal("InternalError", "PutObject")

    bucket.before_put = die
    with pytest.raises(ClientError):
        requests.send(run())
    bucket.before_put = None
    bucket.age(CLAIM_SECONDS + 1)
    assert requests.send(run())
    assert [one["InferenceId"] for one in endpoints.invocations] == [run().id] * 2, (
        "at least once, and recognizable"
    )


def test_a_conflicting_write_is_a_claim_of_somebody_else(
    requests: Requests, bucket: Bucket, endpoints: Endpoints
) -> None:
    requests.send(run())

    def conflict(params: dict[str, Any]) -> None:
        raise refusal("ConditionalRequestConflict", "PutObject")

    bucket.before_put = conflict
    assert not requests.send(run())
    assert len(endpoints.invocations) == 1


def test_a_refusal_of_s3_is_no_claim(requests: Requests, bucket: Bucket, endpoints: Endpoints) -> None:
    def deny(params: dict[str, Any]) -> None:
        raise refusal("AccessDenied", "PutObject")

    bucket.before_put = deny
    with pytest.raises(ClientError, match="AccessDenied"):
        requests.send(run())
    assert not endpoints.invocations
