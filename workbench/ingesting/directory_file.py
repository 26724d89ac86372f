"""What a DICOMDIR says is there (PS3.3 annex F, PS3.10 section 8.6)."""

from __future__ import annotations

import os
import posixpath
from typing import BinaryIO

import pydicom

from workbench.ingesting.content import Refused
from workbench.ingesting.found import Found, storable

LARGEST_BYTES = 64 << 20
"""It is read into memory at about ten times its size; one of 64 MB lists some 150,000 images."""

Reference = tuple[str, str | bytes, str, str]
"""Place, path as the journal has it, member, and name."""


def references(stream: BinaryIO, found: Found) -> list[Reference] | Refused:
    """Every file that the DICOMDIR `found` refers to.

    A Referenced File ID (0004,1500) is a path of components below the DICOMDIR's own folder.
    """
    if found.size > LARGEST_BYTES:
        return Refused(kind="Unreadable", reason="a DICOMDIR of more than 64 MB")
    try:
        directory = pydicom.dcmread(stream)
        items = directory.get("DirectoryRecordSequence") or []
        ids = [_components(item.get("ReferencedFileID")) for item in items]
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever damaged bytes lead its parser to
        return Refused(kind="Unreadable", reason=f"a DICOMDIR that cannot be read ({type(error).__name__})")
    return [_reference(found, parts) for parts in ids if parts]


def _components(value: object) -> list[str]:
    parts = [value] if isinstance(value, str) else list(value) if value else []  # type: ignore[call-overload]  # pydicom's MultiValue is untyped
    return [str(part) for part in parts if str(part)]


def _reference(found: Found, parts: list[str]) -> Reference:
    # Components are names and no steps: "..", a slash or a backslash would lead out of the file set.
    safe = [part.replace("/", "_").replace("\\", "_") for part in parts if part not in (".", "..")]
    shown = found.name.replace("\\", "/") if found.place == "zip" else found.name
    name = posixpath.join(posixpath.dirname(shown), *safe)
    if found.place == "zip":
        # Of a zip with backslashes, too: `Scanner` looks for members of either spelling.
        folder = posixpath.dirname(found.member.replace("\\", "/"))
        return "zip", found.stored_path, posixpath.join(folder, *safe), name
    if found.place == "s3":
        path = folder_of(found.path) + "/".join(safe)
        return "s3", path, "", path
    return "file", storable(os.path.join(os.path.dirname(found.link), *safe)), "", name


def folder_of(uri: str) -> str:
    """Of an object, with its slash. A key may have two of them in a row, which a path may not."""
    return uri[: uri.rindex("/") + 1]
