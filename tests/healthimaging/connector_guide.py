"""The guide to the connector, and the code that is in it."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "connector.md").read_text(encoding="utf-8")


def code_blocks() -> list[str]:
    """Its Python code, in order."""
    return re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
