"""A contact sheet of a volume: its slices side by side as one PNG."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

WINDOWS = {"CT": (-600.0, 1500.0)}
"""Centre and width by modality where values have a unit; others are scaled by their own percentiles."""
PERCENTILES = (1.0, 99.0)
TILE = 192
"""Longest side of a slice on the sheet, pixels."""


def contact_sheet(
    array: npt.NDArray[np.generic],
    *,
    spacing: tuple[float, float, float],
    modality: str,
    inverted: bool = False,
    tiles: int = 20,
    columns: int = 5,
) -> bytes:
    """PNG with up to `tiles` slices at even distances, first to last, in true proportions.

    Args:
        array: (slices, rows, columns), for CT in HU.
        spacing: (column, row, slice) in mm.
        modality: Modality (0008,0060), which decides the grey window.
        inverted: Whether low values are bright: MONOCHROME1 (PS3.3 section C.7.6.3.1.2).
        tiles: Most slices to show.
        columns: Slices in a row of the sheet.
    """
    indices = np.unique(np.linspace(0, array.shape[0] - 1, min(tiles, array.shape[0])).round().astype(int))
    chosen = np.asarray(array[indices], dtype=np.float64)
    low, high = _window(chosen, modality)
    grey = (np.clip((chosen - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    width_mm, height_mm = array.shape[2] * spacing[0], array.shape[1] * spacing[1]
    scale = TILE / max(width_mm, height_mm)
    width, height = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    columns = min(columns, len(indices))
    sheet = Image.new("L", (columns * width, math.ceil(len(indices) / columns) * height))
    for number, plane in enumerate(grey):
        tile = Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
        sheet.paste(tile, ((number % columns) * width, (number // columns) * height))
    data = io.BytesIO()
    sheet.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _window(values: npt.NDArray[np.float64], modality: str) -> tuple[float, float]:
    if modality in WINDOWS:
        centre, width = WINDOWS[modality]
        return centre - width / 2, centre + width / 2
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(max(high, low + 1e-6))
