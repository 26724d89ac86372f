"""What every part of the service works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from local.healthimaging.content import ContentStore
from local.healthimaging.database import Database
from local.healthimaging.identifiers import Arns
from local.healthimaging.outbox import Publisher
from local.service import Cloud


@dataclass(frozen=True, kw_only=True)
class Context:
    """The cloud around the service, its storage, and the clock (seconds since the epoch)."""

    cloud: Cloud
    database: Database
    content: ContentStore
    publisher: Publisher
    arns: Arns
    clock: Callable[[], float]
