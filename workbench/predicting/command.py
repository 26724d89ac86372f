"""`monai-aws predict`: results for one image set, or for many with a batch job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from healthimaging.reference import ImageSetRef
from workbench.command_line import Env, Json, deployment_of, reference, reporting
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.output import Output
from workbench.predicting.answer import Prediction
from workbench.predicting.batch import BatchResult, images_of_manifest, images_of_query, predict_batch
from workbench.predicting.predict import predict


def predict_command(
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image set; with --batch several of them, or the S3 URI of a dataset manifest."),
    ] = None,
    env: Env = "local",
    as_json: Json = False,
    image_version: Annotated[
        str | None, typer.Option("--image-version", help="Version of the image set; the latest if not given.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Endpoint as the environment file names it, of any mode; without it the first asynchronous "
            "one, with --batch the first model for batch jobs."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Task, or name of the archive, where an endpoint has several models.")
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Start a batch job over all of them, and wait for its end.")
    ] = False,
    sql: Annotated[
        str | None,
        typer.Option("--query", help="With --batch: SQL that selects whole rows of the table series."),
    ] = None,
) -> None:
    """Apply the approved model to image sets; the results are stored beside them in the datastore."""
    output = Output(as_json)
    with reporting(output):
        named = images or []
        if batch:
            if model is not None or image_version is not None:
                raise WorkbenchError(
                    "--model and --image-version are for a single image set.",
                    advice="A manifest or a query pins versions; image sets by id are taken at their latest.",
                )
            deployment = deployment_of(env)
            chosen = _chosen(deployment, named, sql)
            result = predict_batch(deployment, chosen, endpoint=endpoint, progress=output.progress)
            output.result(result.to_json(), _batch_lines(result))
        else:
            if len(named) != 1 or sql is not None:
                raise WorkbenchError(
                    "Without --batch exactly one image set is named.",
                    advice="For one: monai-aws predict IMAGE_SET_ID. For many: monai-aws predict --batch "
                    'ID ID ..., --batch s3://.../manifest.json or --batch --query "SELECT * FROM series ..."',
                )
            deployment = deployment_of(env)
            image = reference(deployment, named[0], image_version)
            answer = predict(deployment, image, endpoint=endpoint, model=model, progress=output.progress)
            output.result(answer.to_json(), answer_lines(answer))
    if batch and not result.ok:
        if not as_json:
            output.errors.print(
                "Nothing is stored twice: after the cause is gone, name the failed image sets again.",
                highlight=False,
                soft_wrap=True,
            )
        raise typer.Exit(1)


def _chosen(deployment: Deployment, named: Sequence[str], sql: str | None) -> Sequence[ImageSetRef]:
    manifests = [one for one in named if one.startswith("s3://")]
    kinds = [bool(sql), bool(manifests), len(named) > len(manifests)]
    if sum(kinds) != 1 or len(manifests) > 1:
        raise WorkbenchError(
            "A batch takes image sets, or one manifest, or a query.",
            advice="Choose one of the three; a query can select what several manifests hold.",
        )
    if sql:
        return images_of_query(deployment, sql)
    if manifests:
        return images_of_manifest(deployment, manifests[0])
    return [reference(deployment, one, None) for one in named]


def answer_lines(answer: Prediction) -> Iterator[str]:
    """An answer for a person: what was found, and where it is stored."""
    for segment in answer.segments:
        yield f"{segment.label}: {segment.volume_ml:.1f} ml"
    for found in answer.classes:
        yield f"{found.label}: probability {found.probability:.3f}"
    stored = answer.stored_segmentation
    if stored is not None:
        yield (
            f"stored as image set {stored.image_set_id}, series {stored.series_instance_uid}"
            f"{'' if stored.is_primary else ', NOT PRIMARY'}"
        )
    for report in answer.reports:
        place = report.s3_uri if report.image_set_id is None else f"image set {report.image_set_id}"
        yield f"{report.kind}: {place}{', NOT PRIMARY' if report.is_primary is False else ''}"


def _batch_lines(result: BatchResult) -> Iterator[str]:
    """One image set a line, failures last."""
    for one in result.results:
        found = [f"{segment.label} {segment.volume_ml:.1f} ml" for segment in one.segments]
        found += [f"{each.label} {each.probability:.3f}" for each in one.classes]
        stored = one.stored_segmentation
        place = f" -> image set {stored.image_set_id}" if stored else ""
        conflict = ", NOT PRIMARY" if one.non_primary else ""
        yield f"{one.image_set_id} version {one.version_id}: {', '.join(found)}{place}{conflict}"
    for failure in result.failures:
        yield f"FAILED {failure.image_set_id} version {failure.version_id}: {failure.reason}"
    if result.failures:
        yield from (f"  {line}" for line in result.log)
    yield (
        f"{len(result.results)} of {len(result.results) + len(result.failures)} image sets, "
        f"{result.seconds:.0f} s, transform job {result.job} {result.status}"
    )
