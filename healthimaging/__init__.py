"""AWS HealthImaging image sets as volumes, tensors and DICOM.

Names are imported when they are first used (PEP 562): `healthimaging.metadata` and
`healthimaging.catalog` need only the standard library, and a function that bundles this folder for
them must not need numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from healthimaging.client import connect
    from healthimaging.dicomweb.client import DicomWeb, RetrievedFrame, StoreOutcome
    from healthimaging.errors import HealthImagingError
    from healthimaging.frames.fetching import Frame
    from healthimaging.image_set import ImageSet
    from healthimaging.manifest import Case, Manifest
    from healthimaging.reference import ImageSetRef
    from healthimaging.segmentation import (
        LabelVolume,
        SegmentDescription,
        read_segmentation,
        write_segmentation,
    )
    from healthimaging.study import Series, Study
    from healthimaging.timings import Progress, Timings
    from healthimaging.volumes.geometry import Geometry
    from healthimaging.volumes.volume import Volume

__all__ = [
    "Case",
    "DicomWeb",
    "Frame",
    "Geometry",
    "HealthImagingError",
    "ImageSet",
    "ImageSetRef",
    "LabelVolume",
    "Manifest",
    "Progress",
    "RetrievedFrame",
    "SegmentDescription",
    "Series",
    "StoreOutcome",
    "Study",
    "Timings",
    "Volume",
    "connect",
    "read_segmentation",
    "write_segmentation",
]

_HOME = {
    "Case": "manifest",
    "DicomWeb": "dicomweb.client",
    "Frame": "frames.fetching",
    "Geometry": "volumes.geometry",
    "HealthImagingError": "errors",
    "ImageSet": "image_set",
    "ImageSetRef": "reference",
    "LabelVolume": "segmentation",
    "Manifest": "manifest",
    "Progress": "timings",
    "RetrievedFrame": "dicomweb.client",
    "SegmentDescription": "segmentation",
    "Series": "study",
    "StoreOutcome": "dicomweb.client",
    "Study": "study",
    "Timings": "timings",
    "Volume": "volumes.volume",
    "connect": "client",
    "read_segmentation": "segmentation",
    "write_segmentation": "segmentation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
