"""The reconcile function over fake services: what it finds, what it leaves alone, and what that costs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dispatch_documents import DATASTORE, IMAGE_SET, Bucket, Datastore, Endpoints, refusal, route

from infra.observability.reconciliation import EVENT_METRICS
from runtime.functions.dispatch import handler as dispatch_handler
from runtime.functions.reconcile import handler
from runtime.functions.reconcile.handler import ReconcileError

HOUR = timedelta(hours=1)
DECIDED = f"requests/dispatch/decided/{DATASTORE}/"
SCHEDULE = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


@dataclass(kw_only=True)
class Listed:
    """An image set as the search shows it."""

    id: str = IMAGE_SET
    version: int = 1
    is_primary: bool = True
    ago: timedelta = 2 * HOUR


class Archive(Datastore):
    """HealthImaging with a search. Every image set has the same images."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[Listed] = [Listed()]
        self.searches: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.on_page: Callable[[], object] = lambda: None

    def get_paginator(self, operation: str) -> Archive:
        assert operation == "search_image_sets"
        return self

    def paginate(self, **params: Any) -> Iterator[dict[str, Any]]:
        """Pages of one image set."""
        self.searches.append(params)
        (only,) = params["searchCriteria"]["filters"]
        start, end = (value["updatedAt"] for value in only["values"])
        assert only["operator"] == "BETWEEN"
        assert params["searchCriteria"]["sort"] == {"sortField": "updatedAt", "sortOrder": "ASC"}
        now = datetime.now(UTC)
        for one in sorted(self.listed, key=lambda one: now - one.ago):
            if start <= now - one.ago <= end:
                summary = {
                    "imageSetId": one.id,
                    "version": one.version,
                    "isPrimary": one.is_primary,
                    "updatedAt": now - one.ago,
                }
                self.on_page()
                yield {"imageSetsMetadataSummaries": [summary]}
        yield {"imageSetsMetadataSummaries": []}

    def get_image_set(self, **params: str) -> dict[str, Any]:
        if params["imageSetId"] in self.refused:
            raise refusal("ThrottlingException", "GetImageSet")
        return super().get_image_set(**{**params, "imageSetId": IMAGE_SET})


class Context:
    """Lambda's context."""

    function_name = "reconcile"
    seconds = 120.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def endpoints(bucket: Bucket) -> Endpoints:
    return Endpoints(bucket)


@pytest.fixture(autouse=True)
def _services(
    monkeypatch: pytest.MonkeyPatch, archive: Archive, bucket: Bucket, endpoints: Endpoints
) -> None:
    for name, value in {
        "RESULT_BUCKET": "results",
        "REQUEST_PREFIX": "requests/dispatch/",
        "DISPATCH_ROUTES": json.dumps([route()]),
        "QUIET_SECONDS": "60",
        "DATASTORE_ID": DATASTORE,
        "EVERY_SECONDS": str(4 * 3600),
        "AFTER_SECONDS": "960",
        "DAYS": "7",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handler, "connect", lambda: archive)
    clients = {"s3": bucket, "sagemaker-runtime": endpoints}
    for module in (handler, dispatch_handler):
        monkeypatch.setattr(module.boto3, "client", lambda name: clients[name])


def run(context: Context | None = None) -> dict[str, Any]:
    return handler.handle(SCHEDULE, context or Context())


def since(bucket: Bucket) -> datetime:
    (found,) = bucket.under(f"{DECIDED}since/")
    return datetime.strptime(found, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def test_what_was_missed_is_sent_once(
    archive: Archive, bucket: Bucket, endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert run() == {"undecided": 1, "missed": 1, "failed": 0, "complete": True}
    assert endpoints.requests == [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "1"}]
    assert "reconciled: 1 image sets undecided, 1 requests sent" in caplog.text
    assert run() == {"undecided": 0, "missed": 0, "failed": 0, "complete": True}
    assert archive.metadata_calls == 1, "headers of what is recorded are not read"
    # A later version that no event told of, of the same images.
    archive.listed = [Listed(version=2)]
    archive.versions["2"] = archive.versions["1"]
    assert run() == {"undecided": 1, "missed": 0, "failed": 0, "complete": True}
    assert len(endpoints.requests) == 1


def test_what_no_rule_matches_is_looked_at_once(
    archive: Archive, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route(modality=["MR"])]))
    assert run()["undecided"] == 1
    assert run()["undecided"] == 0
    assert archive.metadata_calls == 1
    assert not endpoints.invocations
    # Neither does a new rule, or a new model, bring back the studies of a week.
    monkeypatch.setenv("DISPATCH_ROUTES", json.dumps([route()]))
    assert run()["undecided"] == 0


@pytest.mark.parametrize(
    "listed",
    [
        Listed(is_primary=False),
        Listed(ago=timedelta(minutes=10)),
        Listed(ago=timedelta(hours=5)),
    ],
    ids=["in conflict", "its event may still come", "before the event path was there"],
)
def test_what_is_not_missed(archive: Archive, endpoints: Endpoints, listed: Listed) -> None:
    archive.listed = [listed]
    assert run()["undecided"] == 0
    assert not endpoints.invocations


