"""What devices get wrong in an instance: it is stored, put in quarantine or refused, and breaks nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiving_world import data_set_bytes, intake

from arrival.deidentification.key import KeyMaterial
from arrival.receiving.intake import NotStorableError

CT = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE = "1.2.3.4.5"
KEY = KeyMaterial.from_secret("0123456789abcdef" * 2)

TEXTS = (0x00080050, 0x00100010, 0x00100020, 0x00101000, 0x00104000)
"""Accession number, patient's name and ID, other IDs, comments."""
DATES_AND_NUMBERS = (0x00080020, 0x00080030, 0x00100030, 0x00101010, 0x00101030, 0x00200013)
"""Of study and birth, age, weight, instance number."""

broken = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8")),
    st.sampled_from([b"X" * 70_000, b"\x1b$B" * 9, b"\xff\xfe\x00", b"\\" * 300, b"^=^=" * 99, b"1" * 999]),
)
character_sets = st.one_of(
    st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"ISO 2022 IR 149\\GBK", b"?"]),
    st.binary(max_size=20),
)


def part10(elements: dict[int, bytes]) -> bytes:
    """A file in implicit VR little endian, whose values may have any bytes and any length."""
    needed = {0x00080016: CT.encode(), 0x00080018: INSTANCE.encode(), 0x0020000E: b"1.2.3.4"}
    # Without these nothing is de-identified: all would be quarantine.
    needed |= {0x00080008: b"ORIGINAL\\PRIMARY\\AXIAL", 0x00080060: b"CT", 0x00280301: b"NO"}
    syntax = b"1.2.840.10008.1.2\0"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    head = bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) + meta
    body = b""
    for tag, value in sorted((needed | elements).items()):
        even = value + b" " * (len(value) % 2)
        body += struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(even)) + even
    return head + body


@pytest.mark.parametrize("key", [None, KEY], ids=["as-it-comes", "deidentified"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.dictionaries(st.sampled_from(TEXTS + DATES_AND_NUMBERS), broken),
    characters=character_sets,
    study=st.one_of(st.just(b"1.2.3"), broken),
)
def test_whatever_a_device_sends_is_kept_or_refused(
    key: KeyMaterial | None, values: dict[int, bytes], characters: bytes, study: bytes
) -> None:
    sent = part10(values | {0x00080005: characters, 0x0020000D: study})
    stored: dict[str, bytes] = {}
    try:
        taken = intake(stored, key=key).take(sent, sop_class_uid=CT, sop_instance_uid=INSTANCE)
    except NotStorableError:
        assert stored == {}
        assert study != b"1.2.3" or b"\0" in characters, "only one of no study, or that cannot be read"
        return
    [body] = [body for name, body in stored.items() if name.endswith(".dcm")]
    if key is None or taken.quarantined:
        assert data_set_bytes(body) == data_set_bytes(sent)
    assert key is not None or not taken.quarantined
