"""Values that are what their representation says. pydicom hands out text in the place of a number, unasked.

The forms are those of PS3.5 Table 6.2-1 without the limits on length: numbers with more digits than allowed
are common and tell nobody.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataelem import DataElement

_FORMS = {
    "DS": re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"),
    "IS": re.compile(r"[+-]?\d+"),
    "TM": re.compile(r"\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
}


def is_well_formed(element: DataElement) -> bool:
    """Whether every value has the form of the element's VR; True for VRs that have none to check."""
    form = _FORMS.get(element.VR)
    if form is None or element.is_empty:
        return True
    values = element.value if element.VM > 1 else [element.value]
    return all(_is_of(form, value) for value in values)


def _is_of(form: re.Pattern[str], value: Any) -> bool:
    if isinstance(value, int | float):
        return True
    text = str(value).strip("\0 ")
    return not text or form.fullmatch(text) is not None
