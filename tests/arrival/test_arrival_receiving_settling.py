"""A batch comes to its end once, wherever a process is killed, and whatever comes late."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
from settling_world import Cloud, Killed

from arrival.importing.import_job import JobFailedError
from arrival.receiving import batch_job
from arrival.receiving.batch import FAILED, Batch
from arrival.receiving.settling import INSTANCE_COMES_WITHIN
from arrival.receiving.studies import Closed

BATCH = Batch(study="s", name="r.000001")
FILES = frozenset({"a.dcm", "b.dcm", "c.dcm", "d.dcm"})
REFUSED = frozenset({"a.dcm"})
SILENT_ONCE = {"b.dcm": 1, "c.dcm": 1}
LATE = "z.dcm"


def new_cloud() -> Cloud:
    """One file is refused, and of two the first job says nothing."""
    cloud = Cloud(refused=set(REFUSED), silent=dict(SILENT_ONCE))
    for file in sorted(FILES):
        cloud.arrive(BATCH, file)
    return cloud


def calls_of_a_settling() -> int:
    cloud, calls = new_cloud(), itertools.count()
    cloud.before_call = lambda _name: (next(calls), None)[1]
    cloud.settling().settle(Closed(batch=BATCH, kept=FILES, last=0.0))
    return next(calls)


CALLS = calls_of_a_settling()


def at_call(number: int, act: Callable[[], None]) -> Callable[[str], None]:
    """Acts at one call of all that are made."""
    calls = itertools.count()

    def look(_name: str) -> None:
        if next(calls) == number:
            act()

    return look


def kill() -> None:
    raise Killed


def check_all_ended(cloud: Cloud, files: frozenset[str]) -> None:
    assert cloud.inbox.keys() == {
        f"{FAILED}s/{BATCH.name}/{file}{ending}" for file in REFUSED for ending in ("", ".json")
    }
    assert cloud.archive == files - REFUSED
    assert cloud.reported == len(files)


@pytest.mark.parametrize("killed_at", range(CALLS))
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("in_order", [True, False])
def test_whoever_goes_on_after_a_kill_loses_and_repeats_nothing(
    killed_at: int, when: str, in_order: bool
) -> None:
    cloud = new_cloud()
    setattr(cloud, f"{when}_call", at_call(killed_at, kill))
    with pytest.raises(Killed):
        cloud.settling().settle(Closed(batch=BATCH, kept=FILES, last=0.0))
    # The second one is killed, too, at the same distance, and then somebody has more luck.
    setattr(cloud, f"{when}_call", at_call(killed_at, kill))
    try:
        cloud.settle_all(in_order=in_order)
    except Killed:
        cloud.settle_all(in_order=in_order)
    check_all_ended(cloud, FILES)


@pytest.mark.parametrize("comes_at", range(CALLS))
def test_an_instance_that_comes_late_is_imported_and_reported(comes_at: int) -> None:
    cloud = new_cloud()
    cloud.before_call = at_call(comes_at, lambda: cloud.arrive(BATCH, LATE))
    done = [cloud.settling().settle(Closed(batch=BATCH, kept=None, last=0.0)), *cloud.settle_all()]
    check_all_ended(cloud, FILES | {LATE})
    ended = [one.imported + one.failed for one in done]
    assert sum(ended) == len(FILES) + 1, "each is counted once"


def test_what_is_moved_while_its_second_job_is_under_way_is_not_a_failure() -> None:
    """Killed between two moves; the one that goes on imports what was moved, then the rest is moved."""
    cloud = new_cloud()
    moves = itertools.count()
    cloud.after_call = lambda name: kill() if name == "copy_object" and next(moves) == 1 else None
    with pytest.raises(Killed):
        cloud.settling().settle(Closed(batch=BATCH, kept=FILES, last=0.0))
    cloud.after_call = lambda _name: None
    (moved,) = {key for key in cloud.inbox if key.startswith(BATCH.again.prefix) and key.endswith("b.dcm")}
    # Its job has been started by a process that then was killed, too.
    cloud.after_call = lambda name: kill() if name == "start_dicom_import_job" else None
    with pytest.raises(Killed):
        cloud.settling().settle(Closed(batch=BATCH.again, kept=None, last=0.0))
    cloud.after_call = lambda _name: None
    assert moved in cloud.inbox
    cloud.settle_all()
    check_all_ended(cloud, FILES)


def test_two_jobs_that_say_nothing_of_a_file_make_it_a_failure() -> None:
    cloud = new_cloud()
    cloud.silent["b.dcm"] = 2
    cloud.settle_all()
    again = f"{FAILED}s/{BATCH.again.name}/b.dcm"
    assert cloud.inbox[again] == b"b.dcm"
    assert b"two import jobs say nothing" in cloud.inbox[f"{again}.json"]
    assert cloud.archive == FILES - REFUSED - {"b.dcm"}


def test_a_job_that_failed_has_a_successor_and_in_the_end_all_is_put_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_job, "MOST_JOBS", 3)
    cloud = new_cloud()
    cloud.statuses = ["FAILED"] * 3
    for _ in range(3):
        with pytest.raises(JobFailedError, match="the role"):
            cloud.settle_all()
    assert len(cloud.jobs) == 3
    assert {key.rpartition("/")[2] for key in cloud.waiting if key.endswith(".dcm")} == FILES
    (done,) = cloud.settle_all()
    assert done.failed == len(FILES)
    assert {key for key in cloud.inbox if key.endswith(".dcm")} == {
        f"{FAILED}s/{BATCH.name}/{file}" for file in FILES
    }


def test_a_job_is_remembered_longer_than_its_token() -> None:
    cloud = new_cloud()
    cloud.before_call = lambda name: kill() if name == "get_dicom_import_job" else None
    with pytest.raises(Killed):
        cloud.settling().settle(Closed(batch=BATCH, kept=FILES, last=0.0))
    cloud.before_call = lambda _name: None
    (job,) = cloud.jobs.values()
    cloud.jobs = {"forgotten": job}
    cloud.settling().settle(Closed(batch=BATCH, kept=None, last=0.0))
    assert list(cloud.jobs.values()) == [job]


def test_a_record_whose_instance_never_came_goes_after_a_while() -> None:
    cloud = new_cloud()
    cloud.arrive(BATCH, LATE)
    # Its process was killed before it wrote the instance.
    del cloud.inbox[f"{BATCH.prefix}{LATE}"]
    cloud.settling().settle(Closed(batch=BATCH, kept=None, last=0.0))
    assert f"{BATCH.records}{LATE}.json" in cloud.inbox
    cloud.modified -= INSTANCE_COMES_WITHIN + timedelta(seconds=1)
    cloud.settling().settle(Closed(batch=BATCH, kept=None, last=0.0))
    assert f"{BATCH.records}{LATE}.json" not in cloud.inbox
    cloud.settle_all()
    check_all_ended(cloud, FILES)
