"""DICOM values in the types of the catalog's columns.

A value that breaks its value representation (DICOM PS3.5 section 6.2), or that its column cannot hold,
becomes null: one bad header field must not keep a study out of the catalog. As text it is still in the
column `attributes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import TypeVar

T = TypeVar("T")

_PLACES = Decimal("0.000001")
_MOST = Decimal(10) ** 10
"""What decimal(16,6) holds: ten digits before the point, six after it."""

_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Units of an age string (VR AS) in years."""


def dicom_date(text: str | None) -> date | None:
    """A DICOM date (VR DA: YYYYMMDD, or YYYY.MM.DD from before 1993)."""
    if text is None:
        return None
    digits = text.replace(".", "") if len(text) == 10 else text
    if len(digits) != 8 or not _digits(digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def dicom_time(text: str | None) -> time | None:
    """A DICOM time (VR TM: HHMMSS.FFFFFF, of which the end may be missing), to the millisecond.

    The leap second 60 is the last millisecond of its minute: Athena has no such time.
    """
    if text is None:
        return None
    whole, _, fraction = text.partition(".")
    if len(whole) not in (2, 4, 6) or not _digits(whole) or (fraction and not _digits(fraction)):
        return None
    hour, minute, second = (int(whole[at : at + 2] or 0) for at in (0, 2, 4))
    milliseconds = int(fraction[:3].ljust(3, "0")) if fraction else 0
    if second == 60:
        second, milliseconds = 59, 999
    try:
        return time(hour, minute, second, milliseconds * 1000)
    except ValueError:
        return None


def moment(day: date | None, at: time | None) -> datetime | None:
    """Date and time together; None where one of them is missing."""
    return None if day is None or at is None else datetime.combine(day, at)


def age_in_years(text: str | None) -> float | None:
    """An age (VR AS: three digits and D, W, M or Y)."""
    if text is None or len(text) != 4 or not _digits(text[:3]) or text[3] not in _YEARS:
        return None
    return int(text[:3]) * _YEARS[text[3]]


def decimal(text: str | None) -> Decimal | None:
    """A decimal string (VR DS) with six places; None for what decimal(16,6) cannot hold."""
    if text is None:
        return None
    try:
        number = Decimal(text)
        if not number.is_finite() or abs(number) >= _MOST:
            return None
        rounded = number.quantize(_PLACES)
    except InvalidOperation:
        return None
    return rounded if abs(rounded) < _MOST else None


def int32(value: int | None) -> int | None:
    """None for a number that Glue's 32-bit `int` cannot hold."""
    return value if value is not None and -(2**31) <= value < 2**31 else None


def agreed(values: Sequence[T]) -> T | None:
    """The one value that all instances share, else None."""
    return values[0] if values and all(value == values[0] for value in values) else None


def slice_position(position: Sequence[float] | None, orientation: Sequence[float] | None) -> float | None:
    """Where a slice lies along its normal, in mm.

    The normal is the cross product of the row's and the column's direction (PS3.3 C.7.6.2.1.1), in LPS.
    Slices of one stack are in its order; None where direction or position are missing or are none.

    Args:
        position: ImagePositionPatient (0020,0032), LPS in mm.
        orientation: ImageOrientationPatient (0020,0037): direction cosines of the row, then of the column.
    """
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return None
    (rx, ry, rz), (cx, cy, cz) = orientation[:3], orientation[3:]
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    length = math.sqrt(sum(one * one for one in normal))
    if not 0.9 < length < 1.1:
        # Directions that are not at right angles, or not of length one, have no such normal.
        return None
    return sum(one * along for one, along in zip(position, normal, strict=True)) / length


def utc(at: datetime | None) -> datetime | None:
    """Without its zone, in UTC: Athena's `timestamp` has none. To the millisecond, as Athena reads it."""
    if at is None:
        return None
    plain = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
    return plain.replace(microsecond=plain.microsecond // 1000 * 1000)


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
