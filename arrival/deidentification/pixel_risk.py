"""Reasons why an instance may show a person in its pixels or its content, where no table can take that away.

Pixel data are never changed here (Clean Pixel Data, PS3.15 E.3.1, is not done), and neither are structured
content and graphics. What may carry identity in them waits for a person. The rules and their sources:
docs/deidentification.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID

_STORAGE = "1.2.840.10008.5.1.4.1.1."
RISKY_SOP_CLASSES: tuple[tuple[str, str], ...] = (
    (_STORAGE + "7", "Secondary Capture: usually a screen, a scanned sheet or a film"),
    (_STORAGE + "9", "waveform, with annotations and sometimes a voice"),
    (_STORAGE + "11", "presentation state, with text drawn by people"),
    (_STORAGE + "77.1.1.1", "video"),
    (_STORAGE + "77.1.2.1", "video"),
    (_STORAGE + "77.1.4.1", "video"),
    (_STORAGE + "88", "structured report or key object selection, with text and names"),
    (_STORAGE + "90", "assessment or content report"),
    (_STORAGE + "104", "encapsulated document"),
    (_STORAGE + "66", "raw data, of a form that only the vendor knows"),
)
"""SOP class, or the root of a family of them (PS3.4 B.5), and what speaks against it."""
PICTURE_CLASSES: tuple[tuple[str, str], ...] = (
    (_STORAGE + "3", "ultrasound"),
    (_STORAGE + "3.1", "ultrasound"),
    (_STORAGE + "6", "ultrasound"),
    (_STORAGE + "77.1.1", "endoscopy"),
    (_STORAGE + "77.1.2", "microscopy"),
    (_STORAGE + "77.1.4", "photograph"),
    (_STORAGE + "77.1.5", "ophthalmic picture"),
    (_STORAGE + "77.1.7", "photograph of skin"),
    (_STORAGE + "68", "scanned surface of a body"),
    ("1.2.840.10008.5.1.1.29", "film"),
    ("1.2.840.10008.5.1.1.30", "film"),
)
"""SOP class, or the root of a family, of the pictures that `RISKY_MODALITIES` make: Modality may be wrong."""
_HARMLESS_66 = frozenset({f"{_STORAGE}66.{number}" for number in range(1, 8)})
"""Registration, fiducials, segmentation, surfaces, real world value mapping: tractography."""

RISKY_MODALITIES = frozenset(
    {"US", "IVUS", "ES", "GM", "OT", "XC", "SC", "DOC", "DG", "SMR", "HC", "OP", "OPT", "LS", "TG", "BI"}
)
"""Modalities whose machines draw text into the picture, photograph people, or are used for captured
screens."""

SCREEN_WORDS = (
    "SCREEN",
    "CAPTURE",
    "SAVE",
    "PASTED",
    "DOSE",
    "REPORT",
    "LABEL",
    "OVERVIEW",
    "SCANNED",
    "PROTOCOL",
)
"""Parts of values of Image Type with which vendors mark screens, dose sheets and photographs of slide
labels."""


def risks(dataset: Dataset) -> Iterator[str]:
    """Every reason for quarantine, as a sentence that quotes only what describes the image."""
    yield from _of_sop_class(dataset)
    burned_in = _code(dataset, "BurnedInAnnotation")
    said_clean = burned_in == "NO"
    if burned_in not in ("", "NO"):
        yield "BurnedInAnnotation (0028,0301) is not NO"
    if _code(dataset, "RecognizableVisualFeatures") not in ("", "NO"):
        yield "RecognizableVisualFeatures (0028,0302) is not NO"
    modality, picture = _code(dataset, "Modality"), _picture(dataset)
    if not modality:
        yield "Modality (0008,0060) is missing"
    if modality in RISKY_MODALITIES and not said_clean:
        yield f"Modality (0008,0060) is {modality} and BurnedInAnnotation (0028,0301) does not say NO"
    elif picture and not said_clean:
        yield f"SOPClassUID (0008,0016): {picture}, and BurnedInAnnotation (0028,0301) does not say NO"
    is_ultrasound = modality in ("US", "IVUS") or picture == "ultrasound"
    if is_ultrasound and _code(dataset, "PhotometricInterpretation") not in ("", "MONOCHROME2"):
        # Scanners that draw name and date into a colour picture say NO of it all the same.
        yield "ultrasound in colour"
    image_type = [str(value).upper() for value in _values(dataset, "ImageType")]
    if any(word in value for word in SCREEN_WORDS for value in image_type):
        yield "ImageType (0008,0008) names a screen, a sheet or a label"
    if image_type[1:2] == ["SECONDARY"] and not said_clean:
        yield "ImageType (0008,0008) is SECONDARY and BurnedInAnnotation (0028,0301) does not say NO"
    if _code(dataset, "ConversionType") and not said_clean:
        yield "ConversionType (0008,0064) is present: the picture was captured or scanned"
    for keyword, why in (
        ("EncapsulatedDocument", "a document is inside"),
        ("WaveformSequence", "a waveform is inside"),
        ("SpectroscopyData", "not an image"),
    ):
        if keyword in dataset:
            yield f"{keyword} is present: {why}"
    if _overlay_inside_pixels(dataset):
        yield "OverlayBitPosition (60xx,0102) is not 0: drawings lie in spare bits of the pixel data"


def _of_sop_class(dataset: Dataset) -> Iterator[str]:
    sop_class = str(dataset.get("SOPClassUID", "")).strip("\0 ")
    if not sop_class:
        yield "SOPClassUID (0008,0016) is missing"
    elif UID(sop_class, IGNORE).type != "SOP Class":
        yield "SOPClassUID (0008,0016) is private or unknown to the standard's table of UIDs"
    elif sop_class not in _HARMLESS_66:
        for root, why in RISKY_SOP_CLASSES:
            if sop_class == root or sop_class.startswith(root + "."):
                yield f"{UID(sop_class).name}: {why}"
                return


def _picture(dataset: Dataset) -> str:
    """What the SOP class says that was photographed or drawn into; empty for other classes."""
    sop_class = str(dataset.get("SOPClassUID", "")).strip("\0 ")
    return next(
        (what for root, what in PICTURE_CLASSES if sop_class == root or sop_class.startswith(root + ".")), ""
    )


def _overlay_inside_pixels(dataset: Dataset) -> bool:
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6100, 2))
    return any(element is not None and element.value not in (None, 0, "", "0") for element in positions)


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def _code(dataset: Dataset, keyword: str) -> str:
    """The one value of a code string, upper case; several values are joined, so that none passes for
    another."""
    return "\\".join(str(value).strip().upper() for value in _values(dataset, keyword))
