"""A catalog with a million rows, compacted by the deployed function."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cataloguing.athena import Athena
from benchmarks.cataloguing.synthetic_archive import DATASTORE_ID
from workbench.deployment import Deployment

COMPACT_SECONDS = 900.0
"""The longest that the function may run."""


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What the function did."""

    seconds: float
    statements: int


def put_changes(deployment: Deployment, files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Put the files of the change tables where the index function puts its own; their keys."""
    s3, bucket = deployment.session.client("s3"), deployment.stack("catalog")["CatalogBucketName"]
    keys = []
    for table, paths in files.items():
        for path in paths:
            key = f"changes/{table}/{DATASTORE_ID}/{path.name}"
            s3.upload_file(str(path), bucket, key)
            keys.append(key)
    return keys


def start_compaction(deployment: Deployment, pool: ThreadPoolExecutor) -> Future[Compacted]:
    """Call the deployed function as its schedule does."""
    return pool.submit(_compact, deployment)


def _compact(deployment: Deployment) -> Compacted:
    client = deployment.session.waiting_client("lambda", answer_seconds=COMPACT_SECONDS)
    begin = time.perf_counter()
    answer = client.invoke(FunctionName=deployment.stack("catalog")["CompactFunctionName"], Payload=b"{}")
    document = json.loads(answer["Payload"].read())
    if answer.get("FunctionError") or not document["complete"]:
        raise RuntimeError(f"The compact function did not end its work: {document}")
    return Compacted(seconds=time.perf_counter() - begin, statements=int(document["statements"]))


def remove_changes(
    deployment: Deployment, keys: Sequence[str], *, athena: Athena, rows: Mapping[str, int]
) -> None:
    """Remove the change objects that are compacted now, as the function does ten minutes after it compacted.

    It cannot do it here itself: it removes the object of each image set, and these hold many.

    Raises:
        RuntimeError: Not all of them are compacted.
    """
    for table, count in rows.items():
        sql = f"SELECT count(*) FROM compacted_{table} WHERE datastore_id = '{DATASTORE_ID}'"  # noqa: S608 - a constant and a table of this module
        found = athena.ask(sql).rows[0][0]
        if found != str(count):
            raise RuntimeError(f"compacted_{table} has {found} rows of {count}")
    s3, bucket = deployment.session.client("s3"), deployment.stack("catalog")["CatalogBucketName"]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
