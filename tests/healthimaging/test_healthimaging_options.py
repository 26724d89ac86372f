"""What can be asked of an image set can be asked of a series and of a study, in the same words."""

from __future__ import annotations

import inspect

import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, SERIES_UID, STUDY_UID, ct_series

from healthimaging import ImageSet, Series, Study


def options(kind: type, method: str) -> dict[str, object]:
    parameters = inspect.signature(getattr(kind, method)).parameters
    return {name: one.default for name, one in parameters.items() if name != "self"}


@pytest.mark.parametrize("method", ["frames", "volumes", "datasets"])
def test_the_options_are_the_same(method: str) -> None:
    of_image_set = options(ImageSet, method)
    assert options(Study, method) == of_image_set
    of_image_set.pop("series_instance_uid", None)  # a series is one already
    assert options(Series, method) == of_image_set


def test_large_values_are_read_in_the_way_that_is_given() -> None:
    service, _ = ct_series()
    for record in service.document["Study"]["Series"][SERIES_UID]["Instances"].values():
        record["DICOM"] |= {"00090010": "MAKER", "00091001": {"BulkDataURI": "/datastore/x"}}
        record["DICOMVRs"] = {"00091001": "OB"}
    image_set = ImageSet.open(service, DATASTORE, IMAGE_SET)
    for source in (
        image_set,
        Series(service, SERIES_UID, [image_set]),
        Study(service, STUDY_UID, [image_set]),
    ):
        made = source.datasets(bulk=lambda uri: uri.encode())
        assert {dataset[0x00091001].value for dataset in made} == {b"/datastore/x"}
        assert {dataset[0x00091001].value for dataset in source.datasets(pixels=False)} <= {None, b""}
