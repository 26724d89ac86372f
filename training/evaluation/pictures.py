"""Pictures of the worst cases: three planes through the largest error, with the contours of both sides.

They show voxels of the image and nothing of its header. All the same they are images of patients, with
whatever is burnt into them, to be kept where images of patients are kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.ndimage import label as connected_parts

from training.evaluation.classification_scores import ClassifiedCase
from training.evaluation.segmentation_scores import SegmentScore

KEPT = 3
"""How many of the worst cases are pictured."""

PANEL = 380
"""Pixels of a panel's longer side."""

REFERENCE, PREDICTION = (0, 190, 255), (255, 150, 0)
"""Light blue and orange stay apart for all common kinds of colour blindness, on grey too."""

_GROUND, _INK, _SOFT = (16, 20, 26), (236, 240, 244), (150, 160, 172)
_GAP, _HEAD, _FOOT, _TITLE = 12, 58, 40, 24

_WINDOW = (1.0, 99.0)
"""Percentiles of the image between which grey runs from black to white."""

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

_NAMES = ("sagittal", "coronal", "axial")
_SIDES = (("A", "P"), ("R", "L"), ("R", "L"))
"""What lies at the left and the right edge of each plane."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn case."""

    image_set_id: str
    badness: float
    png: bytes


class Gallery:
    """Keeps the pictures of the worst cases.

    A case is drawn while its volumes are in memory, and only when it is among the worst so far.
    """

    def __init__(self, *, keep: int = KEPT) -> None:
        self._keep = keep
        self._pictures: list[Picture] = []

    def consider(self, image_set_id: str, badness: float | None, draw: Callable[[], Image.Image]) -> None:
        """Draws and keeps a case if it is among the worst.

        Args:
            image_set_id: Names the picture.
            badness: The larger the worse; None is not pictured.
            draw: Draws it.
        """
        if badness is None or (len(self._pictures) == self._keep and badness <= self._pictures[-1].badness):
            return
        stream = io.BytesIO()
        draw().save(stream, "PNG")
        picture = Picture(image_set_id=image_set_id, badness=badness, png=stream.getvalue())
        ordered = sorted([*self._pictures, picture], key=lambda one: -one.badness)
        self._pictures = ordered[: self._keep]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The worst first."""
        return tuple(self._pictures)


def draw_segmentation(
    image: MetaTensor,
    *,
    reference: torch.Tensor,
    prediction: torch.Tensor,
    segment: SegmentScore,
    image_set_id: str,
) -> Image.Image:
    """Three planes through the middle of the largest error.

    Args:
        image: (1, columns, rows, slices) with an affine in RAS mm.
        reference: Booleans of one segment, (columns, rows, slices).
        prediction: Likewise.
        segment: Its scores.
        image_set_id: For the caption.
    """
    volume, spacing = _in_lps(image, image.as_tensor()[0])
    wanted, _ = _in_lps(image, reference)
    found, _ = _in_lps(image, prediction)
    masks = {"reference": wanted > 0.5, "prediction": found > 0.5}
    place = _middle_of_largest(masks["reference"] ^ masks["prediction"], spacing)
    distance = "" if segment.hausdorff95_mm is None else f" · Hausdorff 95 {segment.hausdorff95_mm:.1f} mm"
    dice = "none" if segment.dice is None else f"{segment.dice:.3f}"
    return _sheet(
        volume,
        spacing,
        place,
        title=f"{segment.label} · Dice {dice}{distance}",
        subtitle=f"image set {image_set_id} · reference {segment.reference_ml:.1f} ml, "
        f"found {segment.predicted_ml:.1f} ml",
        contours=[(masks["reference"], REFERENCE), (masks["prediction"], PREDICTION)],
        legend=[(REFERENCE, "reference"), (PREDICTION, "found by the model")],
    )


def draw_classification(image: MetaTensor, result: ClassifiedCase) -> Image.Image:
    """The three central planes, with the true and the predicted class.

    Args:
        image: (1, columns, rows, slices) with an affine in RAS mm.
        result: What the model says.
    """
    volume, spacing = _in_lps(image, image.as_tensor()[0])
    shares = " · ".join(f"{name} {value:.2f}" for name, value in list(result.probabilities.items())[:6])
    return _sheet(
        volume,
        spacing,
        tuple(n // 2 for n in volume.shape),
        title=f"true: {result.true} · predicted: {result.predicted}",
        subtitle=f"image set {result.case.image.image_set_id} · {shares}",
        contours=[],
        legend=[],
    )


def _in_lps(image: MetaTensor, values: torch.Tensor) -> tuple[Plane, tuple[float, float, float]]:
    """A volume whose axes run to the patient's left, back and head, and its spacing in mm in this order."""
    turned = Orientation("LPS", labels=None)(MetaTensor(values[None].float(), affine=image.affine))
    x, y, z = (float(mm) for mm in turned.pixdim)
    return turned[0].numpy(), (x, y, z)


