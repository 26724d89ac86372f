"""Multipart bodies (RFC 2046 section 5.1, RFC 2387) as DICOMweb sends them (DICOM PS3.18 section 8.6.1)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from healthimaging.errors import DicomWebAnswerError

_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')
_DELIMITER_END = re.compile(rb"(--)?[ \t]*(?:\r\n|\Z)")
_MAXIMUM_BOUNDARY = 70


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a multipart body."""

    headers: Mapping[str, str]
    """By name in lower case."""
    data: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """Content-Type as it stands in the part's header; empty when absent."""
        return self.headers.get("content-type", "")


def media_type(text: str) -> tuple[str, dict[str, str]]:
    """The name of a media type in lower case, and its parameters by name in lower case, without quotes."""
    name, separator, rest = text.partition(";")
    parameters = {}
    for found in _PARAMETER.finditer(separator + rest):
        value = found[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[found[1].lower()] = value
    return name.strip().lower(), parameters


def build_multipart(bodies: Sequence[bytes], *, content_type: str) -> tuple[bytes, str]:
    """A multipart/related body of parts of one type, and its Content-Type."""
    boundary = uuid.uuid4().hex
    while any(boundary.encode() in body for body in bodies):
        boundary = uuid.uuid4().hex
    start = f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    pieces = [piece for body in bodies for piece in (start, body, b"\r\n")]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f'multipart/related; type="{content_type}"; boundary={boundary}'


def parse_multipart(body: bytes, content_type: str) -> list[Part]:
    """The parts of a multipart body.

    A part with a Content-Length ends there, so its data may hold the boundary; the others end at the next
    delimiter: a whole line of two hyphens and the boundary.

    Args:
        body: The whole body.
        content_type: Its Content-Type, which names the boundary.

    Raises:
        DicomWebAnswerError: No boundary, a part without end of its headers, a Content-Length that does not
            fit, or no closing delimiter: the body is cut off.
    """
    boundary = media_type(content_type)[1].get("boundary", "")
    if not 0 < len(boundary) <= _MAXIMUM_BOUNDARY:
        msg = "A multipart answer names no boundary"
        raise DicomWebAnswerError(msg)
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    parts: list[Part] = []
    _, position, closing = _first_delimiter(body, delimiter)
    while not closing:
        headers, start = _headers(body, position, delimiter)
        length = headers.get("content-length")
        if length is None:
            end, position, closing = _delimiter(body, start, delimiter)
        elif length.isascii() and length.isdigit():
            end, position, closing = _delimiter_at(body, start + int(length), delimiter)
        else:
            msg = "A part of the multipart answer has a Content-Length that is no number"
            raise DicomWebAnswerError(msg)
        parts.append(Part(headers=headers, data=body[start:end]))
    return parts


def _first_delimiter(body: bytes, delimiter: bytes) -> tuple[int, int, bool]:
    # The first delimiter may stand at the very beginning, without the line break that belongs to the others.
    if body.startswith(delimiter[2:]):
        found = _DELIMITER_END.match(body, len(delimiter) - 2)
        if found:
            return 0, found.end(), found[1] is not None
    return _delimiter(body, 0, delimiter)


def _delimiter(body: bytes, start: int, delimiter: bytes) -> tuple[int, int, bool]:
    """Where the next delimiter begins and ends, and whether it is the closing one."""
    at = body.find(delimiter, start)
    while at >= 0:
        # The boundary may begin a longer line of a part's data.
        found = _DELIMITER_END.match(body, at + len(delimiter))
        if found:
            return at, found.end(), found[1] is not None
        at = body.find(delimiter, at + 1)
    msg = "The multipart answer is cut off: its closing delimiter is missing"
    raise DicomWebAnswerError(msg)


def _delimiter_at(body: bytes, at: int, delimiter: bytes) -> tuple[int, int, bool]:
    found = _DELIMITER_END.match(body, at + len(delimiter)) if body.startswith(delimiter, at) else None
    if found is None:
        msg = "A part of the multipart answer is not as long as its Content-Length"
        raise DicomWebAnswerError(msg)
    return at, found.end(), found[1] is not None


def _headers(body: bytes, position: int, delimiter: bytes) -> tuple[dict[str, str], int]:
    """The headers of the part that begins at `position`, and where its data begins."""
    if body.startswith(b"\r\n", position):
        return {}, position + 2
    end = body.find(b"\r\n\r\n", position)
    if end < 0 or body.find(delimiter, position, end) >= 0:
        msg = "A part of the multipart answer has no end of its headers"
        raise DicomWebAnswerError(msg)
    # Continued lines begin with white space (RFC 5322 section 2.2.3).
    text = re.sub(r"\r\n[ \t]+", " ", body[position:end].decode("latin-1"))
    lines = (line.partition(":") for line in text.split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}, end + 4
