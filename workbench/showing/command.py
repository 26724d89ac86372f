"""`monai-aws show`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.deployment import Deployment
from workbench.environment import REPOSITORY
from workbench.errors import WorkbenchError
from workbench.output import Output
from workbench.show import show
from workbench.showing.private_file import TOLD
from workbench.showing.viewer import NO_SEGMENTATION, write_viewer


def show_command(
    image_set_id: Annotated[str, typer.Argument(help="Image set to show.")],
    env: Env = "local",
    as_json: Json = False,
    image_version: Annotated[
        str | None, typer.Option("--image-version", help="Version of the image set; the latest if not given.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = REPOSITORY / "build" / "show",
    patient: Annotated[bool, typer.Option("--patient", help="Show attributes of the person too.")] = False,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="Write a page in which one can look at the volume.")
    ] = False,
    segmentation: Annotated[
        str | None,
        typer.Option(
            help=f"Image set of the segmentation that the viewer shows, or {NO_SEGMENTATION}; all of the "
            "series if not given."
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Print an image set's header and write a contact sheet of its slices, or write a page to look at it."""
    output = Output(as_json)
    with reporting(output):
        if segmentation is not None and not viewer:
            raise WorkbenchError("A contact sheet has no segmentations.", advice="Add --viewer.")
        deployment = deployment_of(env)
        if viewer:
            viewed = write_viewer(
                deployment,
                image_set_id,
                version_id=image_version,
                segmentation=segmentation,
                folder=folder,
                patient=patient,
                progress=output.progress,
            )
            lines = [f"segment: {label}" for label in viewed.segments]
            output.result(viewed.to_json(), [*lines, *viewed.notes, f"viewer: {viewed.html}", TOLD])
            page: Path | None = viewed.html
        else:
            page = _contact_sheet(deployment, image_set_id, image_version, folder, output, patient=patient)
        if open_ and page is not None:
            webbrowser.open(page.resolve().as_uri())


def _contact_sheet(
    deployment: Deployment,
    image_set_id: str,
    version: str | None,
    folder: Path,
    output: Output,
    *,
    patient: bool,
) -> Path | None:
    shown = show(deployment, image_set_id, version_id=version, folder=folder, patient=patient)
    primary = "primary" if shown.is_primary else "not primary"
    lines = [f"image set {image_set_id} version {shown.version_id}, {shown.instances} instances, {primary}"]
    lines += [f"  {name}: {value}" for name, value in shown.headers.items()]
    lines += [f"contact sheet: {shown.png}", TOLD] if shown.png else [shown.note]
    output.result(shown.to_json(), lines)
    return shown.html
