"""Compact function: moves what the index function has written, one small object an image set, into the
Iceberg tables that queries read quickly.

Started by a schedule. A run does, for each table: remove the change objects that are superfluous since an
earlier run; delete compacted rows that a newer change supersedes; insert the newest changes of image sets
that have no compacted rows; and once a day, OPTIMIZE and VACUUM. What arrives while it runs waits for the
next run.

Whatever ends a run, wherever, the views over the tables stay right, and the next run goes on there:

- The views show of each image set the highest version of all that was written, and of one version the rows
  that were written last. No step here takes these away: DELETE removes rows that a change is newer than,
  INSERT copies the newest, and a change object goes only when rows that are not older are compacted, or a
  higher version is in another change.
- Athena does a statement wholly or not at all, one Iceberg commit.
- INSERT would copy an image set twice if two ran at the same time. `progress.py` says why none do.
- A query that was planned before an INSERT was committed, and lists change objects after they were removed,
  would miss both; so would one that lists them twice, before a newer version came and after the older one
  went. So objects are removed `SETTLE_SECONDS` after the last INSERT, and after the newer version, at the
  earliest.

Environment:
    CATALOG_BUCKET: The bucket of the catalog's tables.
    DATABASE, WORKGROUP: Of Athena.
    SETTLE_SECONDS: See above.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import boto3
from botocore.exceptions import ClientError

from runtime.functions.batches.batch import RESERVE_SECONDS, seconds_left
from runtime.functions.batches.errors import FunctionError, code_of
from runtime.functions.catalog_queries.change_objects import CHANGES, change_key
from runtime.functions.catalog_queries.queries import OutOfTimeError, Queries, QueryFailedError
from runtime.functions.compact import statements
from runtime.functions.compact.progress import AnotherRunError, ProgressRecord, Running

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

TABLES = tuple(CHANGES)

_A_CALL = 1000
"""The most keys that DeleteObjects takes."""

_UNFINISHED = {"ICEBERG_OPTIMIZE_MORE_RUNS_NEEDED", "ICEBERG_VACUUM_MORE_RUNS_NEEDED"}
"""Athena's words for maintenance that has done a part of its work, and goes on when it is asked again."""


class RemovalError(FunctionError):
    """Change objects that are superfluous could not be removed. All else has been done, and the next run
    tries again.
    """


