"""The named queries over a million rows: what each reads and how long it takes, beside the workshop's layout.

Both sides are asked through the local Athena. Its bytes are those that were read of the data: of Parquet the
column chunks of row groups that can have rows of the answer, of JSON whole files, as Athena counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cataloguing.athena import Answer, Athena
from benchmarks.cataloguing.workshop_documents import Documents
from benchmarks.cataloguing.workshop_questions import Question, questions
from benchmarks.cataloguing.workshop_tables import DATABASE
from benchmarks.report import Progress, Report

TIMES_FEWER = 20.0
"""Bytes of the workshop's layout against ours, all queries together."""
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class _Asked:
    question: Question
    ours: Answer
    workshops: Answer
    document_bytes: int
    """Of the documents that the workshop's query reads."""

    @property
    def ratio(self) -> float:
        return self.document_bytes / max(1, self.ours.bytes)


def measure_queries(
    report: Report, athena: Athena, documents: Mapping[str, Documents], *, rows: int, progress: Progress
) -> None:
    """Rows of every query, and the checks of all together."""
    asked = []
    for question in questions(DATABASE):
        progress(f"query {question.name}")
        asked.append(
            _Asked(
                question=question,
                ours=athena.ask(question.sql),
                workshops=athena.ask(question.workshop_sql),
                document_bytes=sum(documents[table].bytes for table in question.workshop_tables),
            )
        )
    title = f"named queries over {rows} instances"
    for one in asked:
        report.row(
            title,
            query=one.question.name,
            rows=len(one.ours.rows),
            mb=one.ours.bytes / MB,
            workshop_mb=one.document_bytes / MB,
            times_fewer=one.ratio,
            seconds=one.ours.seconds,
            workshop_seconds=one.workshops.seconds,
            reads_instances="instances" in one.question.workshop_tables,
        )
    _totals(report, asked)


def _totals(report: Report, asked: Sequence[_Asked]) -> None:
    ours = sum(one.ours.bytes for one in asked)
    workshops = sum(one.document_bytes for one in asked)
    worst = min(asked, key=lambda one: one.ratio)
    report.row(
        "all named queries together",
        queries=len(asked),
        mb=ours / MB,
        workshop_mb=workshops / MB,
        times_fewer=workshops / ours,
        seconds=sum(one.ours.seconds for one in asked),
        workshop_seconds=sum(one.workshops.seconds for one in asked),
        worst_query=worst.question.name,
        worst_times_fewer=worst.ratio,
    )
    different = [one.question.name for one in asked if _sorted(one.ours.rows) != _sorted(one.workshops.rows)]
    report.check(
        "both layouts give the same answers",
        wanted=f"{len(asked)} of {len(asked)}",
        got=", ".join(different) or len(asked),
        ok=not different,
    )
    counted = [one.question.name for one in asked if one.workshops.bytes != one.document_bytes]
    report.check(
        "of JSON, Athena counts whole files",
        wanted="the documents' size",
        got=", ".join(counted) or "the documents' size",
        ok=not counted,
    )
    report.at_least("bytes scanned, times fewer than in the workshop's layout", workshops / ours, TIMES_FEWER)


def _sorted(rows: Sequence[tuple[str | None, ...]]) -> list[tuple[str, ...]]:
    return sorted(tuple("" if cell is None else f"={_day(cell)}" for cell in row) for row in rows)


def _day(cell: str) -> str:
    """The local Athena makes a moment of a date that is rounded, where it does not know that it is one."""
    return cell.removesuffix(" 00:00:00.000")
