"""Brings DICOM files into the datastore: S3, import jobs, and what the jobs say became of every file.

docs/ingest.md says what counts as in, as failed and as the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from workbench.deployment import Deployment
from workbench.ingesting.options import Options
from workbench.ingesting.report import ImageSetSummary, IngestReport
from workbench.ingesting.run import archive_of, run_ingest
from workbench.ingesting.watching import Lines
from workbench.progress import Progress, silent

__all__ = ["ImageSetSummary", "IngestReport", "Options", "archive_of", "ingest"]


def ingest(
    deployment: Deployment,
    paths: Iterable[Path | str],
    *,
    options: Options | None = None,
    progress: Progress = silent,
) -> IngestReport:
    """Import every DICOM file of `paths`; files that fail are in the report, not an exception.

    Args:
        deployment: The environment.
        paths: Files, folders, zip files, and S3 URIs as text.
        options: What is done with what is in already, how many jobs at once, which journal.
        progress: Is told where it is.

    Raises:
        WorkbenchError: One of `paths` is not there.
        ClientError: A service refused. The same call goes on where this one ended.
    """
    given = [path if isinstance(path, str) else os.fspath(path) for path in paths]
    return run_ingest(deployment, given, options=options or Options(), watcher=Lines(progress))
