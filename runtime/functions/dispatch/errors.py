"""Why an event was not dispatched."""

from __future__ import annotations

from runtime.functions.batches.errors import FunctionError


class DispatchError(FunctionError):
    """Base of every error that the function raises on purpose."""


class RunUnderWayError(DispatchError):
    """Another invocation is about to send the same request. The message comes again, when it has, or has
    failed.
    """


class RoutesError(DispatchError):
    """The function's own configuration cannot be read: deploy the inference stack again."""
