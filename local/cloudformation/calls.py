"""Calls that CloudFormation makes to a service of the local cloud, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.cloudformation.unrecorded import Unrecorded
from local.protocol import invoke
from local.service import Caller, Service

_POLL_SECONDS = 0.25
_LONGEST_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class ServiceCalls:
    """Calls to one service with the rights of the account's root.

    MiniStack's CloudFormation works as root: it does not take the role that a stack operation names.
    """

    service: Service
    account_id: str
    region: str
    unrecorded: Unrecorded = field(default_factory=Unrecorded)
    """Where what these calls make is noted until a stack's record of it is on disk."""

    def invoke(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        caller = Caller(
            account_id=self.account_id,
            region=self.region,
            access_key_id="",
            arn=f"arn:aws:iam::{self.account_id}:root",
        )
        return invoke(self.service, operation, params, caller)


def wait_until(settled: Callable[[], bool], *, what: str) -> None:
    """Poll until something is settled; TimeoutError after an hour."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not settled():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not settle within {_LONGEST_SECONDS} s")
        time.sleep(_POLL_SECONDS)
