"""Every file of pydicom and pydicom-data, and what is to become of it when it is imported and read back.

A file that stands in no table is expected to come back exactly: every attribute, every pixel. The tables name
the others, each with its reason. `FILES` is complete by construction; `EXPECTED` naming a file that does not
exist, or the packages bringing other files than are counted here, fails a test.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom.data


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What becomes of a file. By default it comes back exactly."""

    refused: str = ""
    """Why import refuses it: a part of the message in the job's report."""
    error: str = ""
    """Name of the error that reading with pixels raises; the header comes back exactly."""
    header_error: str = ""
    """Name of the error that reading the header raises, too."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that decoding changes, and what they become."""
    crc: int | None = None
    """CRC32 of the pixels as DCMTK's dcmdjpeg, or OpenJPEG's opj_decompress, decodes them: pydicom has no
    decoder for this file.
    """


def _folder(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


_PYDICOM = Path(pydicom.data.__file__).parent
_MORE = _folder("data_store", "data")
FILES: dict[str, Path] = {
    path.relative_to(_PYDICOM).as_posix(): path
    for path in sorted(_PYDICOM.rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".pyc", ".json")
} | {f"more/{path.name}": path for path in sorted(_MORE.iterdir()) if path.is_file()}
"""By name: folder and file below pydicom's data, or `more/` and a file of pydicom-data."""

NUMBER_OF_FILES = 269

_NO_FILE = "the preamble or the DICM prefix is missing"
_RGB = {"PhotometricInterpretation": "RGB"}
"""Decoding undoes the colour transform of the codec."""
_BY_PIXEL = {"PlanarConfiguration": 0}
"""Decoded samples lie by pixel."""
_NO_FRAMES = Expected(error="MetadataError")
"""Rows and Columns, but no pixel data: whether that is an image cannot be known, so none is made up."""

EXPECTED: dict[str, Expected] = {
    **{
        f"test_files/{name}": Expected(refused=_NO_FILE)
        for name in (
            "README.txt",
            "ExplVR_BigEndNoMeta.dcm",
            "ExplVR_LitEndNoMeta.dcm",
            "crayons.icc",
            "dicomdirtests/README.txt",
            "dicomdirtests/TINY_ALPHA/README",
            "no_meta.dcm",
            "rtplan.dump",
            "rtstruct.dcm",
            "rtstruct.dump",
            "zipMR.gz",
        )
    },
    "charset_files/FileInfo.txt": Expected(refused=_NO_FILE),
    "palettes/README.md": Expected(refused=_NO_FILE),
    "more/OT-PAL-8-face.dcm": Expected(refused=_NO_FILE),
    **{
        f"test_files/{name}": Expected(refused="SOPClassUID does not exist")
        for name in (
            "UN_sequence.dcm",
            "dicomdirtests/DICOMDIR",
            "dicomdirtests/DICOMDIR-bigEnd",
            "dicomdirtests/DICOMDIR-empty.dcm",
            "dicomdirtests/DICOMDIR-implicit",
            "dicomdirtests/DICOMDIR-nooffset",
            "dicomdirtests/DICOMDIR-nopatient",
            "dicomdirtests/DICOMDIR-reordered",
            "dicomdirtests/TINY_ALPHA/DICOMDIR",
            "empty_charset_LEI.dcm",
            "nested_priv_SQ.dcm",
            "no_meta_group_length.dcm",
            "priv_SQ.dcm",
        )
    },
    "charset_files/chrSQEncoding.dcm": Expected(refused="SOPClassUID does not exist"),
    "charset_files/chrSQEncoding1.dcm": Expected(refused="SOPClassUID does not exist"),
    "more/emri_small_jpeg_2k_lossless_too_short.dcm": Expected(refused="ends within it"),
    **{
        f"palettes/{name}.dcm": Expected(refused="StudyInstanceUID does not exist")
        for name in (
            "fall",
            "hotiron",
            "hotmetalblue",
            "pet",
            "pet20step",
            "spring",
            "summer",
            "winter",
        )
    },
    **{
        f"test_files/{name}.dcm": Expected(refused="StudyInstanceUID does not exist")
        for name in (
            "JPEGLSNearLossless_08",
            "JPEGLSNearLossless_16",
            "SC_rgb_jls_lossy_line",
            "SC_rgb_jls_lossy_sample",
        )
    },
    "test_files/meta_missing_tsyntax.dcm": Expected(refused="TransferSyntaxUID does not exist"),
    "test_files/MR_truncated.dcm": Expected(refused="The file ends within element (7FE0,0010)"),
    "test_files/rtplan_truncated.dcm": Expected(refused="The file ends within element (300A,00B0)"),
    "more/bad_sequence.dcm": Expected(refused="SOPInstanceUID is not a UID"),
    "charset_files/chrJapMulti.dcm": _NO_FRAMES,
    "charset_files/chrJapMultiExplicitIR6.dcm": _NO_FRAMES,
    "charset_files/chrKoreanMulti.dcm": _NO_FRAMES,
    # A sequence delimiter was written over the image size of its JPEG 2000 stream.
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": Expected(error="FrameDecodeError"),
    # NumberOfFrames is "1A", which no reader can take for a number.
    "test_files/badVR.dcm": Expected(header_error="MetadataError"),
    "test_files/ExplVR_BigEnd.dcm": Expected(changed=_BY_PIXEL),
    "more/color-pl.dcm": Expected(changed=_BY_PIXEL),
    "test_files/SC_ybr_full_422_uncompressed.dcm": Expected(
        changed={"PhotometricInterpretation": "YBR_FULL"}
    ),
    **{
        f"test_files/{name}.dcm": Expected(changed=_RGB)
        for name in (
            "SC_rgb_dcmtk_+eb+cy+n1",
            "SC_rgb_dcmtk_+eb+cy+n2",
            "SC_rgb_dcmtk_+eb+cy+np",
            "SC_rgb_dcmtk_+eb+cy+s2",
            "SC_rgb_dcmtk_+eb+cy+s4",
            "SC_rgb_jpeg_dcmtk",
            "SC_rgb_jpeg_lossy_gdcm",
            "SC_rgb_small_odd_jpeg",
            "examples_jpeg2k",
            "examples_ybr_color",
        )
    },
    "more/US1_J2KI.dcm": Expected(changed=_RGB),
    "more/US1_J2KR.dcm": Expected(changed=_RGB),
    "more/color3d_jpeg_baseline.dcm": Expected(changed=_RGB),
    "test_files/GDCMJ2K_TextGBR.dcm": Expected(changed=_RGB, crc=0x3917876D),
    "test_files/JPEG-lossy.dcm": Expected(crc=0x519E66C5),
    "test_files/JPGExtended.dcm": Expected(crc=0x519E66C5),
    "test_files/SC_rgb_jpeg_gdcm.dcm": Expected(crc=0x0EF37133),
    "more/JPEG-LL.dcm": Expected(crc=0x89C1C89F),
    "more/JPGLosslessP14SV1_1s_1f_8b.dcm": Expected(crc=0xC7D36060),
}


def expected(name: str) -> Expected:
    """What is to become of a file."""
    return EXPECTED.get(name, Expected())