@dataclass(kw_only=True)
class Report:
    """What a run has done."""

    removed: int = 0
    """Change objects."""
    statements: int = 0
    """That changed a table."""
    complete: bool = True
    """False: there was more to do than time, more to remove than a run removes, or another invocation does
    it.
    """


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Lambda handler for a schedule of EventBridge; the event says nothing of interest.

    Returns:
        The fields of `Report`.

    Raises:
        QueryFailedError: A statement failed. All else has been done, and the next run begins it anew.
        RemovalError: S3 refused to remove an object.
    """
    variables = os.environ
    s3 = boto3.client("s3")
    bucket = variables["CATALOG_BUCKET"]
    queries = Queries(
        athena=boto3.client("athena"),
        workgroup=variables["WORKGROUP"],
        database=variables["DATABASE"],
        context=context,
    )
    run = Compaction(
        queries=queries,
        s3=s3,
        bucket=bucket,
        record=ProgressRecord(s3=s3, bucket=bucket),
        settle=timedelta(seconds=int(variables["SETTLE_SECONDS"])),
    )
    report = run.work()
    logger.info(
        "compacted: %d statements, %d change objects removed, %s",
        report.statements,
        report.removed,
        "all done" if report.complete else "the next run goes on",
    )
    return vars(report)


@dataclass(kw_only=True)
class Compaction:
    """One run."""

    queries: Queries
    s3: Any
    bucket: str
    record: ProgressRecord
    settle: timedelta
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def work(self) -> Report:
        """Do as much as the time allows."""
        self._report, self._refused = Report(), 0
        self._failure: QueryFailedError | None = None
        try:
            self._try(self._finish_what_was_begun)
            for step in (self._remove, self._merge, self._maintain):
                for table in TABLES:
                    self._try(partial(step, table))
        except (AnotherRunError, OutOfTimeError) as reason:
            logger.info("stopped: %s", reason)
            self._report.complete = False
        if self._failure is not None:
            raise self._failure
        if self._refused:
            msg = f"{self._refused} change objects could not be removed"
            raise RemovalError(msg)
        return self._report

    def _try(self, step: Callable[[], None]) -> None:
        """A statement that fails, perhaps always, keeps neither the other table nor a later step back."""
        try:
            step()
        except QueryFailedError as error:
            logger.error("%s", error)
            self._failure = self._failure or error

    def _finish_what_was_begun(self) -> None:
        self._hurry()
        self.record.read()
        running = self.record.now.running
        if running is not None:
            self._see_through(running)

    def _remove(self, table: str) -> None:
        """Up to `MOST_REMOVED` objects. What S3 does not remove keeps nothing else from being done."""
        inserted = self.record.now.done.get(f"insert {table}")
        if inserted is not None and self.clock() - inserted < self.settle:
            return
        found = self._select(statements.superfluous(table, now=self.clock(), settle=self.settle))
        keys = (
            change_key(table, str(datastore), str(image_set), version=int(version or 0))
            for datastore, image_set, version in found
        )
        asked = 0
        while batch := list(islice(keys, _A_CALL)):
            self._hurry()
            answer = self.s3.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )
            errors = answer.get("Errors", [])
            asked += len(batch)
            self._report.removed += len(batch) - len(errors)
            if errors:
                logger.error(
                    "%d change objects of %s could not be removed: %s", len(errors), table, errors[0]["Code"]
                )
            self._refused += len(errors)
        if asked >= statements.MOST_REMOVED:
            self._report.complete = False

    def _merge(self, table: str) -> None:
        """What waits when it begins. What arrives meanwhile may wait for the next run: the views show it
        anyway, and a run that followed the arrivals would never come to the other table, nor to its end.
        """
        superseded, image_sets, groups = self._survey(table)
        if superseded:
            now = self.clock()
            self._do(f"delete {table}", statements.delete(table, now=now, settle=self.settle))
            # The newer rows of what was deleted wait now.
            _, image_sets, groups = self._survey(table)
        inserts = statements.inserts(image_sets=image_sets, groups=groups)
        for number in range(inserts):
            # Mostly one is enough, and the calculated number is the highest.
            if number and not self._survey(table)[1]:
                return
            self._hurry()
            columns = self.queries.columns(statements.columns(table), token=_token())
            self._do(f"insert {table}", statements.insert(table, columns=columns))

    def _survey(self, table: str) -> tuple[int, int, int]:
        self._hurry()
        ((superseded, image_sets, groups),) = self._select(
            statements.survey(table, now=self.clock(), settle=self.settle)
        )
        return int(superseded or 0), int(image_sets or 0), int(groups or 0)

    def _maintain(self, table: str) -> None:
        """Once a day, in a table that has ever had rows."""
        today = self.clock().date()
        done = self.record.now.done
        if f"insert {table}" not in done:
            return
        for kind, sql in (("optimize", statements.optimize(table)), ("vacuum", statements.vacuum(table))):
            name = f"{kind} {table}"
            last = done.get(name)
            if last is None or last.date() < today:
                self._hurry()
                self._do(name, sql)

    def _select(self, sql: str) -> Iterable[tuple[str | None, ...]]:
        return self.queries.rows(sql, token=_token())

    def _do(self, name: str, sql: str) -> None:
        """A statement that changes a table."""
        running = Running(name=name, sql=sql, token=_token())
        self.record.begin(running)
        self._see_through(running)

    def _see_through(self, running: Running) -> None:
        try:
            if running.execution_id is None:
                running = replace(running, execution_id=self.queries.start(running.sql, token=running.token))
                self.record.begin(running)
            self.queries.wait(str(running.execution_id))
        except ClientError as error:
            # Athena took no such statement, or has forgotten the execution (after 45 days): none runs.
            if code_of(error) == "InvalidRequestException":
                self.record.end(at=None)
            raise
        except QueryFailedError as error:
            self.record.end(at=None)
            if error.word in _UNFINISHED:
                logger.info("%s needs another run", running.name)
                return
            raise
        self.record.end(at=self.clock())
        self._report.statements += 1

    def _hurry(self) -> None:
        if seconds_left(self.queries.context) < RESERVE_SECONDS:
            msg = "no time left to begin something"
            raise OutOfTimeError(msg)


def _token() -> str:
    """Athena wants at least 32 characters."""
    return uuid.uuid4().hex
