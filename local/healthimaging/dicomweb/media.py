"""Media types on the wire: Accept headers, and multipart/related bodies (PS3.18 8.7; RFC 2387)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message

from local.healthimaging.errors import invalid


@dataclass(frozen=True, kw_only=True)
class MediaType:
    """A media type with its parameters, such as `application/dicom; transfer-syntax=*`.

    `multipart` says that it was the `type` of a multipart/related.
    """

    name: str
    multipart: bool = False
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def transfer_syntax(self) -> str | None:
        """The transfer syntax that was asked for, "*" for the stored one."""
        return self.parameters.get("transfer-syntax")


def parse_media_type(text: str) -> MediaType:
    """One media type of a Content-Type or Accept header."""
    message = Message()
    message["Content-Type"] = text.strip()
    parameters = {str(name).lower(): str(value) for name, value in message.get_params([])[1:]}
    name = text.split(";")[0].strip().lower()
    if name == "multipart/related":
        return MediaType(
            name=parameters.get("type", "*/*").lower(),
            multipart=True,
            parameters={key: value for key, value in parameters.items() if key != "type"},
        )
    return MediaType(name=name, parameters=parameters)


def parse_accept(text: str) -> list[MediaType]:
    """The media types of an Accept header, best first; anything where there is none."""
    types = [parse_media_type(part) for part in _split_outside_quotes(text) if part.strip()]
    if not types:
        return [MediaType(name="*/*")]
    return sorted(types, key=_quality, reverse=True)


def _quality(media_type: MediaType) -> float:
    try:
        return float(media_type.parameters.get("q", "1"))
    except ValueError:
        return 0.0


def _split_outside_quotes(text: str) -> list[str]:
    parts, quoted = [""], False
    for character in text:
        if character == '"':
            quoted = not quoted
        if character == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a multipart body."""

    content_type: str
    data: bytes


def parse_multipart(body: bytes, boundary: str) -> list[Part]:
    """The parts of a body. Raises ValidationException where it is not closed by its boundary."""
    delimiter = b"\r\n--" + boundary.encode("latin-1")
    pieces = (b"\r\n" + body).split(delimiter)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise invalid("The multipart body does not end with its boundary.")
    parts = []
    for piece in pieces[1:-1]:
        headers, separator, data = piece.lstrip(b" \t").partition(b"\r\n\r\n")
        if not separator:
            raise invalid("A part of the multipart body has no end of its headers.")
        content_type = ""
        for line in headers.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-type":
                content_type = value.strip()
        parts.append(Part(content_type=content_type, data=data))
    return parts


def build_multipart(parts: Sequence[Part], *, root_type: str) -> tuple[bytes, str]:
    """A body of the parts, and its Content-Type."""
    boundary = secrets.token_hex(16)
    pieces = []
    for part in parts:
        pieces += [
            f"--{boundary}\r\nContent-Type: {part.content_type}\r\n\r\n".encode("latin-1"),
            part.data,
            b"\r\n",
        ]
    pieces.append(f"--{boundary}--\r\n".encode("latin-1"))
    return b"".join(pieces), f'multipart/related; type="{root_type}"; boundary={boundary}'
