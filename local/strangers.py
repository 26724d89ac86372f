"""Requests that did not come from a program on this machine, though the connection did.

A web page in this machine's browser can send requests to a port on loopback, and the cloud's root credentials
are no secret. Two headers that a page cannot change tell it: `Origin` names the page's site, and after "DNS
rebinding" (a site's own name made to resolve to 127.0.0.1) `Host` names that site.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from local.configuration import HOST


def foreign_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The header that shows that a site sent a request ("Host: example.org"), None if there is none."""
    for name, value in headers:
        text = value.decode("latin-1")
        kind = name.lower()
        if kind == b"host" and not _is_this_machine(f"//{text}"):
            return f"Host: {text}"
        if kind == b"origin" and not _is_this_machine(text):
            return f"Origin: {text}"
    return None


@functools.lru_cache(maxsize=256)
def _is_this_machine(address: str) -> bool:
    """Whether a URL, or `//` and an authority, names this machine."""
    host = urlsplit(address).hostname
    if not host:
        return False
    # Names below these two reach loopback too, and nobody can register one: S3 buckets in the host name.
    if host == "localhost" or host.endswith((".localhost", f".{HOST}")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
