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

NOT_THE_SAME = frozenset({"BadDigest", "InvalidDigest", "PreconditionFailed", "NoSuchKey", "404"})
"""Codes of S3 that say that a file is no longer what was planned."""

NOT_THE_FILES = frozenset(
    {
        *(
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidToken",
            "SignatureDoesNotMatch",
        ),
        *("RequestTimeTooSkewed", "SlowDown", "InternalError", "ServiceUnavailable", "500", "503"),
    }
)
"""Codes of S3 that say nothing about a file: they end the ingest, or every later file would be blamed."""


def no_longer_readable(error: str) -> Fate:
    """Of a file that was read before; `error` is the name of an exception or a code of S3."""
    return Fate(state="failed", kind="Unreadable", reason=f"it can no longer be read ({error})")
