"""Makes a dataset out of a query: image series and their labels, pinned to versions, split by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from healthimaging.manifest import Case, Manifest, Split, patient_key
from healthimaging.reference import ImageSetRef
from workbench.catalog import SeriesRow, series_rows
from workbench.deployment import Deployment
from workbench.errors import DatasetInvalid
from workbench.patient_split import split_patients
from workbench.progress import Progress, silent
from workbench.query import query, text_literal

LABEL_MODALITIES = frozenset({"SEG"})
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A manifest and where it was stored."""

    manifest: Manifest
    uri: str

    def to_json(self) -> dict[str, object]:
        return {
            "manifestUri": self.uri,
            "cases": len(self.manifest.cases),
            "statistics": dict(self.manifest.statistics),
        }


def default_sql(
    *, modality: str = "CT", patients: Iterable[str] = (), label_description: str | None = None
) -> str:
    """SQL for the images of `modality` and the segmentations of the same studies.

    Args:
        modality: Modality (0008,0060) of the images.
        patients: Patient IDs (0010,0020) to take; none given takes all.
        label_description: Series Description (0008,103E) of the segmentations that are labels; without it
            a study that also holds results of a model would have two candidates.
    """
    label = "modality = 'SEG'"
    if label_description is not None:
        label += f" AND series_description = {text_literal(label_description)}"
    condition = f"is_primary AND (modality = {text_literal(modality)} OR ({label}))"
    chosen = ", ".join(text_literal(one) for one in patients)
    if chosen:
        condition += f" AND patient_id IN ({chosen})"
    # Athena's parameters stand for values in a prepared query; this text is also kept in the manifest, so
    # the values are in it, each quoted by text_literal.
    return f"SELECT * FROM series WHERE {condition} ORDER BY study_instance_uid, series_number"  # noqa: S608 - quoted by text_literal


def make_dataset(
    deployment: Deployment,
    sql: str,
    *,
    name: str,
    seed: int = 0,
    validation: float = 0.2,
    test: float = 0.0,
    labelled_only: bool = True,
    progress: Progress = silent,
) -> Dataset:
    """Run `sql`, pair and split its rows, and store the manifest in the model bucket under `manifests/`."""
    data = deployment.stack("data")
    manifest = build_manifest(
        series_rows(query(deployment, sql)),
        sql=sql,
        datastore_id=data["DatastoreId"],
        seed=seed,
        validation=validation,
        test=test,
        labelled_only=labelled_only,
    )
    body = manifest.to_json().encode("utf-8")
    # Named by content: a manifest is evidence of what a model saw, and is never overwritten by another one.
    key = f"manifests/{name}-{hashlib.sha256(body).hexdigest()[:16]}.json"
    deployment.session.client("s3").put_object(
        Bucket=data["ModelBucketName"], Key=key, Body=body, ContentType="application/json"
    )
    uri = f"s3://{data['ModelBucketName']}/{key}"
    progress(f"{len(manifest.cases)} cases in {uri}")
    return Dataset(manifest=manifest, uri=uri)


def build_manifest(
    rows: Iterable[SeriesRow],
    *,
    sql: str,
    datastore_id: str,
    seed: int,
    validation: float,
    test: float,
    labelled_only: bool = True,
) -> Manifest:
    """Pair the image series of `rows` with the segmentation of their study, and split them by patient.

    A pairing that is not certain is refused: two segmentations for one study, or two image series that one
    segmentation could belong to, need a narrower query.
    """
    ours = [row for row in rows if row.datastore_id == datastore_id]
    pairs = list(_pairs(ours))
    if labelled_only:
        pairs = [(image, label) for image, label in pairs if label is not None]
    if not pairs:
        raise DatasetInvalid(
            "The query gives no image series"
            + (" with a segmentation of its study." if labelled_only else "."),
            advice="Look at what there is: monai-aws query "
            '"SELECT modality, count(*) FROM series GROUP BY modality"',
        )
    nameless = [image.series_instance_uid for image, _ in pairs if not image.patient_id]
    if nameless:
        raise DatasetInvalid(
            f"{len(nameless)} series have no Patient ID and cannot be split by patient: "
            f"{', '.join(nameless[:5])}.",
            advice="Exclude them: AND patient_id <> ''",
        )
    splits = split_patients(
        (patient_key(image.patient_id) for image, _ in pairs), seed=seed, validation=validation, test=test
    )
    cases = tuple(
        Case(
            patient_key=patient_key(image.patient_id),
            split=splits[patient_key(image.patient_id)],
            image=_reference(image),
            label=None if label is None else _reference(label),
        )
        for image, label in pairs
    )
    return Manifest(
        query=sql, datastore_id=datastore_id, seed=seed, cases=cases, statistics=_statistics(cases)
    )


def _pairs(rows: Iterable[SeriesRow]) -> Iterable[tuple[SeriesRow, SeriesRow | None]]:
    images: dict[str, list[SeriesRow]] = {}
    labels: dict[str, list[SeriesRow]] = {}
    for row in rows:
        group = labels if row.modality in LABEL_MODALITIES else images
        group.setdefault(row.study_instance_uid, []).append(row)
    for study, series in images.items():
        candidates = labels.get(study, [])
        if len(candidates) > 1 or (candidates and len(series) > 1):
            uids = ", ".join(row.series_instance_uid for row in (*series, *candidates))
            raise DatasetInvalid(
                f"Study {study} has {len(series)} image series and {len(candidates)} segmentations: "
                f"which belongs to which is not certain ({uids}).",
                advice="Narrow the query, for example: AND series_description = '...'",
            )
        for image in series:
            yield image, candidates[0] if candidates else None


def _reference(row: SeriesRow) -> ImageSetRef:
    return ImageSetRef(
        datastore_id=row.datastore_id, image_set_id=row.image_set_id, version_id=str(row.version_id)
    )


def _statistics(cases: tuple[Case, ...]) -> Mapping[str, int]:
    statistics = {"patients": len({case.patient_key for case in cases}), "cases": len(cases)}
    for split in SPLITS:
        members = [case for case in cases if case.split == split]
        statistics[f"{split}Cases"] = len(members)
        statistics[f"{split}Patients"] = len({case.patient_key for case in members})
    statistics["labelled"] = sum(case.label is not None for case in cases)
    return statistics
