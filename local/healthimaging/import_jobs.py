"""StartDICOMImportJob, GetDICOMImportJob, ListDICOMImportJobs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from local.healthimaging.context import Context
from local.healthimaging.datastores import active_datastore, moment
from local.healthimaging.errors import conflict, invalid, not_found
from local.healthimaging.identifiers import new_id
from local.healthimaging.import_runner import ImportRunner, record_job, shown_output_uri
from local.healthimaging.paging import page_of
from local.service import Call, Handler


class ImportJobs:
    """The operations on import jobs."""

    def __init__(self, context: Context, runner: ImportRunner) -> None:
        self._context = context
        self._runner = runner

    def handlers(self) -> Mapping[str, Handler]:
        """By operation."""
        return {
            "StartDICOMImportJob": self.start,
            "GetDICOMImportJob": self.get,
            "ListDICOMImportJobs": self.list,
        }

    def start(self, call: Call) -> dict[str, Any]:
        """Store a job and queue it. The caller must be allowed to pass the role to HealthImaging."""
        params = dict(call.params)
        token = params.pop("clientToken")
        context = self._context
        context.cloud.authorize(
            caller=call.caller,
            action="iam:PassRole",
            resources=[params["dataAccessRoleArn"]],
            context={"iam:PassedToService": "medical-imaging.amazonaws.com"},
        )
        if "importConfiguration" in params:
            raise invalid("importConfiguration is not supported by the local cloud: import DICOM P10 files.")
        request = json.dumps(params, sort_keys=True)
        datastore_id = params["datastoreId"]
        with context.database.transaction() as connection:
            active_datastore(connection, datastore_id)
            earlier = connection.execute(
                "SELECT * FROM jobs WHERE datastore_id = ? AND client_token = ?", (datastore_id, token)
            ).fetchone()
            if earlier is not None:
                if earlier["request"] != request:
                    raise conflict("The clientToken was used before with other parameters.")
                return _started(earlier)
            job_id = new_id()
            connection.execute(
                "INSERT INTO jobs (id, position, datastore_id, name, status, role_arn, input_uri, output_uri,"
                " input_owner, client_token, request, submitted_at)"
                " VALUES (?, (SELECT COUNT(*) FROM jobs), ?, ?, 'SUBMITTED', ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    datastore_id,
                    params.get("jobName", job_id),
                    params["dataAccessRoleArn"],
                    params["inputS3Uri"],
                    params["outputS3Uri"],
                    params.get("inputOwnerAccountId"),
                    token,
                    request,
                    context.clock(),
                ),
            )
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            record_job(
                connection, row, detail_type="Import Job Submitted", arn=context.arns.datastore(datastore_id)
            )
        context.publisher.wake()
        self._runner.submit(job_id)
        return _started(row)

    def get(self, call: Call) -> dict[str, Any]:
        """A job's properties. COMPLETED says that the report is written, not that files were imported."""
        row = (
            self._context.database.reader()
            .execute(
                "SELECT * FROM jobs WHERE datastore_id = ? AND id = ?",
                (call.params["datastoreId"], call.params["jobId"]),
            )
            .fetchone()
        )
        if row is None:
            raise not_found(f"Import job {call.params['jobId']}")
        return {
            "jobProperties": {
                **_summary(row),
                "inputS3Uri": row["input_uri"],
                "outputS3Uri": shown_output_uri(row),
            }
        }

    def list(self, call: Call) -> dict[str, Any]:
        """A datastore's jobs, newest first."""
        datastore_id, status = call.params["datastoreId"], call.params.get("jobStatus")
        connection = self._context.database.reader()
        active_datastore(connection, datastore_id)
        rows = connection.execute(
            "SELECT * FROM jobs WHERE datastore_id = ? AND (? IS NULL OR status = ?) ORDER BY position DESC",
            (datastore_id, status, status),
        ).fetchall()
        page, following = page_of(
            rows,
            token=call.params.get("nextToken"),
            maximum=call.params.get("maxResults"),
            scope=f"jobs {datastore_id} {status}",
        )
        answer: dict[str, Any] = {"jobSummaries": [_summary(row) for row in page]}
        if following is not None:
            answer["nextToken"] = following
        return answer


def _started(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "datastoreId": row["datastore_id"],
        "jobId": row["id"],
        "jobStatus": row["status"],
        "submittedAt": moment(row["submitted_at"]),
    }


def _summary(row: sqlite3.Row) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "jobId": row["id"],
        "jobName": row["name"],
        "jobStatus": row["status"],
        "datastoreId": row["datastore_id"],
        "dataAccessRoleArn": row["role_arn"],
        "submittedAt": moment(row["submitted_at"]),
    }
    if row["ended_at"] is not None:
        shown["endedAt"] = moment(row["ended_at"])
    if row["message"] is not None:
        shown["message"] = row["message"]
    return shown
