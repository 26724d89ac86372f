"""Writes the viewer's page: one HTML file with voxels, program and style inside, and nothing to fetch.

Its content security policy allows the one program and the one style that it was written with, by their
hashes, and no connection: a page with a patient's images can tell nobody.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from healthimaging.volumes.geometry import FloatArray
from workbench.showing.grey_values import GreyValues
from workbench.showing.patient_axes import sides, tilt_degrees
from workbench.showing.segmentations import Overlay

PLANES = ("Sagittal", "Coronal", "Axial")
"""By the axis that crosses them: x, y, z."""

OBLIQUE_DEGREES = 10.0
"""From where on the page says that a plane is not the patient's."""

_TYPES = {"i2": "int16", "i4": "int32", "f4": "float32", "f8": "float64"}
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a page shows.

    Attributes:
        title: Of the page.
        array: (z, y, x), as `PatientAxes.turned` gives it.
        affine: 4x4, from its (x, y, z) indices to LPS mm.
        slice_axis: Which of x, y, z crosses the slices as they were acquired.
        grey: How its values are shown.
        overlay: Segments on the same grid.
        headers: What is written beside the picture.
        notes: What a reader has to know of the picture.
    """

    title: str
    array: npt.NDArray[np.generic]
    affine: FloatArray
    slice_axis: int
    grey: GreyValues
    overlay: Overlay
    headers: Mapping[str, str]
    notes: Sequence[str]


def page(scene: Scene) -> str:
    """The HTML document."""
    array = _in_browser_type(scene.array)
    style, program = _source("viewer.css"), _source("viewer.js") + _source("picture.js")
    layers = "\n".join(
        _block(f"layer-{number}", layer.tobytes()) for number, layer in enumerate(scene.overlay.layers)
    )
    return Template(_source("viewer.html")).substitute(
        title=escape(scene.title),
        policy=f"default-src 'none'; script-src '{_hash(program)}'; style-src '{_hash(style)}';"
        " base-uri 'none'; form-action 'none'",
        style=style,
        headers=_rows(scene.headers),
        notes="".join(f"<li>{escape(note)}</li>" for note in scene.notes),
        description=_json(_description(scene, array)),
        voxels=_block("voxels", array.tobytes()),
        layers=layers,
        program=program,
    )


def _description(scene: Scene, array: npt.NDArray[np.generic]) -> dict[str, object]:
    tilts = tilt_degrees(scene.affine)
    names = [
        name if tilt < OBLIQUE_DEGREES else f"{name}, oblique by {tilt:.0f} degrees"
        for name, tilt in zip(PLANES, tilts, strict=True)
    ]
    return {
        "shape": list(array.shape[::-1]),
        "type": _TYPES[array.dtype.str[1:]],
        "affine": scene.affine[:3].tolist(),
        "spacing": np.linalg.norm(scene.affine[:3, :3], axis=0).tolist(),
        "sides": sides(scene.affine),
        "planes": names,
        "acquired": scene.slice_axis,
        "unit": scene.grey.unit,
        "inverted": scene.grey.inverted,
        "windows": [asdict(one) for one in scene.grey.windows],
        "segments": [asdict(one) for one in scene.overlay.segments],
        "layers": len(scene.overlay.layers),
    }


def _in_browser_type(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """As a little-endian array that browsers have a type for, without a change of any value below 2^53."""
    kind = array.dtype
    if kind.kind == "f":
        wanted = "<f4" if kind.itemsize <= 4 else "<f8"
    elif np.can_cast(kind, np.int16):
        wanted = "<i2"
    else:
        wanted = "<i4" if np.can_cast(kind, np.int32) else "<f8"
    return np.ascontiguousarray(array, dtype=wanted)


def _block(name: str, data: bytes) -> str:
    """Bytes as the program finds them: not executed, and of an alphabet that needs no escapes."""
    text = base64.b64encode(zlib.compress(data, 6)).decode("ascii")
    return f'<script type="text/plain" id="{name}">{text}</script>'


def _json(document: object) -> str:
    # `</script>` in a label would end the element that holds it.
    return json.dumps(document).replace("<", "\\u003c")


def _rows(headers: Mapping[str, str]) -> str:
    return "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in headers.items()
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _source(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