def test_it_looks_back_to_the_first_run_and_no_further_than_some_days(
    archive: Archive, bucket: Bucket
) -> None:
    run()
    first = since(bucket)
    assert abs(datetime.now(UTC) - 4 * HOUR - first) < timedelta(seconds=5)
    run()
    assert since(bucket) == first
    earlier = datetime.now(UTC) - timedelta(days=20)
    bucket.put_object(Bucket="results", Key=f"{DECIDED}since/{earlier:%Y-%m-%dT%H:%M:%SZ}", Body=b"{}")
    run()
    starts = [search["searchCriteria"]["filters"][0]["values"][0]["updatedAt"] for search in archive.searches]
    assert starts[1] == first
    assert abs(datetime.now(UTC) - timedelta(days=7) - starts[2]) < timedelta(seconds=5)


def test_the_oldest_come_first_and_the_rest_in_the_next_run(
    archive: Archive, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MOST", 2)
    archive.listed = [
        Listed(id=str(number) * 32, ago=timedelta(minutes=30 + number)) for number in range(1, 6)
    ]
    assert run() == {"undecided": 2, "missed": 2, "failed": 0, "complete": False}
    assert [request["imageSetId"][0] for request in endpoints.requests] == ["5", "4"]
    assert not run()["complete"]
    assert run() == {"undecided": 1, "missed": 1, "failed": 0, "complete": True}
    assert [request["imageSetId"][0] for request in endpoints.requests] == ["5", "4", "3", "2", "1"]


def test_without_time_nothing_is_begun(endpoints: Endpoints) -> None:
    context = Context()
    context.seconds = 20.0
    assert run(context) == {"undecided": 0, "missed": 0, "failed": 0, "complete": False}
    assert not endpoints.invocations
    assert run()["missed"] == 1


def test_a_search_that_is_longer_than_a_run_comes_to_its_end(
    archive: Archive, bucket: Bucket, endpoints: Endpoints
) -> None:
    """What is decided costs time, too: the last image set is beyond what one run can look through."""
    archive.listed = [
        Listed(id=str(number) * 32, ago=timedelta(minutes=100 - number)) for number in range(1, 10)
    ]
    for one in archive.listed[:-1]:
        bucket.put_object(Bucket="results", Key=f"{DECIDED}{one.id}/1", Body=b"{}")
    context = Context()

    def a_page_takes_time() -> None:
        context.seconds -= 20

    archive.on_page = a_page_takes_time
    runs = []
    for _ in range(3):
        context.seconds = 120.0
        runs.append(run(context)["complete"])
    assert runs == [False, False, True]
    assert [request["imageSetId"] for request in endpoints.requests] == ["9" * 32]
    context.seconds = 120.0
    run(context)
    starts = [search["searchCriteria"]["filters"][0]["values"][0]["updatedAt"] for search in archive.searches]
    assert starts[0] < starts[1] < starts[2]
    assert starts[3] <= starts[0], "after the end it begins anew"


def test_many_that_fail_do_not_keep_the_others(
    archive: Archive, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MOST", 2)
    archive.listed = [
        Listed(id=str(number) * 32, ago=timedelta(minutes=100 - number)) for number in range(1, 4)
    ]
    archive.refused = {"1" * 32, "2" * 32}
    with pytest.raises(ReconcileError):
        run()
    assert run()["missed"] == 1
    archive.refused = set()
    assert run()["missed"] == 2


def test_what_grows_after_the_search_is_left_to_its_event(archive: Archive, endpoints: Endpoints) -> None:
    archive.versions["2"] = archive.versions["1"]
    archive.changed = datetime.now(UTC) - timedelta(seconds=5)
    assert run()["missed"] == 0
    assert not endpoints.invocations


def test_one_that_fails_does_not_keep_the_others_and_is_told(
    archive: Archive, endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    archive.listed = [Listed(id=str(number) * 32) for number in range(1, 4)]
    archive.refused = {"2" * 32}
    with pytest.raises(ReconcileError, match="1 image sets could not be dispatched"):
        run()
    assert sorted(request["imageSetId"][0] for request in endpoints.requests) == ["1", "3"]
    assert f"image set {'2' * 32} of data store {DATASTORE}, GetImageSet: ThrottlingException" in caplog.text
    archive.refused = set()
    assert run()["missed"] == 1


def test_what_is_being_dispatched_is_not_missed(
    bucket: Bucket, endpoints: Endpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoints.fails = "ThrottlingException"
    with pytest.raises(ReconcileError):
        run()
    # The claim of the other invocation is young.
    endpoints.fails = None
    capsys.readouterr()
    assert run() == {"undecided": 1, "missed": 0, "failed": 0, "complete": True}
    assert json.loads(capsys.readouterr().out)["MissedRuns"] == 0


def test_without_rules_nothing_is_searched(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_ROUTES", "[]")
    assert run()["missed"] == 0
    assert not archive.searches


def test_the_metric_is_the_one_that_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    (line,) = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    found = {
        (directive["Namespace"], metric["Name"], tuple(names))
        for metric in directive["Metrics"]
        for names in directive["Dimensions"]
    }
    assert found == {(one.namespace, one.name, one.dimensions) for one in EVENT_METRICS}
    assert document["FunctionName"] == "reconcile"
    assert document["MissedRuns"] == 1
