"""What can go wrong while something arrives: what went wrong, and what to do next.

Messages carry identifiers (UIDs, job ids, object keys) and what a person typed, never attributes of a
patient.
"""

from __future__ import annotations

from botocore.exceptions import ClientError


class ArrivalError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: What is wrong.
        advice: One sentence that says what to do next.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class ImportFailedError(ArrivalError):
    """An import job as a whole failed, or ended without a readable result."""


class KeyMaterialError(ArrivalError):
    """The key of de-identification is missing, too short, or cannot be read."""


class SealedRecordError(ArrivalError):
    """A re-identification record was sealed with another key, or is damaged."""


def cause_of(error: Exception) -> str:
    """An error for the log: what this package says itself, a service's code, otherwise its type. Texts of
    others may quote what is in a data set.
    """
    if isinstance(error, ArrivalError):
        return error.message
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__
