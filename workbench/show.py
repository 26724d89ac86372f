"""Shows an image set: what its header says, and its slices as a contact sheet."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pydicom.dataset import Dataset

import healthimaging
from healthimaging.errors import GeometryError, VolumeError
from workbench.contact_sheet import contact_sheet
from workbench.deployment import Deployment
from workbench.showing.patient_axes import sides
from workbench.showing.private_file import write_private

ATTRIBUTES = (
    *("StudyInstanceUID", "StudyDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Modality", "BodyPartExamined", "Manufacturer", "ManufacturerModelName", "SOPClassUID"),
    *("Rows", "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImageOrientationPatient"),
    *("RescaleIntercept", "RescaleSlope", "SegmentationType"),
)
"""What describes the image and not the person."""
PATIENT_ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "AccessionNumber",
)
"""Shown only on request: a terminal is recorded, copied and looked at over shoulders."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What was shown, and the files that were written."""

    image_set_id: str
    version_id: str
    is_primary: bool
    instances: int
    headers: Mapping[str, str]
    """Attributes of the first instance by keyword."""
    png: Path | None
    html: Path | None
    note: str
    """Why there is no picture, where there is none."""

    def to_json(self) -> dict[str, object]:
        return {
            "imageSetId": self.image_set_id,
            "versionId": self.version_id,
            "isPrimary": self.is_primary,
            "instances": self.instances,
            "headers": dict(self.headers),
            "png": str(self.png) if self.png else None,
            "html": str(self.html) if self.html else None,
            "note": self.note,
        }


def show(
    deployment: Deployment,
    image_set_id: str,
    *,
    version_id: str | None = None,
    folder: Path,
    patient: bool = False,
) -> Shown:
    """Read an image set's headers, and write `<folder>/<image set id>.png` and `.html` if it is a volume.

    Both files have mode 0600: they hold images of a patient.
    """
    datastore = deployment.stack("data")["DatastoreId"]
    client = deployment.session.client("medical-imaging")
    image_set = healthimaging.ImageSet.open(client, datastore, image_set_id, version_id)
    datasets = image_set.datasets(pixels=False)
    headers = headers_of(datasets[0], patient=patient)
    png = html = None
    note = ""
    try:
        # Of a localizer and the stack that was planned on it, the stack; of echoes, the first.
        volume = max(image_set.volumes(), key=lambda one: one.array.size)
        if volume.array.ndim != 3:
            raise VolumeError("the picture is in colour")
    except (GeometryError, VolumeError) as error:
        # Documents, segmentations and scouts are shown by their headers alone.
        note = f"no picture: {error}"
    else:
        png, html = folder / f"{image_set_id}.png", folder / f"{image_set_id}.html"
        sheet = contact_sheet(
            volume.array,
            spacing=volume.geometry.spacing,
            modality=headers.get("Modality", ""),
            inverted=datasets[0].get("PhotometricInterpretation") == "MONOCHROME1",
        )
        (left, right), (top, bottom), _ = sides(volume.geometry.affine)
        side = f"Of every slice: left {left}, right {right}, top {top}, bottom {bottom}. Not for diagnosis."
        write_private(png, sheet)
        write_private(html, _page(image_set_id, headers, sheet, side).encode())
    return Shown(
        image_set_id=image_set_id,
        version_id=image_set.ref.version_id,
        is_primary=bool(image_set.is_primary),
        instances=len(datasets),
        headers=headers,
        png=png,
        html=html,
        note=note,
    )


def headers_of(dataset: Dataset, *, patient: bool) -> dict[str, str]:
    """The attributes of an instance that describe the image; those of the person only if asked for."""
    keywords = (*PATIENT_ATTRIBUTES, *ATTRIBUTES) if patient else ATTRIBUTES
    return {keyword: str(dataset[keyword].value) for keyword in keywords if keyword in dataset}


def _page(image_set_id: str, headers: Mapping[str, str], png: bytes, side: str) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in headers.items()
    )
    picture = base64.b64encode(png).decode("ascii")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Image set {escape(image_set_id)}</title>"
        "<style>body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;color:#1c2733}"
        "img{width:100%;background:#000}th{text-align:left;font-weight:500;color:#5c6b7a;padding-right:1.5rem}"
        "td,th{vertical-align:top;overflow-wrap:anywhere}</style>"
        f"<h1>Image set {escape(image_set_id)}</h1><p>{escape(side)}</p>"
        f'<img alt="slices" src="data:image/png;base64,{picture}"><table>{rows}</table></html>\n'
    )
