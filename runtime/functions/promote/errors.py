"""What can stand against a promotion. None of these goes away by trying again: the message ends in the
dead-letter queue, where a person sees it.
"""


class PromotionError(Exception):
    """A package cannot become a candidate. Its text may be logged: it names packages and objects only."""


class MalformedEventError(PromotionError):
    """A message is not an event about a model package."""


class NotOfferedError(PromotionError):
    """The package is not of an environment and group from which this one takes candidates."""


class UnsupportedPackageError(PromotionError):
    """The package is not made as this platform makes packages."""


class DifferentModelError(PromotionError):
    """What was copied is not what was approved."""
