"""Multipart bodies: whatever the parts hold, they come back, and a body that is cut off is noticed."""

from __future__ import annotations

import email
import email.policy
from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from healthimaging.dicomweb.multipart import build_multipart, media_type, parse_multipart
from healthimaging.errors import DicomWebAnswerError

TYPE = 'multipart/related; type="application/dicom"; boundary=XX'

# Data that looks like delimiters, line breaks and headers, among any other.
PIECES = st.sampled_from(
    [b"--", b"\r\n", b"\r\n--", b"XX", b"\r\n--XX-", b"--XX--", b"Content-Length: 3", b"\0"]
)
DATA = st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=8).map(b"".join)


def is_ambiguous(data: bytes) -> bool:
    """Whether the data holds a delimiter of XX, as RFC 2046 forbids."""
    return any(f"\r\n--XX{end}".encode() in b"\r\n" + data + b"\r\n" for end in ("\r\n", " ", "\t", "--"))


@given(st.lists(DATA, min_size=1, max_size=5))
def test_what_is_built_is_parsed_again(bodies: list[bytes]) -> None:
    body, content_type = build_multipart(bodies, content_type="application/dicom")
    parts = parse_multipart(body, content_type)
    assert [part.data for part in parts] == bodies
    assert {part.content_type for part in parts} == {"application/dicom"}


@given(
    st.lists(
        st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20), min_size=1, max_size=5
    )
)
def test_what_is_built_is_what_the_standard_library_reads(texts: list[str]) -> None:
    body, content_type = build_multipart([text.encode() for text in texts], content_type="text/plain")
    head = f"MIME-Version: 1.0\r\nContent-Type: {content_type}\r\n\r\n".encode()
    message: Message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert [part.get_payload() for part in message.get_payload()] == texts  # type: ignore[union-attr]  # a multipart has parts


@given(st.lists(DATA, min_size=1, max_size=4))
@example([b"\r\n--XX\r\n\r\nnot a part"])
def test_parts_that_say_how_long_they_are_may_hold_the_boundary(bodies: list[bytes]) -> None:
    body = b"".join(b"--XX\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data), data) for data in bodies)
    assert [part.data for part in parse_multipart(body + b"--XX--", TYPE)] == bodies


@given(st.lists(DATA.filter(lambda data: not is_ambiguous(data)), min_size=1, max_size=4), st.data())
def test_every_cut_is_noticed(bodies: list[bytes], draw: st.DataObject) -> None:
    body = b"".join(b"--XX\r\nContent-Type: text/plain\r\n\r\n%b\r\n" % data for data in bodies) + b"--XX--"
    assert [part.data for part in parse_multipart(body, TYPE)] == bodies
    cut = draw.draw(st.integers(0, len(body) - 1))
    with pytest.raises(DicomWebAnswerError):
        parse_multipart(body[:cut], TYPE)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"preamble\r\n--XX\r\n\r\na\r\n--XX--\r\nepilogue\r\n--XX\r\n", [b"a"]),
        (b"--XX \t\r\n\r\na\r\n--XX\r\nA: 1\r\n continued\r\n\r\nb\r\n--XX--  \r\n", [b"a", b"b"]),
        (b"--XX\r\n\r\n\r\n--XX--", [b""]),
        (b"--XX\r\n\r\n\r\n--XXX\r\n\r\n--XX--", [b"\r\n--XXX\r\n"]),
        (b"--XX--", []),
    ],
    ids=["preamble and epilogue", "padding and folding", "empty part", "longer boundary inside", "no parts"],
)
def test_forms_that_the_standard_allows(body: bytes, expected: list[bytes]) -> None:
    assert [part.data for part in parse_multipart(body, TYPE)] == expected


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"--XX\r\n\r\na\r\n--XX--", "multipart/related", "no boundary"),
        (b"--XX\r\n\r\na\r\n--XX--", "multipart/related; boundary=" + "X" * 71, "no boundary"),
        (b"--XX\r\n\r\na\r\n--XX", TYPE, "no end of its headers"),
        (b"--XX\r\n\r\na", TYPE, "cut off"),
        (b"", TYPE, "cut off"),
        (b"--XX\r\nA: 1\r\n--XX--", TYPE, "no end of its headers"),
        (b"--XX\r\nContent-Length: 2\r\n\r\na\r\n--XX--", TYPE, "Content-Length"),
        (b"--XX\r\nContent-Length: 99\r\n\r\na\r\n--XX--", TYPE, "Content-Length"),
        (b"--XX\r\nContent-Length: one\r\n\r\na\r\n--XX--", TYPE, "no number"),
    ],
)
def test_what_is_no_multipart_body_is_an_error(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(DicomWebAnswerError, match=message):
        parse_multipart(body, content_type)


def test_media_types() -> None:
    assert media_type("Application/DICOM ; transfer-syntax=1.2.840 ;charset=utf-8") == (
        "application/dicom",
        {"transfer-syntax": "1.2.840", "charset": "utf-8"},
    )
    name, parameters = media_type('multipart/related; TYPE="application/dicom"; boundary="a;b \\"c"')
    assert name == "multipart/related"
    assert parameters == {"type": "application/dicom", "boundary": 'a;b "c'}
    assert media_type("") == ("", {})
