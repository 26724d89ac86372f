"""Opening the image sets that make a series or a study, and checking that they are one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from healthimaging.errors import DuplicateInstanceError, MetadataError, MixedPatientsError
from healthimaging.image_set import ImageSet
from healthimaging.image_set_search import FoundImageSet
from healthimaging.metadata import ImageSetMetadata, SeriesRecord
from healthimaging.reference import ImageSetRef
from healthimaging.threads import leave
from healthimaging.timings import Stopwatch

OPENED_AT_ONCE = 8
"""Image sets whose headers are read at once: GetImageSet allows 25 a second, GetImageSetMetadata 50."""


def open_primary(
    client: Any, found: Sequence[FoundImageSet], *, workers: int, stopwatch: Stopwatch
) -> tuple[list[ImageSet], list[ImageSetRef]]:
    """Opens the primary ones of the image sets that were found, side by side.

    Returns:
        The primary image sets, by series number, Series Instance UID and image set id; and the others.

    Raises:
        ImageSetNotFoundError: One was deleted since the search.
        MetadataError: A header is malformed.
        ServiceError: The service refused or failed.
    """

    def open_one(one: FoundImageSet) -> ImageSet:
        # The latest version, not the one that the search knows: the index may lag behind.
        return ImageSet.open(client, one.ref.datastore_id, one.ref.image_set_id, workers=workers)

    opened = _side_by_side(open_one, [one for one in found if one.is_primary])
    for one in opened:
        stopwatch.add(**asdict(one.timings))
    # What is primary may have changed since the search.
    others = [one.ref for one in found if not one.is_primary]
    others += [one.ref for one in opened if not one.is_primary]
    return sorted((one for one in opened if one.is_primary), key=_order), sorted(others)


def _side_by_side(
    work: Callable[[FoundImageSet], ImageSet], items: Sequence[FoundImageSet]
) -> list[ImageSet]:
    """Results in the order of the items; of several errors the first one in that order."""
    pool = ThreadPoolExecutor(max_workers=OPENED_AT_ONCE, thread_name_prefix="header")
    futures = [pool.submit(work, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        # After an error nobody waits for a header that has stalled; its thread ends with its attempts.
        leave(pool, futures)


def _order(image_set: ImageSet) -> tuple[tuple[bool, int, str], str]:
    metadata = image_set.metadata
    keys = [_series_key(uid, record) for uid, record in metadata.series.items()]
    return min(keys, default=(True, 0, "")), image_set.ref.image_set_id


def series_order(header: ImageSetMetadata) -> tuple[bool, int, str]:
    """What headers of one series each are sorted by: series number, those without one last, then UID."""
    ((uid, record),) = header.series.items()
    return _series_key(uid, record)


def _series_key(uid: str, record: SeriesRecord) -> tuple[bool, int, str]:
    number = record.attributes.integer("SeriesNumber")
    return number is None, number or 0, uid


def require_study(image_set: ImageSet, study_instance_uid: str | None) -> None:
    """Raises MetadataError unless the image set is of that study."""
    found = image_set.metadata.study_instance_uid
    if found is None or found != study_instance_uid:
        msg = f"It is of study {found}, not of study {study_instance_uid}"
        raise MetadataError(msg, image_set_id=image_set.ref.image_set_id)


def require_one_patient(image_sets: Sequence[ImageSet]) -> None:
    """Raises MixedPatientsError unless all have the same PatientID, or all none."""
    first = image_sets[0]
    for one in image_sets:
        if one.metadata.patient.text("PatientID") != first.metadata.patient.text("PatientID"):
            msg = f"Its patient is not that of image set {first.ref.image_set_id}"
            raise MixedPatientsError(msg, image_set_id=one.ref.image_set_id)


def require_own_instances(headers: Sequence[ImageSetMetadata]) -> None:
    """Raises DuplicateInstanceError where two series have an instance of the same UID."""
    seen: dict[str, str] = {}
    for header in headers:
        for instance in header.instances:
            uid, series = instance.sop_instance_uid, instance.series_instance_uid
            if seen.setdefault(uid, series) != series:
                msg = f"The instance is in series {seen[uid]}, too"
                raise DuplicateInstanceError(
                    msg,
                    image_set_id=instance.image_set_id,
                    series_instance_uid=series,
                    sop_instance_uid=uid,
                )
