"""Labels from a table: a CSV file that gives studies a class, as registries and spreadsheets export it."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from workbench.deployment import Deployment
from workbench.errors import DatasetInvalid

STUDY_COLUMNS = ("studyinstanceuid", "studyuid")
CLASS_COLUMNS = ("class", "label", "classname")
"""Column names that are understood without an option: lower case, letters only."""

DELIMITERS = ",;\t"
"""Spreadsheets write a semicolon where the comma is the decimal sign."""

_UID = re.compile(r"[0-9.]{1,64}")
_CLASS = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The class of each study.

    Attributes:
        source: File name or S3 URI.
        sha256: Of the file's bytes: with it a manifest says which table it was made from.
        classes: Class name by Study Instance UID (0020,000D).
        warnings: What is odd about the table but does not make it unusable.
    """

    source: str
    sha256: str
    classes: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())


def open_class_table(
    deployment: Deployment,
    source: str | Path,
    *,
    study_column: str | None = None,
    class_column: str | None = None,
) -> ClassTable:
    """Read a table from a file, or from an object (`s3://...`).

    Args:
        deployment: The environment whose credentials read from S3.
        source: Path or S3 URI.
        study_column: Header of the column with Study Instance UIDs; None finds `study_instance_uid`.
        class_column: Header of the column with classes; None finds `class` or `label`.

    Raises:
        DatasetInvalid: The table cannot be used; the lines are named, all at once.
    """
    name = str(source)
    if name.startswith("s3://"):
        parts = urlsplit(name, allow_fragments=False)
        client = deployment.session.client("s3")
        content = client.get_object(Bucket=parts.netloc, Key=parts.path.removeprefix("/"))["Body"].read()
    else:
        content = Path(source).read_bytes()
        name = Path(source).name
    return read_class_table(content, source=name, study_column=study_column, class_column=class_column)


def read_class_table(
    content: bytes, *, source: str, study_column: str | None = None, class_column: str | None = None
) -> ClassTable:
    """Read a table with a header line from the bytes of a CSV file; arguments as in `open_class_table`.

    Messages name line numbers and never what a cell holds: a wrong column may be one with names.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetInvalid(
            f"{source} is not text in UTF-8 (byte {error.start}).", advice='Export it as "CSV UTF-8".'
        ) from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        numbered = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DatasetInvalid(
            f"{source}, line {rows.line_num}: {error}.", advice="Correct the quotes in that line."
        ) from error
    if not numbered:
        raise DatasetInvalid(f"{source} is empty.", advice="It needs a header line and a line a study.")
    header = [cell.strip() for cell in numbered[0][1]]
    if any(_UID.fullmatch(cell) for cell in header):
        # Else the columns that a message lists would be a patient's.
        raise DatasetInvalid(
            f"{source} begins with a line of data.", advice="Give it a header line that names its columns."
        )
    study = _column(header, study_column, STUDY_COLUMNS, source=source, option="--study-column")
    label = _column(header, class_column, CLASS_COLUMNS, source=source, option="--class-column")
    classes, warnings = _classes(numbered[1:], study=study, label=label, source=source)
    return ClassTable(
        source=source, sha256=hashlib.sha256(content).hexdigest(), classes=classes, warnings=warnings
    )


def _column(
    header: Sequence[str], wanted: str | None, known: Sequence[str], *, source: str, option: str
) -> int:
    if wanted is not None:
        found = [index for index, name in enumerate(header) if name == wanted]
    else:
        plain = [re.sub("[^a-z]", "", name.lower()) for name in header]
        found = [index for index, name in enumerate(plain) if name in known]
    if len(found) == 1:
        return found[0]
    what = repr(wanted) if wanted is not None else f"called {' or '.join(known)}"
    raise DatasetInvalid(
        f"{source} has {len(found) or 'no'} columns {what}.",
        advice=f"Say which one with {option}. Its columns: {', '.join(header)}.",
    )


def _classes(
    rows: Sequence[tuple[int, Sequence[str]]], *, study: int, label: int, source: str
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    classes: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    repeated: list[int] = []
    for line, row in rows:
        if len(row) <= max(study, label):
            problems.append(f"line {line} has {len(row)} cells")
            continue
        uid, name = row[study].strip(), row[label].strip()
        if not _UID.fullmatch(uid):
            problems.append(f"line {line} has no Study Instance UID")
        elif not _CLASS.fullmatch(name):
            problems.append(f"line {line} has no class")
        elif uid not in classes:
            classes[uid], lines[uid] = name, line
        elif classes[uid] == name:
            repeated.append(line)
        else:
            problems.append(f"lines {lines[uid]} and {line} give study {uid} different classes")
    if not problems and len(set(classes.values())) < 2:
        problems.append(f"there are {len(set(classes.values()))} classes, and a classifier needs two")
    if problems:
        raise DatasetInvalid(
            f"{source} cannot be used as labels: {len(problems)} "
            f"{'problem' if len(problems) == 1 else 'problems'}, first: {problems[0]}.",
            advice="Correct the table, or choose its columns with --study-column and --class-column.",
            details=problems[1:],
        )
    if not repeated:
        return classes, ()
    numbers = ", ".join(map(str, repeated[:10])) + (" ..." if len(repeated) > 10 else "")
    return classes, (f"{len(repeated)} lines of {source} repeat a study and its class: {numbers}",)
