"""`python -m workbench.demo`: runs the job, writes the report and the summary, and says in its exit code if
all held.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from workbench.cloud import DEFAULT_ROOT, cloud_status
from workbench.demo.findings import Findings, summary
from workbench.demo.job import DemoOptions, run_job
from workbench.demo.report import duration, render_report
from workbench.demo.steps import Steps
from workbench.environment import REPOSITORY, load_environment
from workbench.errors import WorkbenchError
from workbench.failures import understood
from workbench.session import Session

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    *,
    env: Annotated[str, typer.Option(help="Environment file in infra/environments.")] = "local",
    inputs: Annotated[
        list[Path] | None,
        typer.Option(help="DICOM file or folder to import together with the two patients; may be repeated."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where report.html and summary.json go.")] = REPOSITORY
    / "build"
    / "demo",
    cloud_root: Annotated[Path, typer.Option(help="State of the local cloud.")] = DEFAULT_ROOT,
    minimum_dice: Annotated[
        float, typer.Option(min=0, max=1, help="Dice that the result must reach.")
    ] = 0.85,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps, if not the environment's.")
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Print every line of progress, on a terminal too.")] = False,
) -> None:
    """Run the whole job: deploy, import, query, train, approve, predict, score."""
    console = Console()
    steps = Steps(console, verbose=verbose)
    findings = Findings(
        environment=env,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        minimum_dice=minimum_dice,
        versions={name: version(name) for name in ("boto3", "pydicom", "highdicom")},
    )
    options = DemoOptions(
        folder=folder,
        inputs=tuple(inputs or ()),
        minimum_dice=minimum_dice,
        max_steps=max_steps,
        cloud_root=cloud_root,
    )
    code = 1
    try:
        run_job(Session(load_environment(env)), options, steps, findings)
        code = 0
    except Exception as error:
        findings.error = understood(error)
        if findings.error is None:
            findings.error = WorkbenchError(
                f"Unexpected {type(error).__name__}.",
                advice="This is a defect of the demo: please report it.",
            )
            raise
    finally:
        # After a defect and after Ctrl-C too: a summary of an older run must not stand for this one.
        failed = [step.name for step in steps.records if not step.ok]
        findings.failed_step = failed[-1] if failed else (None if code == 0 else "Prepare")
        _record_local_cloud(findings, options)
        written = _write(findings, steps, folder, console)
        code = 1 if findings.error else max(code, written)
    _say(console, findings, steps, folder)
    raise typer.Exit(code)


def _record_local_cloud(findings: Findings, options: DemoOptions) -> None:
    """Ask the local cloud what it only recorded; after a failure it may not be there to answer."""
    try:
        environment = load_environment(findings.environment)
        if environment.local is not None:
            findings.recorded_only = cloud_status(environment, root=options.cloud_root).recorded_only
    except WorkbenchError as error:
        findings.error = findings.error or error


def _write(findings: Findings, steps: Steps, folder: Path, console: Console) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "summary.json", json.dumps(summary(findings, steps.records), indent=2) + "\n")
        _replace(folder / "report.html", render_report(findings, steps.records))
    except OSError as error:
        console.print(f"[red]The report could not be written to {escape(str(folder))}: {error.strerror}[/]")
        return 1
    return 0


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all: a reader never sees half a report."""
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _say(console: Console, findings: Findings, steps: Steps, folder: Path) -> None:
    console.print()
    if findings.error:
        error = findings.error
        for line in error.details:
            console.print(f"    [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
        console.print(
            f"[bold red]{escape(findings.failed_step or 'Demo')} failed.[/] {escape(error.message)}",
            soft_wrap=True,
        )
        if error.advice:
            console.print(f"[bold]What to do next:[/] {escape(error.advice)}", soft_wrap=True)
    elif findings.score:
        whole = duration(sum(step.seconds for step in steps.records))
        console.print(
            f"[bold green]All {len(steps.records)} steps held[/] in {whole}. "
            f"Dice on the unseen patient: [bold]{findings.score.dice:.3f}[/]"
        )
    console.print(f"Report: {escape(str(folder / 'report.html'))}", highlight=False, soft_wrap=True)
    if findings.error is None and findings.recorded_only is not None:
        console.print(
            'The local cloud is still up: monai-aws query "SELECT * FROM series"; monai-aws cloud down'
        )


if __name__ == "__main__":
    sys.exit(app())
