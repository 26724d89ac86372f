"""`monai-aws ingest`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.errors import WorkbenchError
from workbench.ingesting.bars import Bars
from workbench.ingesting.dry_run import plan
from workbench.ingesting.options import JOBS_AT_ONCE, Options
from workbench.ingesting.report import IngestReport
from workbench.ingesting.report_file import ReportNotWritten, is_of_report, report_file, write_report
from workbench.ingesting.run import run_ingest
from workbench.ingesting.watching import Lines, Watcher
from workbench.output import Output, printable


def ingest_command(
    paths: Annotated[
        list[str], typer.Argument(help="DICOM files, folders or zip files with them, or s3://BUCKET/PREFIX.")
    ],
    env: Env = "local",
    as_json: Json = False,
    deidentify: Annotated[
        bool | None,
        typer.Option(
            "--deidentify/--no-deidentify",
            help="Before files leave this machine; the environment file says so where nothing is given.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Import instances that the archive holds with other content.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Import also what the archive holds with the same content.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=100, help="Import jobs at the same time.")] = JOBS_AT_ONCE,
    journal: Annotated[
        Path | None, typer.Option(help="Journal of what has been done; build/ingest/DATASTORE.sqlite.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write what became, or would become, of every file there.")
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", help="Show patients' data where attributes conflict.")
    ] = False,
) -> None:
    """Import DICOM files; fails unless everything that is DICOM is in. Run it again to go on after a failure.

    What the archive holds already is not imported twice.
    """
    output = Output(as_json)
    options = Options(journal=journal, deidentify=deidentify, replace=replace, again=again, jobs_at_once=jobs)
    made: _Made | None = None
    with reporting(output):
        if dry_run and values:
            raise WorkbenchError(
                "--values shows in what image sets contradict their study, and a dry run makes none.",
                advice="Leave out --values, or --dry-run.",
            )
        leave_out = is_of_report(report) if report is not None else lambda _path: False
        try:
            with ExitStack() as stack:
                # Before anything is done: an ingest of hours shall not end with a report that has no place.
                write = stack.enter_context(report_file(report)) if report is not None else None
                watcher = stack.enter_context(_watching(output))
                if dry_run:
                    planned = plan(
                        deployment_of(env),
                        paths,
                        options=options,
                        watcher=watcher,
                        write=write,
                        leave_out=leave_out,
                    )
                    made = _Made(
                        ok=planned.ok, document=planned.to_json(), lines=[*map(printable, planned.lines())]
                    )
                else:
                    done = run_ingest(
                        deployment_of(env),
                        paths,
                        options=options,
                        watcher=watcher,
                        values=values,
                        leave_out=leave_out,
                    )
                    made = _Made(
                        ok=done.ok, document=done.to_json(), lines=[*map(printable, report_lines(done))]
                    )
                    if write is not None:
                        write_report(done, write)
        except KeyboardInterrupt:
            output.errors.print(
                "Stopped; nothing was changed."
                if dry_run
                else "Stopped. What is done is in the journal: the same command goes on."
            )
            raise
        except ReportNotWritten as error:
            if made is None:
                raise
            # What was done is told all the same.
            output.result(made.document, made.lines)
            output.errors.print(f"{error.message} {error.advice}", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error
        output.result(made.document, made.lines)
    if not made.ok:
        if not any(made.document[key] for key in ("failed", "quarantined")):
            output.errors.print("No DICOM file was found.")
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What there is to tell."""

    ok: bool
    document: dict[str, Any]
    lines: list[str]


def _watching(output: Output) -> AbstractContextManager[Watcher]:
    if not output.as_json and output.errors.is_terminal:
        return Bars(output.errors)
    return nullcontext(Lines(output.progress))


def report_lines(report: IngestReport) -> list[str]:
    """For a person: totals, image sets, and every file that is not simply in."""
    how = ", de-identified" if report.deidentified else ""
    totals = (
        f"{len(report.imported)} files imported{how}, {len(report.already)} already in,"
        f" {len(report.duplicates)} duplicates, {len(report.failed)} failed,"
        f" {len(report.quarantined)} quarantined, {len(report.skipped)} skipped, of {report.given} given;"
        f" in {len(report.image_sets)} image sets"
    )
    lines = [totals]
    why = {one.image_set_id: one for one in report.conflicts}
    for one in report.image_sets:
        primary = "" if one.is_primary else ", NOT PRIMARY: it conflicts with its study"
        conflict = why.get(one.image_set_id)
        if conflict is not None and conflict.attributes:
            primary += f" in {', '.join(conflict.attributes)}"
        elif conflict is not None and conflict.unknown:
            primary += f"; in what, could not be looked up: {conflict.unknown}"
        lines.append(f"  {one.image_set_id} version {one.version_id}, {one.instances} instances{primary}")
        if conflict is not None:
            lines += [f"    {key}: {here!r}, not {there!r}" for key, (here, there) in conflict.values.items()]
    lines += [f"note: {one}" for one in report.notes]
    lines += [f"warning {one.code}: {one.file}: {one.message}" for one in report.warnings]
    lines += [f"duplicate: {one.file} is the same as {one.same_as}" for one in report.duplicates]
    lines += [f"not DICOM, skipped: {one}" for one in report.skipped]
    lines += [f"QUARANTINED {one.file}: {one.reason}" for one in report.quarantined]
    lines += [f"FAILED {one.file}: {one.kind}: {one.reason}" for one in report.failed]
    return lines
