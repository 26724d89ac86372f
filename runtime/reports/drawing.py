"""Draws the planes of a snapshot as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from runtime.reports.planes import Plane

PANE = 440
"""Pixels of the side of the square that a plane is fitted into."""

_MARGIN = 30
"""Around each pane, for the letters of the patient's directions."""

_HEADER = 44
_FOOTER = 40
_LINE = 24
_CELL = PANE + 2 * _MARGIN
WIDTH = 2 * _CELL
HEIGHT = _HEADER + 2 * _CELL + _FOOTER

_BACKGROUND = (0, 0, 0)
_TEXT = (235, 235, 235)
_QUIET = (150, 150, 150)
_WARNING = (255, 200, 60)
_FILL = 0.25
"""Opacity of a segment inside its contour."""

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSTIC USE - computed by software, not reviewed"


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One segment in the legend."""

    number: int
    text: str
    color: tuple[int, int, int]
    """sRGB, 0 to 255."""


def draw(
    *,
    planes: Sequence[Plane],
    window: tuple[float, float],
    legend: Sequence[LegendEntry],
    title: str,
    caption: Sequence[str],
) -> npt.NDArray[np.uint8]:
    """Draw up to three planes at one scale in mm, with contours, letters and a legend.

    Parameters
    ----------
    planes
        Placed from left to right, then below; the fourth place holds the legend.
    window
        Values that become black and white.
    legend
        Entries in the order in which they are listed; those that find no place are counted.
    title, caption
        Text above the planes, and lines above the legend.

    Returns
    -------
    numpy.ndarray
        uint8 (rows, columns, 3), RGB. Both directions have the same scale, whatever the voxels' shape.
    """
    canvas = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    _text(pen, (_MARGIN, 12), title, size=18, width=WIDTH - 2 * _MARGIN)
    colors = {entry.number: entry.color for entry in legend}
    scale = min(PANE / extent for plane in planes for extent in _extent_mm(plane))
    for position, plane in enumerate(planes):
        left, top = (position % 2) * _CELL, _HEADER + (position // 2) * _CELL
        picture = _picture(plane, window=window, colors=colors, scale=scale)
        x = left + _MARGIN + (PANE - picture.width) // 2
        y = top + _MARGIN + (PANE - picture.height) // 2
        canvas.paste(picture, (x, y))
        middle_x, middle_y = x + picture.width // 2, y + picture.height // 2
        for letters, place, anchor in (
            (plane.left, (x - 6, middle_y), "rm"),
            (plane.right, (x + picture.width + 6, middle_y), "lm"),
            (plane.top, (middle_x, y - 4), "mb"),
            (plane.bottom, (middle_x, y + picture.height + 4), "mt"),
        ):
            pen.text(place, letters, font=_font(16), fill=_TEXT, anchor=anchor)
        _text(pen, (left + 6, top + 4), plane.name, size=14, color=_QUIET, width=_CELL)
    _draw_legend(pen, legend, caption, place=(_CELL + _MARGIN, _HEADER + _CELL + _MARGIN))
    _text(
        pen,
        (_MARGIN, HEIGHT - _FOOTER + 8),
        NOT_FOR_DIAGNOSIS,
        size=18,
        color=_WARNING,
        width=WIDTH - 2 * _MARGIN,
    )
    return np.asarray(canvas, dtype=np.uint8)


def _extent_mm(plane: Plane) -> tuple[float, float]:
    rows, columns = plane.values.shape
    return rows * plane.spacing[0], columns * plane.spacing[1]


def _picture(
    plane: Plane,
    *,
    window: tuple[float, float],
    colors: Mapping[int, tuple[int, int, int]],
    scale: float,
) -> Image.Image:
    """One plane with its contours; ``scale`` in pixels a mm."""
    height, width = (max(1, round(extent * scale)) for extent in _extent_mm(plane))
    black, white = window
    gray = ((plane.values - black) / max(white - black, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    enlarged = Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR)
    rgb = np.repeat(np.asarray(enlarged, dtype=np.float32)[..., None], 3, axis=2)
    for number, mask in plane.masks.items():
        shape = np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.NEAREST)
        ).astype(bool)
        color = np.array(colors[number], dtype=np.float32)
        rgb[shape] = (1 - _FILL) * rgb[shape] + _FILL * color
        contour = shape & ~_inside(_inside(shape))
        rgb[contour] = color
    return Image.fromarray(rgb.round().astype(np.uint8))


def _inside(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose four neighbours belong to the shape, too; beyond the picture nothing does."""
    padded = np.pad(shape, 1)
    inside: npt.NDArray[np.bool_] = (
        padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & shape
    )
    return inside


def _draw_legend(
    pen: ImageDraw.ImageDraw, legend: Sequence[LegendEntry], caption: Sequence[str], *, place: tuple[int, int]
) -> None:
    x, y = place
    for line in caption:
        _text(pen, (x, y), line, size=14, color=_QUIET, width=PANE)
        y += _LINE
    y += _LINE // 2
    room = (place[1] + PANE - y) // _LINE
    shown = legend if len(legend) <= room else legend[: room - 1]
    for entry in shown:
        pen.rectangle((x, y + 3, x + 14, y + 17), fill=entry.color)
        _text(pen, (x + 24, y), entry.text, size=16, width=PANE - 24)
        y += _LINE
    if len(shown) < len(legend):
        _text(pen, (x + 24, y), f"and {len(legend) - len(shown)} more", size=16, width=PANE - 24)


def _text(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    size: int,
    width: int,
    color: tuple[int, int, int] = _TEXT,
) -> None:
    """Write one line, cut where it would be wider than ``width`` pixels."""
    font = _font(size)
    if pen.textlength(text, font=font) > width:
        while text and pen.textlength(text + "...", font=font) > width:
            text = text[:-1]
        text += "..."
    pen.text(place, text, font=font, fill=color)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: an image has no other."""
    return ImageFont.load_default(size)
