"""What the commands of `monai-aws` have in common: options, the frame around a piece of work, references."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from healthimaging.reference import ImageSetRef
from workbench.deployment import Deployment
from workbench.environment import load_environment
from workbench.errors import WorkbenchError
from workbench.failures import understood
from workbench.output import Output
from workbench.session import Session

Env = Annotated[
    str,
    typer.Option(
        "--env", envvar="MONAI_ENV", help="Environment file: its name in infra/environments, or a path."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Training task; needed if there are several.")]


@contextmanager
def reporting(output: Output) -> Iterator[None]:
    """Print a foreseen failure and exit with 1; a defect keeps its traceback."""
    try:
        yield
    except Exception as error:
        failure = understood(error)
        if failure is None:
            raise
        output.failure(failure)
        raise typer.Exit(1) from error


def deployment_of(env: str) -> Deployment:
    """The stacks of an environment."""
    return Deployment(Session(load_environment(env)))


def name_and_value(text: str, *, option: str) -> tuple[str, str]:
    """The parts of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise WorkbenchError(f"{text!r} is not NAME=VALUE.", advice=f"For example {option}.")
    return name, value


def reference(deployment: Deployment, image_set_id: str, version: str | None) -> ImageSetRef:
    """An image set of the environment's data store; without a version at its latest."""
    datastore = deployment.stack("data")["DatastoreId"]
    if version is None:
        client = deployment.session.client("medical-imaging")
        version = str(client.get_image_set(datastoreId=datastore, imageSetId=image_set_id)["versionId"])
    return ImageSetRef(datastore_id=datastore, image_set_id=image_set_id, version_id=version)
