"""Every DICOM file of pydicom and pydicom-data with the answer of de-identification; how to compare them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from io import BytesIO

import pydicom
from pydicom.errors import InvalidDicomError
from real_files import FILES

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.deidentification.outcome import Deidentified, Quarantined

KEY = KeyMaterial.from_secret("a key of tests, and of nothing else at all")
DEIDENTIFIER = Deidentifier(key=KEY)


@cache
def outcomes() -> dict[str, tuple[pydicom.Dataset, Deidentified | Quarantined]]:
    """(original, answer) by name of the file."""
    found = {}
    for name, path in FILES.items():
        try:
            dataset = pydicom.dcmread(path)
        except (InvalidDicomError, EOFError, ValueError):
            continue
        found[name] = dataset, DEIDENTIFIER.deidentify(dataset)
    return found


def passed() -> Iterator[tuple[str, pydicom.Dataset, Deidentified]]:
    """Those that were de-identified."""
    for name, (dataset, outcome) in outcomes().items():
        if isinstance(outcome, Deidentified):
            yield name, dataset, outcome


def written(dataset: pydicom.Dataset) -> bytes:
    """The dataset as a file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def leaves(dataset: pydicom.Dataset, path: str = "") -> Iterator[tuple[str, pydicom.DataElement]]:
    """(path with tags and item numbers, element) of everything that is no sequence."""
    for element in dataset:
        here = f"{path}{element.tag}"
        if element.VR == "SQ":
            for index, item in enumerate(element.value):
                yield from leaves(item, f"{here}[{index}]")
        else:
            yield here, element
