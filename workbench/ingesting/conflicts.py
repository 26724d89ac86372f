"""Names the attributes for which HealthImaging made an image set that is not primary.

Instances whose patient, study or series contradict the primary image sets of their study get an image set of
their own, which DICOMweb does not show (developer guide, "Understanding image sets").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from healthimaging.errors import HealthImagingError
from healthimaging.image_set import ImageSet
from healthimaging.image_set_search import find_image_sets
from healthimaging.metadata import Attributes, ImageSetMetadata
from workbench.ingesting.report import Conflict

_PRIMARIES = 3
"""Primary image sets of a study agree with each other; so few of them are compared."""


def conflicts(
    medical_imaging: Any, datastore_id: str, image_sets: Iterable[str], *, values: bool
) -> Iterator[Conflict]:
    """Compare each of `image_sets`, which are not primary, with the primary ones of its study and its series.

    With `values` the two values are given, too: patients' data, for the screen of the person who asked.
    An image set that cannot be read has the reason instead of attributes (`Conflict.unknown`), and nothing
    else fails for it: everything is in by now, and the report of that must come out. Where the service as a
    whole does not answer, the others are not tried.
    """
    ended = ""
    for id in image_sets:
        unknown = ended
        if not unknown:
            try:
                yield _conflict(medical_imaging, datastore_id, id, values=values)
                continue
            except HealthImagingError as error:
                unknown = type(error).__name__
            except ClientError as error:
                unknown = ended = str(error.response["Error"].get("Code", "ClientError"))
            except BotoCoreError as error:
                unknown = ended = type(error).__name__
            except Exception as error:  # noqa: BLE001 - metadata of any shape: it must not cost the report
                unknown = type(error).__name__
        yield Conflict(image_set_id=id, attributes=(), values={}, unknown=unknown)


def _conflict(medical_imaging: Any, datastore_id: str, id: str, *, values: bool) -> Conflict:
    own = ImageSet.open(medical_imaging, datastore_id, id).metadata
    found: dict[str, tuple[str, str]] = {}
    for other in _primaries(medical_imaging, datastore_id, own):
        for keyword, both in _differences(own, other):
            found.setdefault(keyword, both)
    return Conflict(image_set_id=id, attributes=tuple(found), values=found if values else {})


def _primaries(medical_imaging: Any, datastore_id: str, own: ImageSetMetadata) -> Iterator[ImageSetMetadata]:
    searches = [{"DICOMSeriesInstanceUID": uid} for uid in own.series]
    if own.study_instance_uid:
        searches.append({"DICOMStudyInstanceUID": own.study_instance_uid})
    seen = {own.image_set_id}
    for search in searches:
        for one in find_image_sets(medical_imaging, datastore_id, **search):
            if one.is_primary and one.ref.image_set_id not in seen and len(seen) <= _PRIMARIES:
                seen.add(one.ref.image_set_id)
                yield ImageSet.open(medical_imaging, datastore_id, one.ref.image_set_id).metadata


def _differences(own: ImageSetMetadata, other: ImageSetMetadata) -> Iterator[tuple[str, tuple[str, str]]]:
    yield from _between(own.patient, other.patient)
    yield from _between(own.study, other.study)
    for uid in own.series.keys() & other.series.keys():
        yield from _between(own.series[uid].attributes, other.series[uid].attributes)


def _between(own: Attributes, other: Attributes) -> Iterator[tuple[str, tuple[str, str]]]:
    for keyword in sorted(own.values.keys() | other.values.keys()):
        here, there = own.texts(keyword) or [], other.texts(keyword) or []
        if here != there:
            yield keyword, ("\\".join(here), "\\".join(there))
