"""Why an event was not dispatched. Messages carry identifiers only, so the log may have them as they are."""

from __future__ import annotations


class DispatchError(Exception):
    """Base of every error that the function raises on purpose."""


class MalformedEventError(DispatchError):
    """A message is not an image set event; failing, it reaches the dead-letter queue, where it is seen."""


class RunUnderWayError(DispatchError):
    """Another invocation is about to send the same request. The message comes again, when it has, or has
    failed.
    """


class RoutesError(DispatchError):
    """The function's own configuration cannot be read: deploy the inference stack again."""
