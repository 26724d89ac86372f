"""What becomes of a file on its way up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fate:
    """State, kind and reason as the journal has them."""

    state: str
    kind: str = ""
    reason: str = ""


UPLOADED = Fate(state="uploaded")
CHANGED = Fate(
    state="failed", kind="Changed", reason="the file changed while it was ingested: ingest it again"
)
