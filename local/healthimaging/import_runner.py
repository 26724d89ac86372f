"""Runs import jobs in the background, and again after a restart.

Files are read, decoded and encoded by several threads. Then one transaction puts everything into image sets
and keeps the job's result, so a job that is interrupted has either stored nothing, and starts over, or
everything, and only writes its report again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.healthimaging.context import Context
from local.healthimaging.datastores import STORAGE_SYNTAXES, active_datastore
from local.healthimaging.errors import failure_place
from local.healthimaging.import_report import FileLine, JobResult, job_folder, parse_s3_uri, report_objects
from local.healthimaging.instances import ParsedInstance, RejectedFile, parse_instance
from local.healthimaging.outbox import record
from local.healthimaging.placement import place
from local.service import ServiceError

_log = logging.getLogger(__name__)

MAXIMUM_FILES = 5_000
MAXIMUM_TOTAL_BYTES = 10 * 1024**3
MAXIMUM_FILE_BYTES = 4 * 1024**3
"""Limits of one import job (service quotas); they are part of what an import job is, so they always hold."""

_JOB_THREADS = 2
_MESSAGE_LENGTH = 2048
_NOT_IN_A_MESSAGE = re.compile(r"[^\w -:`]")


class JobFailed(Exception):
    """The job as a whole cannot be done."""


@dataclass(frozen=True, kw_only=True)
class _Object:
    key: str
    size: int


class ImportRunner:
    """A queue of jobs and the threads that work on them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._files: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, with the jobs that an earlier process left unfinished."""
        self._stopping.clear()
        self._files = ThreadPoolExecutor(
            max(os.cpu_count() or 1, 2) + 2, thread_name_prefix="healthimaging-file"
        )
        self._threads = [
            threading.Thread(target=self._run, name=f"healthimaging-import-{number}", daemon=True)
            for number in range(_JOB_THREADS)
        ]
        for thread in self._threads:
            thread.start()
        unfinished = self._context.database.reader().execute(
            "SELECT id FROM jobs WHERE status IN ('SUBMITTED', 'IN_PROGRESS') ORDER BY position"
        )
        for row in unfinished.fetchall():
            self.submit(row["id"])

    def stop(self) -> None:
        """End; a job that is under way starts over after the next start."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        if self._files is not None:
            self._files.shutdown(wait=False, cancel_futures=True)

    def submit(self, job_id: str) -> None:
        """Have a stored job done. One that waits or is worked on already is not done twice."""
        with self._lock:
            if job_id in self._taken:
                return
            self._taken.add(job_id)
        self._queue.put(job_id)

    def _run(self) -> None:
        while (job_id := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                self._do(job_id)
            except Exception as error:  # noqa: BLE001 - the job fails, the thread lives on for the others
                if self._stopping.is_set():
                    return
                _log.error("Import job %s failed: %s", job_id, failure_place(error))
                self._end(job_id, "FAILED", "An internal error occurred.")
            with self._lock:
                self._taken.discard(job_id)

    def _do(self, job_id: str) -> None:
        row = self._context.database.reader().execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row["status"] in ("COMPLETED", "FAILED"):
            return
        try:
            credentials = self._context.cloud.assume(
                role_arn=row["role_arn"],
                principal="medical-imaging.amazonaws.com",
                session_name=f"DicomImport-{job_id}",
                source_arn=self._context.arns.datastore(row["datastore_id"]),
            )
            s3 = self._context.cloud.client("s3", credentials=credentials)
            if row["result"] is None:
                self._begin(row)
                self._import(row, s3)
            self._report(job_id, s3)
        except ServiceError as error:
            self._end(job_id, "FAILED", f"The data access role cannot be assumed: {error.message}")
        except JobFailed as error:
            self._end(job_id, "FAILED", str(error))
        except (ClientError, BotoCoreError) as error:
            self._end(job_id, "FAILED", _s3_failure(error))
        else:
            self._end(job_id, "COMPLETED", None)

    def _begin(self, row: sqlite3.Row) -> None:
        if row["status"] == "IN_PROGRESS":
            return
        with self._context.database.transaction() as connection:
            connection.execute("UPDATE jobs SET status = 'IN_PROGRESS' WHERE id = ?", (row["id"],))
            self._tell(connection, row["id"], "Import Job In Progress")
        self._context.publisher.wake()

    def _import(self, row: sqlite3.Row, s3: Any) -> None:
        if self._files is None:
            raise RuntimeError("the runner is not started")
        owner = {"ExpectedBucketOwner": row["input_owner"]} if row["input_owner"] else {}
        bucket = parse_s3_uri(row["input_uri"]).bucket
        objects = _list_objects(s3, row["input_uri"], owner)
        datastore = active_datastore(self._context.database.reader(), row["datastore_id"])
        storage_syntax = STORAGE_SYNTAXES[datastore["storage_format"]]

        with self._context.content.holding() as put:

            def read(item: _Object) -> ParsedInstance | RejectedFile:
                if self._stopping.is_set():
                    raise JobFailed("The cloud is stopping.")
                try:
                    data = s3.get_object(Bucket=bucket, Key=item.key, **owner)["Body"].read()
                    return parse_instance(data, storage_syntax=storage_syntax, put=put)
                except RejectedFile as error:
                    return error
                except s3.exceptions.NoSuchKey:
                    return RejectedFile("The object was removed before it was read")

            futures = [self._files.submit(read, item) for item in objects]
            try:
                outcomes = [future.result() for future in futures]
            finally:
                # Nothing may be stored any more once the hold on the content ends.
                for future in futures:
                    future.cancel()
                wait(futures)
            self._store(row, objects, outcomes)
        self._context.publisher.wake()

    def _store(
        self, row: sqlite3.Row, objects: list[_Object], outcomes: list[ParsedInstance | RejectedFile]
    ) -> None:
        """One transaction: the image sets, their events, and the job's result."""
        arrivals = [outcome for outcome in outcomes if isinstance(outcome, ParsedInstance)]
        context = self._context
        with context.database.transaction() as connection:
            placements = place(
                connection,
                datastore_id=row["datastore_id"],
                arrivals=arrivals,
                arns=context.arns,
                now=context.clock(),
            )
            image_set_of = {
                arrival: number
                for number, placement in enumerate(placements)
                for arrival in placement.arrivals
            }
            files: list[FileLine] = []
            position = 0
            for item, outcome in zip(objects, outcomes, strict=True):
                if isinstance(outcome, RejectedFile):
                    files.append(
                        {
                            "inputFile": item.key,
                            "imageSet": None,
                            "exceptionType": outcome.exception_type,
                            "message": str(outcome),
                            "warnings": [],
                        }
                    )
                    continue
                files.append(
                    {
                        "inputFile": item.key,
                        "imageSet": image_set_of[position],
                        "exceptionType": "",
                        "message": "",
                        "warnings": [warning.to_json() for warning in outcome.warnings],
                    }
                )
                position += 1
            result: JobResult = {
                "files": files,
                "imageSets": [
                    {
                        "imageSetId": placement.image_set_id,
                        "imageSetVersion": placement.version,
                        "isPrimary": placement.is_primary,
                        "numberOfMatchedSOPInstances": len(placement.arrivals),
                    }
                    for placement in placements
                ],
                "generated": sum(placement.created for placement in placements),
            }
            connection.execute("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(result), row["id"]))

    def _report(self, job_id: str, s3: Any) -> None:
        row = self._context.database.reader().execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        folder = job_folder(row["output_uri"], datastore_id=row["datastore_id"], job_id=job_id)
        objects = report_objects(
            json.loads(row["result"]),
            job_id=job_id,
            datastore_id=row["datastore_id"],
            input_uri=row["input_uri"],
            output_uri=row["output_uri"],
        )
        for name, data in objects.items():
            s3.put_object(Bucket=folder.bucket, Key=f"{folder.prefix}{name}", Body=data)

    def _end(self, job_id: str, status: str, message: str | None) -> None:
        if self._stopping.is_set() and status == "FAILED":
            return
        text = None if message is None else _NOT_IN_A_MESSAGE.sub(" ", message)[:_MESSAGE_LENGTH]
        with self._context.database.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET status = ?, message = ?, ended_at = ? WHERE id = ?",
                (status, text, self._context.clock(), job_id),
            )
            self._tell(connection, job_id, f"Import Job {status.capitalize()}")
        self._context.publisher.wake()

    def _tell(self, connection: sqlite3.Connection, job_id: str, detail_type: str) -> None:
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        record_job(
            connection, row, detail_type=detail_type, arn=self._context.arns.datastore(row["datastore_id"])
        )


def shown_output_uri(row: sqlite3.Row) -> str:
    """A job's outputS3Uri: what was asked for, and once the job has completed, its own folder."""
    if row["status"] != "COMPLETED":
        return str(row["output_uri"])
    return job_folder(row["output_uri"], datastore_id=row["datastore_id"], job_id=row["id"]).uri


def record_job(connection: sqlite3.Connection, row: sqlite3.Row, *, detail_type: str, arn: str) -> None:
    """An event of a job, within the transaction. `arn` is its datastore's."""
    detail = {
        "datastoreId": row["datastore_id"],
        "jobId": row["id"],
        "jobName": row["name"],
        "jobStatus": row["status"],
        "inputS3Uri": row["input_uri"],
        "outputS3Uri": shown_output_uri(row),
    }
    record(connection, detail_type=detail_type, detail=detail, resource=arn)


def _list_objects(s3: Any, input_uri: str, owner: dict[str, str]) -> list[_Object]:
    location = parse_s3_uri(input_uri)
    objects: list[_Object] = []
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=location.bucket, Prefix=location.prefix, **owner
    )
    for page in pages:
        # Consoles mark folders with empty objects whose key ends in a slash.
        objects += [
            _Object(key=item["Key"], size=item["Size"])
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]
    if not objects:
        raise JobFailed(f"No files were found at {location.uri}")
    if len(objects) > MAXIMUM_FILES:
        raise JobFailed(f"The input holds {len(objects)} files, an import job takes at most {MAXIMUM_FILES}")
    if sum(item.size for item in objects) > MAXIMUM_TOTAL_BYTES:
        raise JobFailed("The input is larger than 10 GB, the most that an import job takes")
    if any(item.size > MAXIMUM_FILE_BYTES for item in objects):
        raise JobFailed("A file of the input is larger than 4 GB, the most that an import job takes")
    return objects


def _s3_failure(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        return f"{code} when the data access role called {error.operation_name}: {message}"
    return f"Amazon S3 could not be reached: {type(error).__name__}"
