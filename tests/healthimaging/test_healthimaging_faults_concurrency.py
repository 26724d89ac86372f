"""Reads that are given up, interrupted or run side by side, and credentials that change meanwhile."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError, EndpointConnectionError
from fake_healthimaging import DATASTORE, IMAGE_SET, client_error
from faulted_reads import (
    MR_UID,
    READS,
    client_of,
    client_sockets,
    client_threads,
    failure,
    frame_id,
    image_set,
    only_what_is_new_is_collected,
    within,
)
from faulty_service import Distortion, Fault, FaultyService, cut, refused, silence, trickling

from healthimaging import ImageSet
from healthimaging.errors import FrameUnavailableError, ServiceError
from healthimaging.frames.fetching import WORKERS


@pytest.fixture(autouse=True, scope="module")
def _quick_collection() -> Iterator[None]:
    with only_what_is_new_is_collected():
        yield


PATIENT: dict[str, Any] = {"read_timeout": 30, "retries": {"mode": "standard", "total_max_attempts": 8}}
"""Settings as in production: whoever waits for these timeouts waits too long."""
GIVEN_UP_SECONDS = 3.0
"""In which a read ends that is closed, or whose consumer fails, whatever the service does meanwhile."""

STALLS: dict[str, Distortion] = {
    "no answer": silence,
    "stalled body": cut("stall"),
    "trickling body": trickling(0.2),
    "throttled": refused(429, "ThrottlingException"),
}


def opened(client: Any, **options: Any) -> ImageSet:
    return ImageSet.open(client, DATASTORE, IMAGE_SET, **options)


def service_that(fault: str | None = None, **options: Any) -> tuple[FaultyService, Any]:
    """All frames but the first are delivered with a fault that does not end."""
    stored, truth = image_set()
    faults = [] if fault is None else [Fault(distort=STALLS[fault], after=1)]
    return FaultyService(image_sets={IMAGE_SET: stored}, faults=faults, **options), truth


@pytest.mark.parametrize("fault", STALLS)
def test_frames_that_are_closed_early_end_soon(fault: str) -> None:
    service, _ = service_that(fault)
    with service, client_of(service, **PATIENT) as client:
        # One worker: the first frame is the one that comes.
        frames = opened(client, workers=1).frames()
        assert next(iter(frames)) is not None
        service.wait_for(lambda: service.frame_requests >= 2)
        with within(GIVEN_UP_SECONDS):
            frames.close()  # type: ignore[attr-defined]  # a generator
        assert service.frame_requests < 8


@pytest.mark.parametrize("fault", STALLS)
def test_a_consumer_that_fails_ends_the_read_soon(fault: str) -> None:
    service, _ = service_that(fault)

    class ConsumerError(Exception):
        pass

    def consume(frames: Iterator[Any]) -> None:
        for _ in frames:
            service.wait_for(lambda: service.frame_requests >= 2)
            raise ConsumerError

    with service, client_of(service, **PATIENT) as client:
        source = opened(client, workers=1)
        with within(GIVEN_UP_SECONDS), pytest.raises(ConsumerError):
            consume(source.frames())


@pytest.mark.parametrize("fault", STALLS)
@pytest.mark.parametrize("read", READS)
def test_an_interrupt_from_the_keyboard_ends_the_read_soon(
    fault: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    service, truth = service_that(fault)
    interrupted: list[float] = []

    def interrupt(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 3:
            timer.start()

    def send() -> None:
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.2, send)
    service.on_request = interrupt
    try:
        with service, client_of(service, **PATIENT) as client:
            source = opened(client)
            with pytest.raises(KeyboardInterrupt):
                READS[read](source, truth)
            assert time.monotonic() - interrupted[0] < GIVEN_UP_SECONDS
            timer.join()
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("fault", ["no answer", "stalled body", "trickling body"])
def test_an_error_does_not_wait_for_frames_that_stall(fault: str) -> None:
    """One frame is lost at once; what stalls beside it need not be waited for."""
    stored, truth = image_set()
    lost = Fault(distort=refused(404, "ResourceNotFoundException"), frame_id=frame_id(stored, MR_UID, 1))
    service = FaultyService(
        image_sets={IMAGE_SET: stored}, faults=[lost, Fault(distort=STALLS[fault], after=6)]
    )
    with service, client_of(service, **PATIENT) as client:
        # With one worker frames are asked for in their order; the lost one is the seventh.
        source = opened(client, workers=1)
        with within(GIVEN_UP_SECONDS):
            caught = failure(FrameUnavailableError, READS["frames"], source, truth)
        assert caught.code == "ResourceNotFoundException"


def test_no_thread_starts_before_the_first_frame_is_asked_for() -> None:
    service, _ = service_that()
    with service, client_of(service, **PATIENT) as client:
        source = opened(client)
        before = client_threads()
        frames = source.frames()
        assert client_threads() == before
        assert service.frame_requests == 0
        del frames


def test_an_iterator_that_is_forgotten_leaves_nothing() -> None:
    service, _ = service_that("stalled body")
    with service, client_of(service, **PATIENT) as client:
        frames = opened(client, workers=1).frames()
        next(iter(frames))
        with within(GIVEN_UP_SECONDS):
            del frames


def test_two_reads_side_by_side_on_one_client_are_both_right() -> None:
    service, truth = service_that()
    service.faults.append(Fault(distort=refused(503, "ServiceUnavailableException"), attempts=1))
    with service, client_of(service, **PATIENT) as client, within(20):
        source = opened(client)
        with ThreadPoolExecutor(6) as pool:
            reads = [pool.submit(READS[read], source, truth) for read in (*READS, *READS)]
            for read in reads:
                read.result()
        # Whatever was open at once stays within what the client says it keeps.
        assert client_sockets(service) <= 2 * 32


def test_one_read_that_fails_does_not_disturb_the_other() -> None:
    stored, truth = image_set()
    broken, _ = image_set()
    broken.documents["1"]["ImageSetID"] = "2" * 32
    for key in broken.frames:
        broken.frames[key] = b""
    service = FaultyService(image_sets={IMAGE_SET: stored, "2" * 32: broken})
    with service, client_of(service, **PATIENT) as client, within(20), ThreadPoolExecutor(2) as pool:
        good = opened(client)
        bad = ImageSet.open(client, DATASTORE, "2" * 32)
        for _ in range(5):
            right, wrong = (pool.submit(READS["frames"], one, truth) for one in (good, bad))
            right.result()
            error = wrong.exception()
            assert getattr(error, "image_set_id", None) == "2" * 32


def test_connections_are_kept_and_used_again() -> None:
    service, truth = service_that()
    with service, client_of(service, **PATIENT) as client:
        source = opened(client)
        for _ in range(5):
            READS["frames"](source, truth)
        assert service.frame_requests == 5 * len(truth.stored)
        assert service.connections <= WORKERS + 4


# Credentials
# ----------------------------------------------------------------------------------------------------------


def refreshing_session(clock: list[dt.datetime], refresh: Callable[[], dict[str, str]]) -> boto3.Session:
    """A session whose credentials last an hour by the clock."""
    inner = botocore.session.Session()
    inner._credentials = RefreshableCredentials(
        "first",
        "s",
        "t",
        clock[0] + dt.timedelta(hours=1),
        refresh,
        "test",
        time_fetcher=lambda: clock[0],
    )
    return boto3.Session(botocore_session=inner, region_name="us-east-1")


@pytest.mark.parametrize("read", READS)
def test_credentials_that_are_refreshed_meanwhile(read: str) -> None:
    clock = [dt.datetime.now(dt.UTC)]
    refreshed: list[str] = []
    service, truth = service_that(accepted_keys={"first", "second"})

    def pass_time(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 3:
            clock[0] += dt.timedelta(minutes=55)

    def refresh() -> dict[str, str]:
        refreshed.append("second")
        expiry = (clock[0] + dt.timedelta(hours=1)).isoformat()
        return {"access_key": "second", "secret_key": "s", "token": "t", "expiry_time": expiry}

    service.on_request = pass_time
    session = refreshing_session(clock, refresh)
    with service, client_of(service, session=session, **PATIENT) as client, within(10):
        READS[read](opened(client, workers=1), truth)
    # Refreshed once, by one thread, and used from then on.
    assert refreshed == ["second"]
    assert service.keys[0] == "first"
    assert service.keys[-5:] == ["second"] * 5


@pytest.mark.parametrize(
    "reason",
    [
        CredentialRetrievalError(provider="test", error_msg="none"),
        client_error("AccessDenied", "AssumeRole"),
        EndpointConnectionError(endpoint_url="https://sts.amazonaws.com"),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ],
)
def test_credentials_that_cannot_be_refreshed_are_a_typed_error(reason: Exception) -> None:
    clock = [dt.datetime.now(dt.UTC)]
    service, truth = service_that(accepted_keys={"first"})

    def pass_time(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 3:
            clock[0] += dt.timedelta(hours=2)

    def fail() -> dict[str, str]:
        raise reason

    service.on_request = pass_time
    session = refreshing_session(clock, fail)
    with service, client_of(service, session=session, **PATIENT) as client, within(10):
        source = opened(client, workers=1)
        caught = failure(FrameUnavailableError, READS["frames"], source, truth)
        assert caught.code
        assert (caught.image_set_id, caught.frame_number) == (IMAGE_SET, 1)
        assert caught.sop_instance_uid
        opening = failure(ServiceError, opened, client)
        assert opening.image_set_id == IMAGE_SET


def test_a_token_that_expires_meanwhile_is_a_typed_error() -> None:
    service, truth = service_that(accepted_keys={"valid"})

    def expire(operation: str, count: int) -> None:
        if operation == "GetImageFrame" and count == 4:
            service.accepted_keys = set()

    service.on_request = expire
    with service, client_of(service, **PATIENT) as client, within(10):
        source = opened(client)
        caught = failure(FrameUnavailableError, READS["frames"], source, truth)
        assert caught.code == "ExpiredTokenException"
