"""Series as the metadata document has them, without pixels: what volumes are planned from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from fake_healthimaging import CT_IMAGE_STORAGE, HTJ2K, SERIES_UID, document

from healthimaging import Geometry
from healthimaging.metadata import ImageSetMetadata, SeriesRecord
from healthimaging.volumes.planning import VolumePlan, plan_volumes

Header = dict[str, Any]

AXIAL = (1.0, 0, 0, 0, 1, 0)
SAGITTAL = (0.0, 1, 0, 0, 0, -1)


def rotation(a: float, b: float, c: float) -> np.ndarray[Any, Any]:
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    again = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ again


def header(
    uid: str,
    position: Sequence[float],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (1, 1),
    frames: int = 1,
    **attributes: Any,
) -> Header:
    """One CT instance of the document; its frames have identifiers only."""
    dicom = {
        "SOPClassUID": CT_IMAGE_STORAGE,
        "ImagePositionPatient": [f"{x:.9f}" for x in position],
        "ImageOrientationPatient": [f"{x:.12f}" for x in orientation],
        "PixelSpacing": [f"{x:.9f}" for x in spacing],
        "SliceThickness": "2",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 9,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        **attributes,
    }
    return {
        "DICOM": {"SOPInstanceUID": uid, **{k: v for k, v in dicom.items() if v is not None}},
        "StoredTransferSyntaxUID": HTJ2K,
        "ImageFrames": [{"ID": f"{uid}-{n}"} for n in range(1, frames + 1)],
    }


def stack(
    name: str, heights: Iterable[float], *, first: int | None = None, step: int = 1, **attributes: Any
) -> list[Header]:
    """Axial slices at these heights, numbered from `first` where it is given."""
    return [
        header(
            f"1.2.{name}.{k}",
            (0, 0, z),
            **{
                "InstanceNumber": None if first is None else str(first + step * k),
                **{key: value(k) if callable(value) else value for key, value in attributes.items()},
            },
        )
        for k, z in enumerate(heights)
    ]


def grid_headers(grid: Geometry, name: str = "1", **attributes: Any) -> list[Header]:
    """Instances that lie on the slices of a grid."""
    column, row, slice_ = grid.spacing
    return [
        header(
            f"1.2.{name}.{k}",
            grid.to_patient((0, 0, k)).tolist(),
            orientation=grid.direction[:, :2].T.reshape(-1).tolist(),
            spacing=(row, column),
            **{
                "SliceThickness": f"{slice_:.9f}",
                "Rows": grid.shape[1],
                "Columns": grid.shape[2],
                **attributes,
            },
        )
        for k in range(grid.shape[0])
    ]


def series(headers: Iterable[Header], **attributes: Any) -> SeriesRecord:
    """The series of these instances, in this order."""
    root = document({one["DICOM"]["SOPInstanceUID"]: one for one in headers})
    root["Study"]["Series"][SERIES_UID]["DICOM"].update(attributes)
    return ImageSetMetadata.from_document(root).series[SERIES_UID]


def uids(plan: VolumePlan) -> list[str]:
    """Instances of a plan in slice order."""
    return [instance.sop_instance_uid for instance, _ in plan.frames]


def volumes(headers: list[Header], **options: Any) -> list[list[str]]:
    return [uids(plan) for plan in plan_volumes(series(headers), **options)]


def names(headers: list[Header]) -> list[str]:
    return [one["DICOM"]["SOPInstanceUID"] for one in headers]


def repeated(times: int, slices: int = 4, **attributes: Any) -> list[list[Header]]:
    """The same axial slices several times; an attribute may be a function of the time."""
    return [
        stack(
            f"{t}",
            [2.0 * k for k in range(slices)],
            **{key: value(t) if callable(value) else value for key, value in attributes.items()},
        )
        for t in range(times)
    ]


def flat(parts: list[list[Header]]) -> list[Header]:
    return [one for part in parts for one in part]


def no_image(uid: str) -> Header:
    return {"DICOM": {"SOPInstanceUID": uid, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}}


def enhanced(uid: str, frames: list[tuple[float, dict[str, Any]]], **attributes: Any) -> Header:
    """An axial multi-frame instance: height and frame content of each frame."""
    built = header(uid, (0, 0, 0), frames=len(frames), NumberOfFrames=str(len(frames)), **attributes)
    dicom = built["DICOM"]
    position = dicom.pop("ImagePositionPatient")
    dicom["SharedFunctionalGroupsSequence"] = [
        {
            "PlaneOrientationSequence": [{"ImageOrientationPatient": dicom.pop("ImageOrientationPatient")}],
            "PixelMeasuresSequence": [
                {"PixelSpacing": dicom.pop("PixelSpacing"), "SliceThickness": dicom.pop("SliceThickness")}
            ],
        }
    ]
    dicom["PerFrameFunctionalGroupsSequence"] = [
        {
            "PlanePositionSequence": [{"ImagePositionPatient": [*position[:2], str(z)]}],
            "FrameContentSequence": [content],
        }
        for z, content in frames
    ]
    return built


DISTINGUISHING = [
    ("TemporalPositionIdentifier", lambda t: str(t + 1)),
    ("EchoNumbers", lambda t: str(t + 1)),
    ("EchoTime", lambda t: f"{4.6 * (t + 1)}"),
    ("InversionTime", lambda t: f"{100 * t + 50}"),
    ("FlipAngle", lambda t: f"{5 * t + 2}"),
    ("DiffusionBValue", lambda t: 500.0 * t),
    ("DiffusionGradientOrientation", lambda t: [1.0, 0.0, float(t)]),
    ("ImageType", lambda t: ["ORIGINAL", "PRIMARY", "MPIR"[t]]),
    ("ConvolutionKernel", lambda t: ["B30f", "B50f", "B60f", "B70f"][t]),
    ("KVP", lambda t: f"{80 + 20 * t}"),
    ("SliceThickness", lambda t: f"{t + 1}"),
    ("AcquisitionNumber", lambda t: str(t + 1)),
    ("FrameReferenceTime", lambda t: f"{1000 * t}.5"),
    ("TriggerTime", lambda t: f"{35 * t}"),
]
"""An attribute, and its value for each time that the slices are repeated."""
