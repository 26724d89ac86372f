"""What a header says of grey values: their unit, which end is dark, and the windows to look through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

CT_WINDOWS = (
    ("Soft tissue", 40, 400),
    ("Lung", -600, 1500),
    ("Bone", 400, 1800),
    ("Brain", 40, 80),
    ("Liver", 60, 160),
)
"""Name, centre and width in HU."""

PERCENTILES = (1.0, 99.0)
SAMPLE = 10**6
"""Of so many values percentiles are taken."""

UNITS = {"HU": "HU", "BQML": "Bq/ml", "GML": "g/ml", "US": "", "UNSPECIFIED": ""}
"""As people write the terms of RescaleType and Units; others stay as they are."""


@dataclass(frozen=True, kw_only=True)
class GreyWindow:
    """A window, in the values' unit.

    Attributes:
        name: As the page lists it.
        centre: Of the window.
        width: Above 0.
        function: LINEAR, LINEAR_EXACT or SIGMOID: VOILUTFunction, PS3.3 section C.11.2.1.3.
    """

    name: str
    centre: float
    width: float
    function: str = "LINEAR_EXACT"


@dataclass(frozen=True, kw_only=True)
class GreyValues:
    """How the values of a volume are shown.

    Attributes:
        unit: Empty where the header names none.
        inverted: Whether the lowest value is white: MONOCHROME1, PS3.3 section C.7.6.3.1.2.
        windows: The first is the one that the page opens with.
        notes: What a reader has to know of them.
    """

    unit: str
    inverted: bool
    windows: tuple[GreyWindow, ...]
    notes: tuple[str, ...]


def grey_values(slices: Sequence[tuple[Dataset, int]], array: npt.NDArray[np.generic]) -> GreyValues:
    """What the headers of a volume's slices say, and windows of its own values.

    Args:
        slices: (header, frame number from 1) of each slice, in slice order.
        array: Values after the rescale.
    """
    # The page opens at the middle.
    header, frame = slices[len(slices) // 2]
    notes = []
    unit = _unit(header, frame)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    own = _of_header(header, frame)
    if any(_of_header(*one) != own for one in slices):
        notes.append("Slices differ in the header's windows: those of the middle slice are offered.")
    windows = [GreyWindow(name=n, centre=c, width=w) for n, c, w in CT_WINDOWS] if unit == "HU" else []
    windows.append(_percentiles(finite))
    # A window that misses all values would open the page with a black picture.
    windows = [*(one for one in own if _meets(one, low, high)), *windows]
    windows.append(GreyWindow(name="All values", centre=(low + high) / 2, width=(high - low) or 1.0))
    windows += [one for one in own if not _meets(one, low, high)]
    if any("VOILUTSequence" in one for one in _places(header, frame, "FrameVOILUTSequence")):
        notes.append("The header's table of grey values (VOI LUT Sequence) is not applied.")
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        notes.append("Low values are bright and high ones dark: the header says MONOCHROME1.")
    return GreyValues(unit=unit, inverted=inverted, windows=tuple(windows), notes=tuple(notes))


def _unit(header: Dataset, frame: int) -> str:
    """RescaleType (PS3.3 section C.11.1.1.2), or Units of PET (section C.8.9.1.1.3).

    CT that is rescaled and says nothing is in HU (section C.8.2.1.1: the type is there if it is another).
    """
    places = list(_places(header, frame, "PixelValueTransformationSequence"))
    named = [str(one.get(keyword) or "") for keyword in ("RescaleType", "Units") for one in places]
    term = next(filter(None, named), "")
    if not term and header.get("Modality") == "CT" and any("RescaleSlope" in one for one in places):
        term = "HU"
    return UNITS.get(term, term) if term != "HU" or header.get("Modality") == "CT" else ""


def _of_header(header: Dataset, frame: int) -> tuple[GreyWindow, ...]:
    for place in _places(header, frame, "FrameVOILUTSequence"):
        centres, widths = _numbers(place.get("WindowCenter")), _numbers(place.get("WindowWidth"))
        names = _several(place.get("WindowCenterWidthExplanation"))
        function = str(place.get("VOILUTFunction") or "LINEAR")
        found = []
        for number, (centre, width) in enumerate(zip(centres, widths, strict=False)):
            if centre is None or width is None:
                continue
            told = str(names[number]).strip() if number < len(names) else ""
            if not told and len(centres) > 1:
                told = str(number + 1)
            # LINEAR has no width below 1 (section C.11.2.1.2.1): who writes one means the exact function.
            kind = "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function
            name = f"Header: {told}" if told else "Header"
            if width > 0 and np.isfinite([centre, width]).all():
                found.append(GreyWindow(name=name, centre=centre, width=width, function=kind))
        if found:
            return tuple(found)
    return ()


def _places(header: Dataset, frame: int, macro: str) -> Iterable[Dataset]:
    """Where an attribute of a frame may be: its own functional groups, the shared ones, the header."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*frames[frame - 1 : frame], *(header.get("SharedFunctionalGroupsSequence") or [])):
        yield from groups.get(macro) or []
    yield header


def _several(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _numbers(value: object) -> list[float | None]:
    """None for an empty value: a centre belongs to the width in the same place."""
    return [float(str(one)) if str(one) else None for one in _several(value)]


def _percentiles(finite: npt.NDArray[np.generic]) -> GreyWindow:
    first, last = 0.0, 1.0
    if finite.size:
        sample = np.asarray(finite[:: max(1, finite.size // SAMPLE)], dtype=np.float64)
        first, last = map(float, np.percentile(sample, PERCENTILES))
    return GreyWindow(name="Percentiles 1 to 99", centre=(first + last) / 2, width=(last - first) or 1.0)


def _meets(window: GreyWindow, low: float, high: float) -> bool:
    return window.centre - window.width / 2 < high and window.centre + window.width / 2 > low
