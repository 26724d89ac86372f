"""Request rates as on AWS, for tests of how clients bear them (service quotas: "Throttling limits").

Off unless the environment variable LOCAL_HEALTHIMAGING_LIMITS is set, to `aws` for the published quotas, or
to a list such as `GetImageFrame=5/10,SearchImageSets=1/1` (requests a second / burst) for those operations
alone. `aws` also limits the number of datastores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.service import ServiceError

VARIABLE = "LOCAL_HEALTHIMAGING_LIMITS"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Requests a second on average, and how many may come at once."""

    per_second: float
    burst: int


AWS_RATES: Mapping[str, Rate] = {
    "GetImageFrame": Rate(per_second=1000, burst=2000),
    "GetImageSetMetadata": Rate(per_second=50, burst=100),
    "SearchImageSets": Rate(per_second=25, burst=50),
    "StartDICOMImportJob": Rate(per_second=1, burst=2),
    "GetDICOMImportJob": Rate(per_second=25, burst=50),
    "GetDICOMInstance": Rate(per_second=50, burst=100),
    "GetDICOMInstanceFrames": Rate(per_second=50, burst=100),
    "GetDICOMInstanceMetadata": Rate(per_second=50, burst=100),
    "GetDICOMSeriesMetadata": Rate(per_second=50, burst=100),
    "GetDICOMBulkdata": Rate(per_second=50, burst=100),
    "CopyImageSet": Rate(per_second=0.25, burst=1),
    "UpdateImageSetMetadata": Rate(per_second=0.25, burst=1),
    "DeleteImageSet": Rate(per_second=0.25, burst=1),
    "CreateDatastore": Rate(per_second=0.085, burst=1),
}


def parse_limits(text: str) -> Mapping[str, Rate]:
    """The rates that the variable's value names. Raises `ValueError` quoting what it does not understand."""
    if text in ("", "off"):
        return {}
    if text == "aws":
        return AWS_RATES
    rates: dict[str, Rate] = {}
    for part in text.split(","):
        operation, _, numbers = part.strip().partition("=")
        per_second, _, burst = numbers.partition("/")
        try:
            rates[operation] = Rate(per_second=float(per_second), burst=int(burst or 1))
        except ValueError as error:
            msg = f"{VARIABLE}: {part!r} is not of the form Operation=requests a second/burst"
            raise ValueError(msg) from error
    return rates


class Throttle:
    """One token bucket an operation."""

    def __init__(self, rates: Mapping[str, Rate], clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, operation: str) -> None:
        """Count one request. Raises ThrottlingException where the bucket is empty."""
        rate = self._rates.get(operation)
        if rate is None:
            return
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.get(operation, (float(rate.burst), now))
            tokens = min(float(rate.burst), tokens + (now - since) * rate.per_second)
            if tokens >= 1:
                self._buckets[operation] = (tokens - 1, now)
                return
            self._buckets[operation] = (tokens, now)
        raise ServiceError("ThrottlingException", f"Rate exceeded for {operation}.")
