"""The file of `--report`: there as a whole or not at all, and readable by its owner alone."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.ingesting.report import IngestReport

WriteLine = Callable[[dict[str, object]], None]
"""Adds one line to the file."""


class ReportNotWritten(WorkbenchError):
    """The file of a report cannot be written."""


def is_of_report(report: Path) -> Callable[[str], bool]:
    """Whether a path is that of the report, or of what becomes it: none of both is to be ingested."""
    target = os.path.realpath(report)
    folder, name = os.path.split(target)

    def is_it(path: str) -> bool:
        at, of = os.path.split(path)
        return at == folder and (of == name or of.startswith(f".{name}."))

    return is_it


@contextmanager
def report_file(path: Path) -> Iterator[WriteLine]:
    """A file of JSON lines that takes the place of `path` once everything within the block went well.

    It is opened at once, beside `path`: who gives a folder that cannot be written to learns it before the
    ingest and not after it. It names files and UIDs, so its mode is 0600.

    Raises:
        ReportNotWritten: There is no writing there, at the begin or at the end.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise ReportNotWritten(f"{path} is not a file.", advice="Give --report the name of a file.")
        if target.exists() and _first_byte(target) not in (b"", b"{"):
            # `--report *.dcm` names the first of the files that were to be ingested.
            raise ReportNotWritten(
                f"{path} is no report of an ingest, and is not replaced by one.",
                advice="Give --report another name, or take that file away.",
            )
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ReportNotWritten(
            f"The report cannot be written to {path}: {_reason(error)}.",
            advice="Nothing was done. Give --report a file in a folder that you may write to.",
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:

            def write(line: dict[str, object]) -> None:
                with _told_of(path):
                    file.write(json.dumps(line) + "\n")

            yield write
            with _told_of(path):
                file.flush()
                os.fsync(file.fileno())
                os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportNotWritten(
            f"The report could not be written to {path}: {_reason(error)}.",
            advice="What is in is in, and in the journal: the same command writes the report, and imports "
            "nothing twice.",
        ) from error


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def write_report(report: IngestReport, write: WriteLine) -> None:
    """The totals, then one line a file. It names files as they were given."""
    write(
        {
            "ok": report.ok,
            "datastoreId": report.datastore_id,
            "jobs": list(report.jobs),
            "deidentified": report.deidentified,
            "given": report.given,
            "imported": len(report.imported),
            "alreadyIn": len(report.already),
            "duplicates": len(report.duplicates),
            "failed": len(report.failed),
            "quarantined": len(report.quarantined),
            "skipped": len(report.skipped),
            "notes": list(report.notes),
        }
    )
    for state, files in (("imported", report.imported), ("alreadyIn", report.already)):
        for one in files:
            write(
                {
                    "file": one.file,
                    "state": state,
                    "imageSetId": one.image_set_id,
                    "versionId": str(one.version_id),
                    "isPrimary": one.is_primary,
                }
            )
    for same in report.duplicates:
        write({"file": same.file, "state": "duplicate", "sameAs": same.same_as})
    for state, refused in (("failed", report.failed), ("quarantined", report.quarantined)):
        for bad in refused:
            write({"file": bad.file, "state": state, "kind": bad.kind, "reason": bad.reason})
    for name in report.skipped:
        write({"file": name, "state": "skipped"})
    for remark in report.warnings:
        write({"file": remark.file, "state": "warning", "code": remark.code, "message": remark.message})
