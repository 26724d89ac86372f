"""What of an error may be in a log."""

from __future__ import annotations

from botocore.exceptions import ClientError


class FunctionError(Exception):
    """Base of every error that a function raises on purpose. Messages carry identifiers only, so the log may
    have them as they are.
    """


class MalformedEventError(FunctionError):
    """A message is not what its queue is for; failing, it reaches the dead-letter queue, where it is seen."""


class TimeIsUpError(FunctionError):
    """The invocation has no time left for the message. It comes again."""


def describe(error: Exception, *, speaking: tuple[type[Exception], ...] = ()) -> str:
    """The error without what it may quote, which could be a value of a header.

    Args:
        error: What was raised.
        speaking: Further classes whose messages carry identifiers only.
    """
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {code_of(error)}"
    if isinstance(error, (FunctionError, *speaking)):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def code_of(error: ClientError) -> str:
    """The service's code of the error: `ResourceNotFoundException`."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))
