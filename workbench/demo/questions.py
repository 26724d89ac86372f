"""Questions that people ask the catalog first: named queries, as they are deployed."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.deployment import Deployment
from workbench.named_queries import named_query
from workbench.progress import Progress
from workbench.query import QueryResult, query, table_rows

QUESTIONS = (
    "studies by modality",
    "storage by modality",
    "ct series for training",
    "series without segmentation",
    "missing slices",
)
SHOWN_ROWS = 6
SHOWN_COLUMNS = 6
"""What fits into the report."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question and what the catalog says."""

    name: str
    question: str
    result: QueryResult

    @property
    def columns(self) -> list[str]:
        return [column.name for column in self.result.columns[:SHOWN_COLUMNS]]

    @property
    def rows(self) -> list[list[str]]:
        return [list(row[:SHOWN_COLUMNS]) for row in table_rows(self.result)[:SHOWN_ROWS]]

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "question": self.question,
            "rows": len(self.result.rows),
            "bytesScanned": self.result.bytes_scanned,
            "seconds": self.result.seconds,
        }


def ask(deployment: Deployment, progress: Progress) -> tuple[Answer, ...]:
    """The answers to `QUESTIONS`, in their order."""
    answers = []
    for name in QUESTIONS:
        known = named_query(deployment, name)
        result = query(deployment, known.sql, every_seconds=0.1)
        progress(f"{known.name}: {len(result.rows)} rows, {result.bytes_scanned} bytes scanned")
        answers.append(Answer(name=known.name, question=known.answers, result=result))
    return tuple(answers)
