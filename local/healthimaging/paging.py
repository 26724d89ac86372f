"""Pages of lists: the token names the position after the last item that was given."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from local.healthimaging.errors import invalid

PAGE_SIZE = 50
"""Most items a page, and the default."""

Item = TypeVar("Item")


def page_of(
    items: Sequence[Item], *, token: str | None, maximum: int | None, scope: str
) -> tuple[list[Item], str | None]:
    """The page that starts where `token` says, and the token of the next one.

    `scope` names the list; a token of another list is refused.
    """
    start = 0 if token is None else _position(token, scope)
    end = start + (maximum or PAGE_SIZE)
    following = None
    if end < len(items):
        following = base64.urlsafe_b64encode(f"{scope} {end}".encode()).decode("ascii")
    return list(items[start:end]), following


def _position(token: str, scope: str) -> int:
    try:
        named, _, position = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").rpartition(" ")
        if named == scope:
            return int(position)
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise invalid("The nextToken is not valid.") from error
    raise invalid("The nextToken belongs to another request.")
