"""The table of `docs/bundles.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
"""What stands between is written by `make bundles`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one bundle."""

    folder: str
    version: str
    task: str
    modality: str
    network: str
    verdict: str
    detail: str
    labels: int | None
    """Segments that are in the mask, of all `segments`."""
    segments: int | None


def write_table(page: Path, rows: Sequence[Row]) -> None:
    """Put the rows between the marks of the page; the rest of it stays."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{_table(rows)}{END}{after}", encoding="utf-8")


def _table(rows: Sequence[Row]) -> str:
    ran = [row for row in rows if row.verdict != "refused"]
    refused = [row for row in rows if row.verdict == "refused"]
    lines = [
        "| bundle | version | task | network | volume | segments in the mask | mask |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ran:
        verdict = row.verdict + (f": {row.detail}" if row.detail else "")
        present = "" if row.labels is None else f"{row.labels} of {row.segments}"
        cells = (row.folder, row.version, row.task, row.network, row.modality, present, verdict)
        lines.append(_line(cells))
    lines += ["", "Not served:", "", "| bundle | version | why |", "|---|---|---|"]
    lines += [_line((row.folder, row.version, row.detail)) for row in refused]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
