"""Which label belongs to which image series: the segmentation of its study, or the class of its study.

A pairing that is not certain is refused and never guessed; everything that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.catalog import DERIVED_MODALITIES, SeriesRow
from workbench.datasets.class_table import ClassTable
from workbench.errors import DatasetInvalid

LABEL_MODALITY = "SEG"
LISTED = 5
"""UIDs that a message lists; the rest is counted, or the reason would scroll away."""


@dataclass(frozen=True, kw_only=True)
class LabelledSeries:
    """An image series with its label; at most one of both kinds."""

    image: SeriesRow
    segmentation: SeriesRow | None = None
    class_name: str | None = None

    @property
    def labelled(self) -> bool:
        return self.segmentation is not None or self.class_name is not None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The series of a data set, and what a person should know of how they came about."""

    series: tuple[LabelledSeries, ...]
    warnings: tuple[str, ...] = ()


def by_segmentation(rows: Iterable[SeriesRow]) -> Labelled:
    """Pair each image series with the segmentation of its study.

    Raises:
        DatasetInvalid: Studies with two segmentations, or with two image series and a segmentation.
    """
    images, labels = _by_study(rows)
    problems, found = [], []
    for study, series in images.items():
        candidates = labels.get(study, [])
        if len(candidates) > 1 or (candidates and len(series) > 1):
            uids = ", ".join(row.series_instance_uid for row in (*series, *candidates))
            problems.append(
                f"Study {study} has {len(series)} image series and {len(candidates)} segmentations ({uids})."
            )
        found += [
            LabelledSeries(image=image, segmentation=candidates[0] if candidates else None)
            for image in series
        ]
    if problems:
        raise DatasetInvalid(
            f"Which segmentation belongs to which image series is not certain in {_studies(len(problems))}. "
            f"{problems[0]}",
            advice="Narrow the query, for example: AND series_description = '...'; without SQL: "
            "--label-description",
            details=problems[1:],
        )
    return Labelled(series=tuple(found))


def by_class(rows: Iterable[SeriesRow], table: ClassTable) -> Labelled:
    """Give each image series the class of its study in `table`.

    Studies without a row stay unlabelled, rows without a study are left out; both are warnings.

    Raises:
        DatasetInvalid: A study with several image series, or no study of the query is in the table.
    """
    images, _ = _by_study(rows)
    several = {study: series for study, series in images.items() if study in table.classes and series[1:]}
    if several:
        details = [
            f"{study}: {', '.join(row.series_instance_uid for row in series)}"
            for study, series in several.items()
        ]
        raise DatasetInvalid(
            f"A class of a study stands for one image series, and {_studies(len(several))} in {table.source} "
            f"have several: {listed(several)}.",
            advice="Narrow the query until it selects one series a study, for example: "
            "AND series_description = '...'",
            details=details,
        )
    known = [study for study in images if study in table.classes]
    if images and not known:
        raise DatasetInvalid(
            f"None of the {_studies(len(images))} of the query is in {table.source}, which has "
            f"{_studies(len(table.classes))}.",
            advice="The column must hold Study Instance UIDs: compare with monai-aws query "
            '"SELECT study_instance_uid FROM series LIMIT 3", or name the column with --study-column.',
        )
    warnings = list(table.warnings)
    without = [study for study in images if study not in table.classes]
    if without:
        warnings.append(
            f"{_studies(len(without))} of the query without a row in {table.source}: {listed(without)}"
        )
    unknown = [study for study in table.classes if study not in images]
    if unknown:
        warnings.append(f"{_studies(len(unknown))} of {table.source} not in the query: {listed(unknown)}")
    return Labelled(
        series=tuple(
            LabelledSeries(image=image, class_name=table.classes.get(study))
            for study, series in images.items()
            for image in series
        ),
        warnings=tuple(warnings),
    )


def listed(names: Iterable[str]) -> str:
    """The first names, and how many there are besides."""
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def _by_study(
    rows: Iterable[SeriesRow],
) -> tuple[Mapping[str, Sequence[SeriesRow]], Mapping[str, Sequence[SeriesRow]]]:
    images: dict[str, list[SeriesRow]] = {}
    labels: dict[str, list[SeriesRow]] = {}
    for row in rows:
        if row.modality == LABEL_MODALITY:
            labels.setdefault(row.study_instance_uid, []).append(row)
        elif row.modality not in DERIVED_MODALITIES:
            images.setdefault(row.study_instance_uid, []).append(row)
    return images, labels


def _studies(count: int) -> str:
    return f"{count} {'study' if count == 1 else 'studies'}"
