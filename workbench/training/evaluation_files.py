"""Brings an evaluation's report to this machine: the page, its pictures, the model card, the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from workbench.session import Session
from workbench.training.evaluation import FILE, Evaluation

REPORT = "report.html"
MODEL_CARD = "model-card.json"

_PICTURES = re.compile(rb"""["'(](pictures/[\w-]+\.png)["')]""")
"""Pictures by their names in the page and in the document: whoever may read an evaluation may not list."""

_NOT_THERE = frozenset({"NoSuchKey", "AccessDenied"})
"""S3 answers AccessDenied for an object that is not there to whoever may not list."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """Files of an evaluation on this machine; None for one that the evaluation does not have."""

    folder: Path
    report: Path | None
    model_card: Path | None
    pictures: tuple[Path, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "report": str(self.report) if self.report else None,
            "modelCard": str(self.model_card) if self.model_card else None,
        }


def download_evaluation(session: Session, evaluation: Evaluation, folder: Path) -> EvaluationFiles:
    """Copy what lies beside `evaluation.uri` into `folder`; files of the same name are replaced."""
    bucket, path = urlsplit(evaluation.uri, allow_fragments=False)[1:3]
    prefix = path.strip("/").removesuffix(FILE)
    client = session.client("s3")
    contents = {
        name: body
        for name in (FILE, REPORT, MODEL_CARD)
        if (body := _read(client, bucket, prefix + name)) is not None
    }
    for name in dict.fromkeys(_named_pictures(contents.get(REPORT, b"") + contents.get(FILE, b""))):
        body = _read(client, bucket, prefix + name)
        if body is not None:
            contents[name] = body
    written = {name: _write(folder / name, body) for name, body in contents.items()}
    return EvaluationFiles(
        folder=folder,
        report=written.get(REPORT),
        model_card=written.get(MODEL_CARD),
        pictures=tuple(file for name, file in written.items() if name.startswith("pictures/")),
    )


def _named_pictures(text: bytes) -> Iterator[str]:
    for name in _PICTURES.findall(text):
        yield name.decode("ascii", errors="ignore")


def _read(client: Any, bucket: str, key: str) -> bytes | None:
    try:
        body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in _NOT_THERE:
            return None
        raise
    return body


def _write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
