"""Logs as one JSON object a line, without patient data.

Texts of this package hold UIDs and settings only. Texts of other libraries may quote the attribute value
that they complain about, so their warnings and unexpected exceptions are logged by type and place alone.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

_OWN = ("runtime", "healthimaging", "uvicorn")
"""Loggers whose texts are known to hold no attribute values."""


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object; ``extra={"fields": {...}}`` adds members to it."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        if record.name.partition(".")[0] in _OWN:
            document["message"] = record.getMessage()
        else:
            document["message"] = f"withheld message at {record.module}:{record.lineno}"
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            document.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = record.exc_info[0].__name__
            document["places"] = places(record.exc_info[2])
        return json.dumps(document, default=str)


def places(trace: TracebackType | None) -> list[str]:
    """Name the code that an exception went through, innermost last; no values, no source lines."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def configure_logging(stream: TextIO | None = None) -> None:
    """Send every logger and every Python warning to ``stream`` (standard output) as JSON."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("botocore", "urllib3", "highdicom", "pydicom", "monai", "matplotlib", "numba"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # uvicorn's access line would repeat what the server logs of every invocation, and every health check.
    logging.getLogger("uvicorn.access").disabled = True
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("runtime.warnings").info("%s at %s:%d", category.__name__, filename, lineno)
