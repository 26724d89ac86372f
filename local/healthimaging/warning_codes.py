"""Warnings of imports (developer guide: "HealthImaging warning codes"; PS3.18 10.5.3 for the standard
ones)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class WarningCode(IntEnum):
    """Reason codes; the names are HealthImaging's warning types."""

    COERCION_OF_DATA_ELEMENTS = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    SOP_CLASS_DATA_MISMATCH = 0xB007
    TRANSCODING_EXCEPTION = 0xB100
    FRAMES_EXTRACTION_FAILURE = 0xB110
    FRAME_NUMBER_MISMATCH = 0xB111
    INVALID_OFFSET_TABLE = 0xB112
    UNSUPPORTED_TRANSFER_SYNTAX = 0xB120
    INVALID_UID_FORMAT = 0xB201


@dataclass(frozen=True, kw_only=True)
class ImportWarning:
    """One thing about an imported instance that its owner should know. `message` holds no patient data."""

    code: WarningCode
    message: str

    def to_json(self) -> dict[str, Any]:
        """As a line of warning.ndjson lists it."""
        return {"warning_reason_code": int(self.code), "type": self.code.name, "message": self.message}
