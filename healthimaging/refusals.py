"""What a refusal says: the service's error code, and how long to wait before asking again.

Messages beside a code are never read: they may quote values of the request.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from botocore.exceptions import ClientError

TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})
"""HTTP status that the same request may not get a second time."""

THROTTLING_CODES = frozenset(
    {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"}
)
"""Error codes that mean "too many requests", whatever the HTTP status."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{2,79}")


class Headers(Protocol):
    """Headers of an answer."""

    def get(self, name: str, /) -> str | None:
        """The value; None when there is none."""


def error_code(headers: Headers, body: bytes) -> str | None:
    """The code of a rest-json error, such as `AccessDeniedException`; None when the answer has none.

    Args:
        headers: Of the answer; looked up in lower case.
        body: Of the answer: whatever lies between may have sent a page of HTML.
    """
    code = headers.get("x-amzn-errortype") or ""
    if not code:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return None
        fields = document if isinstance(document, dict) else {}
        code = str(next((fields[key] for key in ("__type", "code", "Code") if fields.get(key)), ""))
    # "com.amazonaws.medicalimaging#ThrottlingException:http://..." names the exception in its middle.
    code = code.partition(":")[0].rpartition("#")[2]
    return code if _CODE.fullmatch(code) else None


def exception_code(error: Exception) -> str:
    """The service's code of an error that botocore raised; of any other exception the name of its type."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def retry_after(headers: Headers) -> float | None:
    """Seconds to wait for, which are given as a number or as a date (RFC 9110 section 10.2.3).

    Args:
        headers: Of the answer; looked up in lower case.

    Returns:
        None when the service does not say, or not in a way that can be read.
    """
    text = (headers.get("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