def _middle_of_largest(error: Mask, spacing: tuple[float, float, float]) -> tuple[int, ...]:
    """The voxel deepest inside the largest connected error; the middle of the volume where there is none."""
    if not error.any():
        return tuple(n // 2 for n in error.shape)
    corners = [np.flatnonzero(error.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in corners)
    parts, _ = connected_parts(error[box])
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    # With a rim of "no error", because an error may fill its box.
    largest = np.pad(parts == sizes.argmax(), 1)
    depths = distance_transform_edt(largest, sampling=spacing)
    deepest = np.unravel_index(int(depths.argmax()), depths.shape)
    return tuple(int(i) - 1 + part.start for i, part in zip(deepest, box, strict=True))


def _sheet(
    volume: Plane,
    spacing: tuple[float, float, float],
    place: tuple[int, ...],
    *,
    title: str,
    subtitle: str,
    contours: list[tuple[Mask, tuple[int, int, int]]],
    legend: list[tuple[tuple[int, int, int], str]],
) -> Image.Image:
    # Millimetres to pixels, the same in all three planes.
    scale = PANEL / max(n * mm for n, mm in zip(volume.shape, spacing, strict=True))
    low, high = np.percentile(volume[:: max(1, volume.shape[0] // 128)], _WINDOW)
    grey = np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1)
    panels = []
    for axis in (2, 1, 0):
        plane = Image.fromarray((_plane(grey, axis, place[axis]) * 255).astype(np.uint8))
        size = _pixels(volume.shape, spacing, axis, scale)
        panel = plane.resize(size, Image.Resampling.BICUBIC).convert("RGB")
        for mask, colour in contours:
            _outline(panel, _plane(mask, axis, place[axis]), colour)
        panels.append((axis, panel))
    heading, small = ImageFont.load_default(size=19), ImageFont.load_default(size=14)
    width = sum(panel.width for _, panel in panels) + _GAP * (len(panels) + 1)
    needed = max(heading.getlength(title), small.getlength(subtitle)) + 2 * _GAP
    height = max(panel.height for _, panel in panels) + _HEAD + _TITLE + (_FOOT if legend else _GAP)
    sheet = Image.new("RGB", (max(width, int(needed) + 1), height), _GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, 8), title, fill=_INK, font=heading)
    pen.text((_GAP, 34), subtitle, fill=_SOFT, font=small)
    left = _GAP
    for axis, panel in panels:
        pen.text(
            (left, _HEAD), f"{_NAMES[axis]} {place[axis] + 1}/{volume.shape[axis]}", fill=_SOFT, font=small
        )
        sheet.paste(panel, (left, _HEAD + _TITLE))
        for text, at in zip(_SIDES[axis], (left + 5, left + panel.width - 15), strict=True):
            pen.text(
                (at, _HEAD + _TITLE + 4), text, fill=_INK, font=small, stroke_width=2, stroke_fill=_GROUND
            )
        left += panel.width + _GAP
    left = _GAP
    for colour, text in legend:
        y = height - _FOOT // 2
        pen.line((left, y, left + 26, y), fill=colour, width=3)
        pen.text((left + 34, y - 9), text, fill=_INK, font=small)
        left += 34 + int(small.getlength(text)) + 28
    return sheet


def _plane(volume: NDArray[np.generic], axis: int, index: int) -> NDArray[np.generic]:
    """One plane as it is looked at: patient's right (or front) to the left, head (or front) up."""
    plane = np.take(volume, index, axis=axis).T
    return np.ascontiguousarray(plane if axis == 2 else plane[::-1])


def _pixels(
    shape: tuple[int, ...], spacing: tuple[float, float, float], axis: int, scale: float
) -> tuple[int, int]:
    wide, high = (a for a in range(3) if a != axis)
    return max(1, round(shape[wide] * spacing[wide] * scale)), max(
        1, round(shape[high] * spacing[high] * scale)
    )


def _outline(panel: Image.Image, mask: NDArray[np.generic], colour: tuple[int, int, int]) -> None:
    """Draws the rim of a mask, two pixels wide, at the panel's resolution."""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(panel.size, Image.Resampling.BILINEAR)
    inside = np.asarray(scaled) > 127
    rim = inside & ~binary_erosion(inside, iterations=2)
    pixels = np.array(panel)
    pixels[rim] = colour
    panel.paste(Image.fromarray(pixels))
