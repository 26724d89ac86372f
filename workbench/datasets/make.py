"""Makes a dataset out of a query: image series and their labels, pinned to versions, split by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from healthimaging.manifest import Case, Manifest, Split, patient_key
from healthimaging.reference import ImageSetRef
from workbench.catalog import SeriesRow, series_rows
from workbench.content_named import put_once
from workbench.datasets.class_table import ClassTable, open_class_table
from workbench.datasets.labelling import Labelled, LabelledSeries, by_class, by_segmentation, listed
from workbench.datasets.patient_split import Stratum, split_patients
from workbench.datasets.statistics import case_statistics, missing_classes, volume_statistics
from workbench.deployment import Deployment
from workbench.errors import DatasetInvalid
from workbench.progress import Progress, silent
from workbench.query import query

MANIFEST_FOLDER = "manifests/"
"""Prefix of the model bucket."""

IDENTIFYING = frozenset({"patient_id", "patient_birth_date", "accession_number", "study_id"})
"""Columns that are no strata: nearly every person has a value of their own, and warnings would print it."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A manifest and where it was stored."""

    manifest: Manifest
    uri: str
    warnings: tuple[str, ...] = ()
    """What a person should know before they train on it."""

    def to_json(self) -> dict[str, object]:
        return {
            "manifestUri": self.uri,
            "cases": len(self.manifest.cases),
            "labels": dict(self.manifest.labels),
            "statistics": dict(self.manifest.statistics),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class Division:
    """How patients are divided.

    Attributes:
        seed: What the split is drawn with.
        validation: Share of patients that choose among a training's checkpoints.
        test: Share of patients that no training sees.
        stratify: Columns of the query (`patient_sex`, `manufacturer`) whose values are spread evenly over
            the splits. Classes always are.
        validation_patients: Patient IDs whose side is not drawn.
        test_patients: The same.
    """

    seed: int = 0
    validation: float = 0.2
    test: float = 0.0
    stratify: Sequence[str] = ()
    validation_patients: Iterable[str] = ()
    test_patients: Iterable[str] = ()

    def fixed(self) -> Mapping[str, Split]:
        """The side of each named patient, by patient key."""
        for_validation = {patient_key(one) for one in self.validation_patients}
        for_test = {patient_key(one) for one in self.test_patients}
        both = sorted(for_validation & for_test)
        if both:
            raise DatasetInvalid(
                f"{len(both)} patients are named for validation and for the test; their keys: "
                f"{', '.join(both)}.",
                advice="A patient is on one side: remove them from --validation-patient or --test-patient.",
            )
        fixed: dict[str, Split] = dict.fromkeys(for_validation, "validation")
        fixed |= dict.fromkeys(for_test, "test")
        return fixed


def make_dataset(
    deployment: Deployment,
    sql: str,
    *,
    name: str,
    labels: str | Path | None = None,
    study_column: str | None = None,
    class_column: str | None = None,
    division: Division | None = None,
    labelled_only: bool = True,
    progress: Progress = silent,
) -> Dataset:
    """Run `sql`, label and split its rows, and store the manifest in the model bucket under `manifests/`.

    Args:
        deployment: The environment's stacks.
        sql: Selects whole rows of `series`, of images and of the segmentations that are their labels.
        name: Begin of the manifest's name; the rest is its hash.
        labels: A CSV file or `s3://` URI with a class for each study; None takes segmentations.
        study_column: Header of its column with Study Instance UIDs, if it is not understood.
        class_column: Header of its column with classes, if it is not understood.
        division: How patients are divided; None is a fifth for validation.
        labelled_only: Leave out images without a label.
        progress: Gets warnings, and where the manifest is.

    Raises:
        DatasetInvalid: The rows, the labels or the division make no data set; nothing is stored.
    """
    data = deployment.stack("data")
    table = None
    if labels is not None:
        table = open_class_table(deployment, labels, study_column=study_column, class_column=class_column)
    made = build_manifest(
        series_rows(query(deployment, sql)),
        sql=sql,
        datastore_id=data["DatastoreId"],
        table=table,
        division=division or Division(),
        labelled_only=labelled_only,
    )
    for warning in made.warnings:
        progress(f"warning: {warning}")
    uri = store_manifest(deployment, made.manifest, name=name)
    progress(f"{len(made.manifest.cases)} cases in {uri}")
    return Dataset(manifest=made.manifest, uri=uri, warnings=made.warnings)


def store_manifest(deployment: Deployment, manifest: Manifest, *, name: str) -> str:
    """Put a manifest into the model bucket, named by its content; its S3 URI."""
    bucket = deployment.stack("data")["ModelBucketName"]
    body = manifest.to_json().encode("utf-8")
    key = f"{MANIFEST_FOLDER}{name}-{hashlib.sha256(body).hexdigest()[:16]}.json"
    put_once(
        deployment.session.client("s3"),
        bucket=bucket,
        key=key,
        body=body,
        content_type="application/json",
        readable=True,
    )
    return f"s3://{bucket}/{key}"


@dataclass(frozen=True, kw_only=True)
class BuiltManifest:
    """A manifest that is not stored yet."""

    manifest: Manifest
    warnings: tuple[str, ...]


def build_manifest(
    rows: Iterable[SeriesRow],
    *,
    sql: str,
    datastore_id: str,
    table: ClassTable | None = None,
    division: Division,
    labelled_only: bool = True,
) -> BuiltManifest:
    """Label the image series of `rows` with the segmentation of their study, or with its class in `table`,
    and split them by patient.
    """
    ours = [row for row in rows if row.datastore_id == datastore_id]
    labelled = by_segmentation(ours) if table is None else by_class(ours, table)
    chosen = [one for one in labelled.series if one.labelled or not labelled_only]
    _require_usable(chosen, labelled, from_table=table is not None, labelled_only=labelled_only)
    strata = _strata(chosen, division.stratify)
    splits = split_patients(
        strata,
        seed=division.seed,
        validation=division.validation,
        test=division.test,
        fixed=division.fixed(),
    )
    cases = tuple(_case(one, splits) for one in chosen)
    if not any(case.split == "train" for case in cases):
        raise DatasetInvalid(
            "Every patient is named for validation or the test: nothing is left to train on.",
            advice="Name fewer, or widen the query.",
        )
    manifest = Manifest(
        query=sql,
        datastore_id=datastore_id,
        seed=division.seed,
        cases=cases,
        labels=_origin(table, chosen),
        statistics={**case_statistics(cases), **volume_statistics(one.image for one in chosen)},
    )
    warnings = (
        *labelled.warnings,
        *_empty_splits(division, splits),
        *missing_classes(cases),
        *_small_strata(strata, splits),
    )
    return BuiltManifest(manifest=manifest, warnings=warnings)


def _require_usable(
    chosen: Sequence[LabelledSeries], labelled: Labelled, *, from_table: bool, labelled_only: bool
) -> None:
    if not chosen:
        label = "a row in the table of labels" if from_table else "a segmentation of its study"
        raise DatasetInvalid(
            "The query gives no image series" + (f" with {label}." if labelled_only else "."),
            advice="Look at what there is: monai-aws query "
            '"SELECT modality, count(*) FROM series GROUP BY modality"',
            details=labelled.warnings,
        )
    nameless = [one.image.series_instance_uid for one in chosen if not one.image.patient_id]
    if nameless:
        raise DatasetInvalid(
            f"{len(nameless)} series have no Patient ID and cannot be split by patient: {listed(nameless)}.",
            advice="Exclude them: AND patient_id <> ''",
        )


def _strata(chosen: Sequence[LabelledSeries], columns: Sequence[str]) -> dict[str, Stratum]:
    """The stratum of each patient; of one with several series, all of their classes and values."""
    personal = sorted(IDENTIFYING.intersection(columns))
    if personal:
        raise DatasetInvalid(
            f"{', '.join(personal)} cannot be stratified by: nearly every person has another value.",
            advice="Choose what groups share: --stratify patient_sex, --stratify manufacturer.",
        )
    missing = [name for name in columns if any(name not in one.image.attributes for one in chosen)]
    if missing:
        raise DatasetInvalid(
            f"The query has no column {', '.join(missing)} to stratify by.",
            advice=f"It has: {', '.join(sorted(chosen[0].image.attributes))}.",
        )
    classes: dict[str, set[str]] = {}
    values: dict[str, set[tuple[str, ...]]] = {}
    for one in chosen:
        key = patient_key(one.image.patient_id)
        classes.setdefault(key, set()).update(filter(None, [one.class_name]))
        values.setdefault(key, set()).add(tuple(str(one.image.attributes[name]) for name in columns))
    return {
        key: Stratum(
            group=" and ".join(sorted(classes[key])),
            within="; ".join(" and ".join(value) for value in sorted(values[key])),
        )
        for key in classes
    }


def _empty_splits(division: Division, splits: Mapping[str, Split]) -> list[str]:
    """Sides that were asked for and that no patient is on: no class has enough of them."""
    asked: dict[Split, float] = {"validation": division.validation, "test": division.test}
    return [
        f"No patient is left for {split}: each class needs one to train on first"
        for split, fraction in asked.items()
        if fraction > 0 and split not in splits.values()
    ]


def _small_strata(strata: Mapping[str, Stratum], splits: Mapping[str, Split]) -> list[str]:
    """Values that are not on every side of the split although the split has them elsewhere."""
    sides = set(splits.values())
    warnings = []
    for value in sorted({stratum.within for stratum in strata.values() if stratum.within}):
        members = [key for key, stratum in strata.items() if stratum.within == value]
        absent = sorted(sides - {splits[key] for key in members})
        if absent:
            count = f"{len(members)} {'patient' if len(members) == 1 else 'patients'}"
            warnings.append(f"Stratum {value!r} has {count}, none of them in {' or '.join(absent)}")
    return warnings


def _origin(table: ClassTable | None, chosen: Sequence[LabelledSeries]) -> Mapping[str, str]:
    if table is not None:
        return {"kind": "class", "source": table.source, "sha256": table.sha256}
    return {"kind": "segmentation"} if any(one.labelled for one in chosen) else {}


def _case(one: LabelledSeries, splits: Mapping[str, Split]) -> Case:
    key = patient_key(one.image.patient_id)
    return Case(
        patient_key=key,
        split=splits[key],
        image=_reference(one.image),
        label=None if one.segmentation is None else _reference(one.segmentation),
        class_name=one.class_name,
    )


def _reference(row: SeriesRow) -> ImageSetRef:
    return ImageSetRef(
        datastore_id=row.datastore_id, image_set_id=row.image_set_id, version_id=str(row.version_id)
    )
