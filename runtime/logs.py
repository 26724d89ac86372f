"""Logs as one JSON object a line, without patient data.

Texts of this package hold UIDs and settings only. Texts of other libraries may quote the attribute value
that they complain about, so their warnings and unexpected exceptions are logged by type and place alone, and
what they print (the code of a bundle may do so) by its length.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
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


def withhold_output() -> None:
    """Keep from the log what anything prints, after `configure_logging`, which keeps the true stream.

    Exceptions that end a thread, or that nobody can be told of, are logged by type and place.
    """
    sys.stdout = _WithheldOutput("stdout")
    sys.stderr = _WithheldOutput("stderr")
    sys.excepthook = lambda kind, error, trace: _log_uncaught(kind, trace)
    threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_traceback)
    sys.unraisablehook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_traceback)


class _WithheldOutput(io.TextIOBase):
    """A stream that logs how much was written to it, a line at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pending = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self._pending += len(text)
        if "\n" in text:
            count, self._pending = self._pending, 0
            if text.strip() or count > len(text):
                logging.getLogger("runtime.output").info("withheld %d characters of %s", count, self._name)
        return len(text)


def _log_uncaught(kind: type[BaseException], trace: TracebackType | None) -> None:
    logging.getLogger("runtime").error(
        "uncaught exception", extra={"fields": {"exception": kind.__name__, "places": places(trace)}}
    )


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("runtime.warnings").info("%s at %s:%d", category.__name__, filename, lineno)
