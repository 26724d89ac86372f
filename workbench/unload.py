"""Query results as Parquet, with the types that Athena has: it writes the files itself (UNLOAD)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.progress import Progress, silent
from workbench.query import run

PREFIX = "query-results/unloaded/"
"""Of the catalog bucket, where results pass and are removed after a while."""


@dataclass(frozen=True, kw_only=True)
class Unloaded:
    """Files of one result; together they are its rows."""

    files: tuple[Path, ...]
    statistics: Mapping[str, Any]


def unload(deployment: Deployment, sql: str, folder: Path, *, progress: Progress = silent) -> Unloaded:
    """Run a query and download its rows as Parquet files into an empty or new folder.

    Raises:
        WorkbenchError: The folder has files: those of two results must not be mixed.
        QueryFailed: Athena did not run it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbenchError(
            f"{folder} is not an empty folder.", advice="Name one that is, or that is not there yet."
        )
    bucket = deployment.stack("catalog")["CatalogBucketName"]
    prefix = f"{PREFIX}{uuid.uuid4().hex}/"
    statement = f"UNLOAD ({sql.strip().rstrip(';')}) TO 's3://{bucket}/{prefix}' WITH (format = 'PARQUET')"
    _, statistics = run(deployment, statement, progress=progress)
    s3 = deployment.session.client("s3")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", ()):
            name = one["Key"].removeprefix(prefix).replace("/", "-")
            path = folder / (name if name.endswith(".parquet") else f"{name}.parquet")
            s3.download_file(bucket, one["Key"], str(path))
            files.append(path)
    return Unloaded(files=tuple(files), statistics=statistics)
