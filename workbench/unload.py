"""Query results as Parquet, with the types that Athena has: it writes the files itself (UNLOAD)."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.progress import Progress, silent
from workbench.query import bytes_scanned, list_price_usd, run, seconds

PREFIX = "query-results/unloaded/"
"""Of the catalog bucket, where results pass and are removed after a while."""


@dataclass(frozen=True, kw_only=True)
class Unloaded:
    """Files of one result; together they are its rows. A result without rows has none."""

    folder: Path
    files: tuple[Path, ...]
    bytes_scanned: int
    seconds: float

    def to_json(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "files": [str(file) for file in self.files],
            "bytesScanned": self.bytes_scanned,
            "listPriceUsd": round(list_price_usd(self.bytes_scanned), 6),
            "seconds": self.seconds,
        }


def unload(deployment: Deployment, sql: str, folder: Path, *, progress: Progress = silent) -> Unloaded:
    """Run a query and download its rows as Parquet files into an empty or new folder, which only its owner
    may read. The folder is there when all of them are.

    Raises:
        WorkbenchError: The folder has files: those of two results must not be mixed. Or its name is that of a
            file: Athena writes several at once, as it likes, and readers of Parquet take the folder.
        QueryFailed: Athena did not run it.
    """
    if folder.suffix == ".parquet":
        raise WorkbenchError(
            f"{folder} is the name of a file: Athena writes several, into a folder.",
            advice=f"Name the folder {folder.with_suffix('')}; readers of Parquet take it as one table.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbenchError(
            f"{folder} is not an empty folder.", advice="Name one that is, or that is not there yet."
        )
    bucket = deployment.stack("catalog")["CatalogBucketName"]
    prefix = f"{PREFIX}{uuid.uuid4().hex}/"
    # On a line of its own: the query may end in a comment.
    query = f"{sql.strip().rstrip(';')}\n"
    statement = f"UNLOAD ({query}) TO 's3://{bucket}/{prefix}' WITH (format = 'PARQUET')"
    _, statistics = run(deployment, statement, progress=progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Some files of a result look like a result: they get the folder's name together.
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        names = _download(deployment, bucket, prefix, beside)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except BaseException:  # Ctrl-C as well: it leaves no rows behind.
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return Unloaded(
        folder=folder,
        files=tuple(folder / name for name in names),
        bytes_scanned=bytes_scanned(statistics),
        seconds=seconds(statistics),
    )


def _download(deployment: Deployment, bucket: str, prefix: str, folder: Path) -> list[str]:
    s3 = deployment.session.client("s3")
    names = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", ()):
            name = one["Key"].removeprefix(prefix).replace("/", "-")
            names.append(name if name.endswith(".parquet") else f"{name}.parquet")
            s3.download_file(bucket, one["Key"], str(folder / names[-1]))
    return names
