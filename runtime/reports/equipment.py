"""What every stored object says of the software that made it (DICOM PS3.3, C.7.5.1 and C.7.5.2)."""

from __future__ import annotations

from typing import Any

from runtime.results.answer import ModelIdentity

MANUFACTURER = "MONAI on AWS"
"""Manufacturer (0008,0070) of results; dispatch rules skip it, so that a result never starts an inference."""

SEGMENTATION_SERIES_NUMBER = 900
CLASSIFICATION_SERIES_NUMBER = 900
MEASUREMENT_SERIES_NUMBER = 901
SNAPSHOT_SERIES_NUMBER = 902
"""SeriesNumber (0020,0011) of results: above the numbers that scanners give, so viewers list them last."""

_HASH_DIGITS = 32
"""Hexadecimal digits of the weights' SHA-256 in AlgorithmVersion (0066,0031), which holds 64 characters.
DeviceSerialNumber (0018,1000) has all of them: of software, the weights are what is unique."""


def algorithm_version(model: ModelIdentity) -> str:
    """Version of a model as results state it: that of the bundle, and the beginning of its weights' hash."""
    return f"{model.version[:24]} sha256:{model.sha256[:_HASH_DIGITS]}"


def series_description(model: ModelIdentity, what: str = "") -> str:
    """SeriesDescription (0008,103E) of a result, at most 64 characters."""
    end = f" {what}" if what else ""
    return f"{model.name} {model.version}"[: 64 - len(end)] + end


def equipment(model: ModelIdentity) -> dict[str, Any]:
    """The general and enhanced equipment modules, by the names of highdicom's arguments."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model.name[:64],
        "software_versions": model.version[:64],
        "device_serial_number": model.sha256,
    }
