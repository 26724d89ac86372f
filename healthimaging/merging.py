"""One series that lies in several image sets, as one series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from healthimaging.errors import DuplicateInstanceError
from healthimaging.metadata import Attributes, ImageSetMetadata, InstanceRecord, SeriesRecord


def merge_series(series_instance_uid: str, headers: Sequence[ImageSetMetadata]) -> ImageSetMetadata:
    """The header of one series, whole, from those of the image sets that hold it.

    What the headers say alike of patient, study and series stays there; where they differ, each instance
    keeps what its own image set says. So nothing is read of another image set than its own.

    Args:
        series_instance_uid: The series, which all headers have.
        headers: Of image sets of one study; the first one gives its identifiers.

    Returns:
        A header whose only series this is. Its instances name the image sets that their frames lie in.

    Raises:
        DuplicateInstanceError: Two image sets hold different instances of one SOP Instance UID. Where they
            are the same in every attribute and pixel, the first one is kept.
    """
    if len(headers) == 1:
        return replace(headers[0], series={series_instance_uid: headers[0].series[series_instance_uid]})
    patient = _common([header.patient for header in headers])
    study = _common([header.study for header in headers])
    parts = [header.series[series_instance_uid] for header in headers]
    series = _common([part.attributes for part in parts])
    instances: dict[str, InstanceRecord] = {}
    for header, part in zip(headers, parts, strict=True):
        own = _besides(part.attributes, series)
        own = own.over(_besides(header.study, study)).over(_besides(header.patient, patient))
        for uid, instance in part.instances.items():
            record = replace(instance, attributes=instance.attributes.over(own))
            if uid in instances and not _same(instances[uid], record):
                msg = (
                    f"Image sets {instances[uid].image_set_id} and {record.image_set_id} hold different ones"
                )
                raise DuplicateInstanceError(
                    msg,
                    image_set_id=record.image_set_id,
                    series_instance_uid=series_instance_uid,
                    sop_instance_uid=uid,
                )
            instances.setdefault(uid, record)
    merged = SeriesRecord(series_instance_uid=series_instance_uid, attributes=series, instances=instances)
    return replace(headers[0], patient=patient, study=study, series={series_instance_uid: merged})


def _common(levels: Sequence[Attributes]) -> Attributes:
    """What all say alike."""
    first = levels[0]
    if all(level == first for level in levels):
        return first
    return Attributes(
        {key: value for key, value in first.values.items() if all(_says(one, first, key) for one in levels)},
        {key: vr for key, vr in first.vrs.items() if all(one.vrs.get(key) == vr for one in levels)},
    )


def _says(level: Attributes, first: Attributes, key: str) -> bool:
    return (
        key in level.values
        and level.values[key] == first.values[key]
        and level.vrs.get(key) == first.vrs.get(key)
    )


def _besides(level: Attributes, common: Attributes) -> Attributes:
    """What a level says that is not common to all."""
    if level is common:
        return Attributes({}, {})
    values = {key: value for key, value in level.values.items() if key not in common.values}
    return Attributes(values, level.vrs if values else {})


def _same(one: InstanceRecord, other: InstanceRecord) -> bool:
    """Whether two records are of the same instance. Without checksums it cannot be told."""
    return (
        one.attributes == other.attributes
        and one.transfer_syntax_uid == other.transfer_syntax_uid
        and [frame.checksum for frame in one.frames] == [frame.checksum for frame in other.frames]
        and all(frame.checksum is not None for frame in one.frames)
    )
