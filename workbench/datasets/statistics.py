"""What a manifest says about itself: how much of what is on which side, and what the volumes are like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from healthimaging.manifest import Case, Split
from workbench.catalog import SeriesRow
from workbench.query import Value

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def case_statistics(cases: Sequence[Case]) -> Mapping[str, int]:
    """Counts of cases and patients: of all, by split, and by split and class (`trainClass:AD`)."""
    statistics = {"patients": _patients(cases), "cases": len(cases)}
    for split in SPLITS:
        members = [case for case in cases if case.split == split]
        statistics[f"{split}Cases"] = len(members)
        statistics[f"{split}Patients"] = _patients(members)
        for name in class_names(cases):
            of_class = [case for case in members if case.class_name == name]
            statistics[f"{split}Class:{name}"] = len(of_class)
            statistics[f"{split}ClassPatients:{name}"] = _patients(of_class)
    statistics["labelled"] = sum(case.label is not None or case.class_name is not None for case in cases)
    return statistics


def volume_statistics(images: Iterable[SeriesRow]) -> Mapping[str, float]:
    """Smallest and largest number of slices and voxel spacing in mm, as far as the query has the columns."""
    rows = [image.attributes for image in images]
    measured: dict[str, Sequence[float]] = {
        "slices": _numbers(row.get("number_of_frames") for row in rows),
        "sliceThicknessMm": _numbers(row.get("slice_thickness") for row in rows),
    }
    spacings = [pair for row in rows if (pair := _pair(row.get("pixel_spacing")))]
    measured["rowSpacingMm"] = [rows_mm for rows_mm, _ in spacings]
    measured["columnSpacingMm"] = [columns_mm for _, columns_mm in spacings]
    statistics: dict[str, float] = {}
    for name, values in measured.items():
        if values:
            statistics[f"{name}:smallest"] = min(values)
            statistics[f"{name}:largest"] = max(values)
    return statistics


def class_names(cases: Iterable[Case]) -> list[str]:
    """The classes of the cases, sorted."""
    return sorted({case.class_name for case in cases if case.class_name is not None})


def missing_classes(cases: Sequence[Case]) -> list[str]:
    """A sentence for each side of the split that has cases, but none of some class."""
    warnings = []
    names = class_names(cases)
    for split in SPLITS:
        members = [case for case in cases if case.split == split]
        absent = [name for name in names if all(case.class_name != name for case in members)]
        if members and absent:
            consequence = (
                "a model cannot learn it" if split == "train" else "its score there says nothing about it"
            )
            warnings.append(f"No case of class {', '.join(absent)} in {split}: {consequence}")
    return warnings


def _patients(cases: Iterable[Case]) -> int:
    return len({case.patient_key for case in cases})


def _numbers(values: Iterable[Value]) -> list[float]:
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _pair(value: Value) -> tuple[float, float] | None:
    """Athena gives an array as text, "[0.7, 0.7]"."""
    try:
        rows_mm, columns_mm = json.loads(str(value))
        return float(rows_mm), float(columns_mm)
    except (ValueError, TypeError):
        return None
