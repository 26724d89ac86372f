"""Dates moved by whole days, and ages that are told exactly only below 90."""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})(?:(\d{2})|\.(\d{2})\.)(\d{2})")
"""A DA (PS3.5 6.2), and with dots the form of ACR-NEMA, which old files have."""
_DATE_TIME = re.compile(r"(\d{4})(\d{2})(\d{2})((?:\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?)")
_AGE = re.compile(r"(\d{3})([DWMY])")
OLDEST = 90
"""Years. Ages over 89 identify (45 CFR 164.514(b)(2)(i)(C)); they become one category."""
_DAYS = {"D": 1, "W": 7, "M": 30, "Y": 365}


def shifted(value: str, *, vr: str, days: int) -> str | None:
    """A DA or DT moved by `days`, its time of day and its offset from UTC kept.

    None where it is not a full date: a year or a month alone cannot be moved by days, a malformed value could
    be anything.
    """
    text = value.strip("\0 ")
    found = (_DATE if vr == "DA" else _DATE_TIME).fullmatch(text)
    if found is None:
        return None
    year, month, day = text[:4], text[4:].lstrip(".")[:2], ""
    rest = ""
    if vr == "DA":
        day = text[-2:]
    else:
        day, rest = found.group(3), found.group(4)
    try:
        moved = date(int(year), int(month), int(day)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}".rjust(8, "0") + rest


def capped_age(value: str) -> str | None:
    """An AS with everything from 90 years on as `090Y`; None where it is malformed."""
    found = _AGE.fullmatch(value.strip("\0 "))
    if found is None:
        return None
    number, unit = int(found.group(1)), found.group(2)
    return "090Y" if number * _DAYS[unit] >= OLDEST * _DAYS["Y"] else found.group(0)
