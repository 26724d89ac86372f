"""Who may open an association, and how others are told that they may not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from arrival.settings import Caller, ReceiverSettings


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """The three numbers of an A-ASSOCIATE-RJ (PS3.8 section 9.3.4, table 9-21), and the same in words."""

    result: int
    source: int
    diagnostic: int
    reason: str


_CALLING = Rejection(result=1, source=1, diagnostic=3, reason="calling AE title not recognized")
_CALLED = Rejection(result=1, source=1, diagnostic=7, reason="called AE title not recognized")


def rejection(
    settings: ReceiverSettings, *, calling: str, called: str, address: str
) -> Rejection | None:
    """None for a caller that is admitted.

    A known title from an unknown address is rejected as an unknown title: a stranger does not learn which
    titles there are.
    """
    if not _is_known(settings.allowed, calling=calling, address=address):
        return _CALLING
    if not settings.any_called_title and called != settings.ae_title:
        return _CALLED
    return None


def _is_known(allowed: Iterable[Caller], *, calling: str, address: str) -> bool:
    try:
        source = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(source, IPv6Address) and source.ipv4_mapped is not None:
        source = source.ipv4_mapped
    return any(caller.ae_title in (None, calling) and source in caller.network for caller in allowed)
