"""The life of a job that a container does: made, described, listed, stopped, ended, failed by a crash.

Processing and transform jobs differ in what they are asked for and in what their containers do, not in this.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local.sagemaker.errors import in_use, job_not_found, validation
from local.sagemaker.foundation import Foundation, shown, without_tags
from local.sagemaker.jobs import RESTARTED, JobFailedError, Jobs, clean, clean_all, fresh_folder, reason_of
from local.sagemaker.listing import page, select
from local.sagemaker.store import Document, now
from local.service import Call, Handler

logger = logging.getLogger(__name__)


class Run(Protocol):
    """One job at work."""

    def run(self) -> bool:
        """Do the job; False when it was stopped. Raises `JobFailedError` with the FailureReason."""

    def closing_members(self) -> Mapping[str, Any]:
        """What Describe says of the job when it has ended, besides how."""


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """How SageMaker spells one kind of job.

    `noun` is in the names of operations and members: CreateTransformJob, TransformJobName, TransformEndTime.
    """

    noun: str
    summary: tuple[str, ...]
    """Members of a listed job besides its name, ARN, status and times."""
    shows_modification: bool
    """Whether Describe answers LastModifiedTime; List always does."""

    @property
    def stored_as(self) -> str:
        """Kind of its documents, and resource type in its ARNs."""
        return f"{self.noun.lower()}-job"

    def member(self, name: str) -> str:
        """ "Name" -> "TransformJobName"."""
        return f"{self.noun}Job{name}"


class JobLife:
    """The operations of one kind of job, but for what its Create call checks."""

    def __init__(
        self,
        foundation: Foundation,
        kind: JobKind,
        make_run: Callable[[Document, Path, threading.Event], Run],
    ) -> None:
        """`make_run(document, folder, stop)` gives a job's work; `stop` is set when it is to end."""
        self._foundation = foundation
        self._kind = kind
        self._make_run = make_run
        self._jobs = Jobs(foundation)
        self._modified = "LastModifiedTime" if kind.shows_modification else "_LastModifiedTime"

    def handlers(self, create: Handler) -> Mapping[str, Handler]:
        """Operation -> handler; `create` ends with `begin`."""
        noun = self._kind.noun
        return {
            f"Create{noun}Job": create,
            f"Describe{noun}Job": lambda call: shown(self._get(call.params[self._kind.member("Name")])),
            f"List{noun}Jobs": self._list,
            f"Stop{noun}Job": self._stop,
        }

    def begin(self, call: Call, **members: Any) -> Mapping[str, Any]:
        """Keep a job whose request is in order, with `members` besides the request's, and start its
        thread."""
        params, member = call.params, self._kind.member
        name = params[member("Name")]
        arn = self._foundation.names.arn(self._kind.stored_as, name)
        self._foundation.may_tag(call, arn)
        moment = now()
        document: Document = {
            **without_tags(params),
            **members,
            member("Arn"): arn,
            member("Status"): "InProgress",
            "CreationTime": moment,
            self._modified: moment,
        }
        if not self._foundation.store.add(self._kind.stored_as, name, document):
            raise in_use(
                f"{self._kind.noun} job names must be unique within an AWS account and region; "
                f"{name!r} exists."
            )
        self._foundation.tag(call, arn)
        self._jobs.start(
            name,
            lambda stop: self._work(name, stop),
            failed=lambda reason: self._end(name, "Failed", FailureReason=reason),
        )
        return {member("Arn"): arn}

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        clean_all(self._foundation, self._kind.stored_as)
        for document in self._foundation.store.all(self._kind.stored_as):
            if document[self._kind.member("Status")] in ("InProgress", "Stopping"):
                self._end(document[self._kind.member("Name")], "Failed", FailureReason=RESTARTED)

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._jobs.join(seconds)

    def _list(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        member = self._kind.member
        documents = [
            {**document, "LastModifiedTime": document[self._modified]}
            for document in self._foundation.store.all(self._kind.stored_as)
        ]
        chosen = select(documents, call.params, name=member("Name"), status=member("Status"))
        members = (
            member("Name"),
            member("Arn"),
            "CreationTime",
            f"{self._kind.noun}EndTime",
            "LastModifiedTime",
            member("Status"),
            *self._kind.summary,
        )
        return page(chosen, call.params, into=member("Summaries"), members=members)

    def _stop(self, call: Call) -> Mapping[str, Any]:
        """The container is stopped; what it has given to S3 so far stays there."""
        name = call.params[self._kind.member("Name")]
        with self._foundation.store.transaction():
            if self._get(name)[self._kind.member("Status")] != "InProgress":
                raise validation(
                    f"The request was rejected because the {self._kind.noun.lower()} job {name} is not in "
                    "progress."
                )
            self._update(name, **{self._kind.member("Status"): "Stopping"})
        self._jobs.stop(name)
        return {}

    def _get(self, name: str) -> Document:
        document = self._foundation.store.get(self._kind.stored_as, name)
        if document is None:
            raise job_not_found()
        return document

    def _update(self, name: str, **members: Any) -> Document | None:
        def change(document: Document) -> None:
            document.update(members | {self._modified: now()})

        return self._foundation.store.change(self._kind.stored_as, name, change)

    def _end(self, name: str, status: str, **members: Any) -> None:
        member = self._kind.member
        ended = {member("Status"): status, f"{self._kind.noun}EndTime": now()}
        document = self._update(name, **ended, **members)
        if document is not None:
            detail = {key: document[key] for key in (member("Name"), member("Arn"), member("Status"))}
            self._foundation.publish(
                f"SageMaker {self._kind.noun} Job State Change", document[member("Arn")], detail
            )

    def _work(self, name: str, stop: threading.Event) -> None:
        folder = fresh_folder(self._foundation, self._kind.stored_as, name)
        document = self._update(name, **{f"{self._kind.noun}StartTime": now()}) or self._get(name)
        run = self._make_run(document, folder, stop)
        try:
            completed = run.run()
            self._end(name, "Completed" if completed else "Stopped", **run.closing_members())
        except JobFailedError as error:
            reason = reason_of(self._foundation, error)
            self._end(name, "Failed", FailureReason=reason, **run.closing_members())
        except Exception as error:
            logger.exception("%s job %s", self._kind.noun.lower(), name)
            self._end(name, "Failed", FailureReason=reason_of(self._foundation, error))
        finally:
            clean(folder)
