"""`monai-aws dataset`: from SQL and labels to a manifest."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.datasets.make import Division, make_dataset
from workbench.datasets.selection import default_sql
from workbench.output import Output


def dataset_command(
    sql: Annotated[
        str | None,
        typer.Argument(help="SQL that selects whole rows of series; the default takes --modality."),
    ] = None,
    env: Env = "local",
    as_json: Json = False,
    name: Annotated[str, typer.Option(help="Begin of the manifest's name.")] = "dataset",
    modality: Annotated[str, typer.Option(help="Modality of the images, without SQL.")] = "CT",
    label_description: Annotated[
        str | None, typer.Option(help="Series description of the segmentations that are labels, without SQL.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="CSV file, or its S3 URI, with a class for each study, instead of segmentations."),
    ] = None,
    study_column: Annotated[
        str | None, typer.Option(help="Its column of Study Instance UIDs; study_instance_uid is understood.")
    ] = None,
    class_column: Annotated[
        str | None, typer.Option(help="Its column of classes; class and label are understood.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split by patient.")] = 0,
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of patients for validation.")] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of patients for the test.")] = 0.0,
    stratify: Annotated[
        list[str] | None,
        typer.Option(help="Column whose values are spread over the splits, as classes are; repeatable."),
    ] = None,
    validation_patient: Annotated[
        list[str] | None, typer.Option(help="Patient ID that goes to validation; repeatable.")
    ] = None,
    test_patient: Annotated[
        list[str] | None, typer.Option(help="Patient ID that goes to the test; repeatable.")
    ] = None,
    unlabelled: Annotated[bool, typer.Option(help="Keep images without a label.")] = False,
) -> None:
    """Make a dataset manifest: image sets pinned to versions, labels, split by patient."""
    output = Output(as_json)
    with reporting(output):
        query = sql or default_sql(
            modality=modality, label_description=label_description, segmentations=labels is None
        )
        made = make_dataset(
            deployment_of(env),
            query,
            name=name,
            labels=labels,
            study_column=study_column,
            class_column=class_column,
            division=Division(
                seed=seed,
                validation=validation,
                test=test,
                stratify=stratify or (),
                validation_patients=validation_patient or (),
                test_patients=test_patient or (),
            ),
            labelled_only=not unlabelled,
            progress=output.progress,
        )
        # Zeros are in the manifest; of a line for people they are most of it.
        numbers = {key: value for key, value in made.manifest.statistics.items() if value}
        statistics = ", ".join(f"{key} {value:g}" for key, value in numbers.items())
        output.result(made.to_json(), [made.uri, statistics])
