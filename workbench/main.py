"""The `monai-aws` command.

Exit codes: 0 the work is done, 1 it failed (standard error says why and what to do next), 2 the command was
misspelt, 130 Ctrl-C ended it (a training that is followed goes on, and standard error says how to come back).
With --json standard output is one JSON document, also for a failure: {"error": {...}}; none after Ctrl-C.

Without --env the environment is the one that MONAI_ENV names, and `local` where nothing does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.approve import approve, mark_approved
from workbench.cloud import DEFAULT_ROOT, cloud_down, cloud_status, cloud_up
from workbench.command_line import Env, Json, TaskName, deployment_of, reporting
from workbench.compare import compare
from workbench.datasets.command import dataset_command
from workbench.dead_letters.command import dead_letters
from workbench.environment import load_environment
from workbench.ingesting.command import ingest_command
from workbench.output import Output
from workbench.predicting.command import predict_command
from workbench.provision import bootstrap, deploy
from workbench.query_command import query_command
from workbench.receive import receive_command
from workbench.reidentify import reidentify_command
from workbench.session import Session
from workbench.showing.command import show_command
from workbench.training.command import train_command

app = typer.Typer(
    name="monai-aws",
    no_args_is_help=True,
    add_completion=False,
    help="Medical imaging AI on AWS HealthImaging.",
)
cloud = typer.Typer(no_args_is_help=True, help="The cloud on this machine: start, stop, look.")
app.add_typer(cloud, name="cloud")
app.add_typer(dead_letters, name="dead-letters")

Root = Annotated[Path, typer.Option("--root", help="Folder of the local cloud's state.")]


def run() -> int:
    """Entry point of `python -m workbench`."""
    app()
    return 0


@cloud.command("up")
def cloud_up_command(env: Env = "local", as_json: Json = False, root: Root = DEFAULT_ROOT) -> None:
    """Start the local cloud and wait until it answers."""
    output = Output(as_json)
    with reporting(output):
        status = cloud_up(load_environment(env), root=root.resolve(), progress=output.progress)
        output.result(status.to_json(), [f"up at {status.endpoint_url}"])


@cloud.command("down")
def cloud_down_command(env: Env = "local", as_json: Json = False, root: Root = DEFAULT_ROOT) -> None:
    """Stop the local cloud; its state stays."""
    output = Output(as_json)
    with reporting(output):
        cloud_down(load_environment(env), root=root.resolve(), progress=output.progress)
        output.result({"running": False}, ["down"])


@cloud.command("status")
def cloud_status_command(env: Env = "local", as_json: Json = False, root: Root = DEFAULT_ROOT) -> None:
    """Say whether the local cloud runs, and which resource types it only records."""
    output = Output(as_json)
    with reporting(output):
        status = cloud_status(load_environment(env), root=root.resolve())
        state = "up" if status.ready else "starting, or it hangs,"
        lines = [f"{state} at {status.endpoint_url} (pid {status.pid})" if status.running else "not running"]
        lines += [f"recorded only: {one}" for one in status.recorded_only]
        output.result(status.to_json(), lines)


@app.command("deploy")
def deploy_command(
    env: Env = "local",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before permissions become broader.")] = False,
    as_json: Json = False,
) -> None:
    """Bootstrap the account where needed and deploy every stack with the CDK command line.

    On AWS it asks before it makes permissions broader, unless told --yes; the local cloud has no one to ask.
    """
    output = Output(as_json)
    with reporting(output):
        session = Session(load_environment(env))
        bootstrapped = bootstrap(session, progress=output.progress)
        ask = session.environment.local is None and not yes
        deploy(session, progress=output.progress, ask=ask)
        output.result({"environment": env, "bootstrapped": bootstrapped}, [f"deployed {env}"])


app.command("ingest")(ingest_command)


app.command("query")(query_command)
app.command("receive")(receive_command)
app.command("reidentify")(reidentify_command)
app.command("dataset")(dataset_command)
app.command("train")(train_command)


@app.command("compare")
def compare_command(
    packages: Annotated[
        list[str] | None,
        typer.Argument(help="Model packages by ARN or by version; the newest of the task if none is named."),
    ] = None,
    env: Env = "local",
    as_json: Json = False,
    task: TaskName = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 5,
) -> None:
    """Show model packages side by side: scores with intervals, on whom, from what data."""
    output = Output(as_json)
    with reporting(output):
        comparison = compare(deployment_of(env), packages or (), task=task, limit=limit)
        if as_json:
            output.result(comparison.to_json(), [])
        else:
            output.table(*comparison.table())
            for note in comparison.notes():
                output.console.print(note, highlight=False, markup=False, soft_wrap=True)


@app.command("approve")
def approve_command(
    env: Env = "local",
    as_json: Json = False,
    task: TaskName = None,
    model_package: Annotated[
        str | None, typer.Option(help="ARN of the package; the newest that waits for approval if not given.")
    ] = None,
    note: Annotated[str, typer.Option(help="Recorded with the approval.")] = "Approved with monai-aws",
    deploying: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Put it into service, or leave that to the delivery.")
    ] = True,
) -> None:
    """Approve a model package and put it into service, on every endpoint of its task."""
    output = Output(as_json)
    with reporting(output):
        if not deploying:
            package = mark_approved(
                deployment_of(env),
                model_package_arn=model_package,
                task=task,
                note=note,
                progress=output.progress,
            )
            output.result({"modelPackageArn": package}, [f"{package} approved"])
            return
        result = approve(
            deployment_of(env),
            model_package_arn=model_package,
            task=task,
            note=note,
            progress=output.progress,
        )
        lines = [result.model_package_arn]
        for one in result.in_service:
            before = f", before {short_arn(one.before)}" if one.changed and one.before else ""
            state = f"serves it now{before}" if one.changed else "served it already"
            lines.append(f"  {one.served.name} ({one.served.mode}): {one.name} {state}")
        if not result.in_service:
            lines.append("  approved; nothing of this environment serves its task")
        output.result(result.to_json(), lines)


app.command("predict")(predict_command)


app.command("show")(show_command)


def short_arn(arn: str) -> str:
    """A model package's group and version."""
    return arn.partition(":model-package/")[2] or arn
