"""How objects print themselves: what they are, in one short line, and nothing of the patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, SERIES_UID, STUDY_UID, ct_series

from healthimaging import ImageSet, Series, Study

LONGEST = 500
"""Characters: identifiers alone are 32 digits for a datastore or image set, and up to 64 characters a UID."""

SOURCE = ImageSet.open(ct_series()[0], DATASTORE, IMAGE_SET)
(VOLUME,) = SOURCE.volumes()

PRINTED: dict[str, tuple[Callable[[], object], list[str]]] = {
    "ImageSet": (lambda: SOURCE, [f"{DATASTORE}/{IMAGE_SET}@1", "primary", "7 instances"]),
    "Series": (lambda: Series(None, SERIES_UID, [SOURCE]), [SERIES_UID, "1 primary image sets"]),
    "Study": (lambda: Study(None, STUDY_UID, [SOURCE]), [STUDY_UID, "1 series", "0 not primary"]),
    "Volume": (lambda: VOLUME, ["7 x ", "int16", "1 x 2 x 2.5 mm", "CT", SERIES_UID]),
    "Frame": (lambda: next(SOURCE.frames()), [SERIES_UID, "number=1"]),
    "ImageSetMetadata": (lambda: SOURCE.metadata, [IMAGE_SET]),
    "SeriesRecord": (lambda: SOURCE.metadata.series[SERIES_UID], [SERIES_UID]),
    "InstanceRecord": (lambda: SOURCE.metadata.instances[0], [SERIES_UID]),
    "Attributes": (lambda: SOURCE.metadata.patient, ["values"]),
}


@pytest.mark.parametrize("kind", PRINTED)
def test_objects_say_what_they_are_and_nothing_of_the_patient(kind: str) -> None:
    made, expected = PRINTED[kind]
    text = repr(made())
    assert text.startswith(f"{kind}(")
    for part in expected:
        assert part in text
    assert len(text) <= LONGEST
    assert "\n" not in text
    for value in patient_values(SOURCE):
        assert value not in text


def patient_values(source: ImageSet) -> list[str]:
    levels: list[Any] = [source.metadata.patient, source.metadata.study]
    named = [level.text(keyword) for level in levels for keyword in level.values if "UID" not in keyword]
    values = [value for value in named if value and len(value) > 3]
    assert values
    return values
