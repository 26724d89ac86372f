"""Who may send: a device is known by its AE title and by where it calls from, and both have to hold."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_LONGEST_AE_TITLE = 16


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A device that may send."""

    ae_title: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, kw_only=True)
class Access:
    """How the receiver is called, and by whom."""

    ae_title: str
    callers: tuple[Caller, ...]

    def allows(self, *, calling_ae_title: str, address: str) -> bool:
        """Whether this device may open an association. The receiver itself may, on its own machine: it asks
        itself whether it is well (C-ECHO).
        """
        if self.is_itself(calling_ae_title=calling_ae_title, address=address):
            return True
        try:
            at = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(
            caller.ae_title == calling_ae_title
            and at.version == caller.network.version
            and at in caller.network
            for caller in self.callers
        )

    def is_itself(self, *, calling_ae_title: str, address: str) -> bool:
        """Whether the receiver calls itself, on its own machine."""
        try:
            return calling_ae_title == self.ae_title and ipaddress.ip_address(address).is_loopback
        except ValueError:
            return False


def is_ae_title(text: object) -> bool:
    """Whether `text` is an application entity title (VR AE, PS3.5 section 6.2)."""
    return (
        isinstance(text, str)
        and 0 < len(text.strip(" ")) <= len(text) <= _LONGEST_AE_TITLE
        and text.isascii()
        and text.isprintable()
        and "\\" not in text
    )
