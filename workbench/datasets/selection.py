"""The SQL of a dataset that nobody wrote SQL for."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.query import text_literal


def default_sql(
    *,
    modality: str = "CT",
    patients: Iterable[str] = (),
    label_description: str | None = None,
    segmentations: bool = True,
) -> str:
    """SQL for the images of `modality`, and the segmentations of the same studies.

    Args:
        modality: Modality (0008,0060) of the images.
        patients: Patient IDs (0010,0020) to take; none given takes all.
        label_description: Series Description (0008,103E) of the segmentations that are labels; without it
            a study that also holds results of a model would have two candidates.
        segmentations: False leaves segmentations out, where labels come from elsewhere.
    """
    condition = f"modality = {text_literal(modality)}"
    if segmentations:
        label = "modality = 'SEG'"
        if label_description is not None:
            label += f" AND series_description = {text_literal(label_description)}"
        condition = f"({condition} OR ({label}))"
    condition = f"is_primary AND {condition}"
    chosen = ", ".join(text_literal(one) for one in patients)
    if chosen:
        condition += f" AND patient_id IN ({chosen})"
    # Athena's parameters stand for values in a prepared query; this text is also kept in the manifest, so
    # the values are in it, each quoted by text_literal.
    return f"SELECT * FROM series WHERE {condition} ORDER BY study_instance_uid, series_number"  # noqa: S608 - quoted by text_literal
