"""What two threads may do to a job at the same moment."""

from __future__ import annotations

import pytest

from runtime.errors import StoppingError
from runtime.serving.lanes import FairQueue, Job, Lane


def _job() -> Job:
    return Job(lambda job: "answer")


def test_a_job_that_was_taken_is_begun_before_it_can_be_answered_with_an_error() -> None:
    """The container stops between taking and working: the worker must live on."""
    queue, lane, job = FairQueue(), Lane(capacity=1), _job()
    queue.put(lane, job)
    assert queue.take() is job
    assert job.answer.running()
    assert not queue.drain(seconds=0, reason="stopping")
    with pytest.raises(StoppingError):
        job.answer.result(0)
    queue.finish(job, lambda: job.answer.set_result("late"))
    assert queue.take() is None


def test_jobs_that_nobody_waits_for_are_passed_over() -> None:
    queue, lane = FairQueue(), Lane(capacity=3)
    jobs = [_job() for _ in range(3)]
    for job in jobs:
        queue.put(lane, job)
    jobs[0].abandon()
    jobs[1].fail(StoppingError("answered"))
    assert queue.take() is jobs[2]


def test_a_caller_that_leaves_while_it_is_told_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job()
    monkeypatch.setattr(job.answer, "done", lambda: False)
    job.answer.cancel()
    job.fail(StoppingError("stopping"))
    assert job.answer.cancelled()
