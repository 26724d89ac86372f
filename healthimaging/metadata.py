"""Typed view of the metadata document that GetImageSetMetadata returns. Standard library only.

The document (schema version 1.1) nests Patient > Study > Series > Instances > ImageFrames. Attributes are
keyed by DICOM keyword, or by eight hexadecimal digits where DICOM has no keyword (private elements); IS and
DS arrive as strings, US and SS as integers, binary values as base64, and anything may be null. The frame
checksum list has two shapes in the field: one entry a resolution, smallest first (2023), and one entry for
the full resolution (now); the last entry is the full resolution in both. `StoredTransferSyntaxUID` and
`ChecksumType` came later and may be missing.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from healthimaging.errors import MetadataError

HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
"""What a frame is stored as when the metadata does not say (developer guide, transfer syntaxes)."""

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Attributes:
    """The DICOM attributes of one level, with tolerant readers.

    A reader returns None when the attribute is absent, null, empty or not of the wanted type: the caller
    decides whether that is an error.
    """

    values: Mapping[str, Any]
    vrs: Mapping[str, Any]
    """Value representations that the dictionary cannot give (`DICOMVRs`)."""

    def __repr__(self) -> str:
        return f"Attributes({len(self.values)} values)"  # none of which a log may have

    def get(self, keyword: str) -> Any:
        """The value as it stands in the document; None when absent."""
        return self.values.get(keyword)

    def over(self, base: Attributes) -> Attributes:
        """These attributes, and those of `base` that are not here: an instance's over its series'."""
        return Attributes({**base.values, **self.values}, {**base.vrs, **self.vrs})

    def text(self, keyword: str) -> str | None:
        """First value as text without DICOM's padding (PS3.5 section 6.2); None when absent or empty."""
        values = self.texts(keyword)
        return values[0] if values else None

    def texts(self, keyword: str) -> list[str] | None:
        """All values as text; None when absent or empty."""
        value = self.values.get(keyword)
        items = value if isinstance(value, list) else str(value).split("\\") if value is not None else []
        texts = [str(item).strip(" \0") for item in items if item is not None]
        return texts if any(texts) else None

    def integer(self, keyword: str) -> int | None:
        """First value as an integer; also from the text of an IS or a whole DS."""
        value = self.values.get(keyword)
        if type(value) is int:  # US and UL are numbers in the document
            return value
        number = self.decimal(keyword)
        return int(number) if number is not None and number.is_integer() else None

    def decimal(self, keyword: str) -> float | None:
        """First value as a number."""
        values = self.decimals(keyword)
        return values[0] if values else None

    def decimals(self, keyword: str) -> list[float] | None:
        """All values as finite numbers; None when one of them is not."""
        texts = self.texts(keyword)
        if texts is None:
            return None
        try:
            numbers = [float(text) for text in texts]
        except ValueError:
            return None
        return numbers if all(abs(number) < float("inf") for number in numbers) else None

    def sequence(self, keyword: str) -> list[Attributes]:
        """Items of a sequence; an empty list when absent or empty."""
        value = self.values.get(keyword)
        items = value if isinstance(value, list) else []
        return [Attributes(item, self.vrs) for item in items if isinstance(item, dict)]


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """One stored frame."""

    frame_id: str
    checksum: int | None
    """CRC32 at full resolution, over pixels or bytes as the transfer syntax demands; None when absent."""
    minimum: float | None
    maximum: float | None
    reduced_checksums: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """CRC32 of the pixels at lower resolutions by (rows, columns), where the document has them."""


@dataclass(frozen=True, kw_only=True)
class InstanceRecord:
    """One SOP instance, and where its frames are."""

    datastore_id: str
    image_set_id: str
    sop_instance_uid: str
    series_instance_uid: str
    attributes: Attributes
    frames: tuple[FrameRecord, ...] = field(repr=False)
    transfer_syntax_uid: str
    checksum_type: str | None
    """`DECOMPRESSED` when the checksums are over decoded pixels; None in documents from before it existed."""


@dataclass(frozen=True, kw_only=True)
class SeriesRecord:
    """One series, or the part of it that lies in this image set."""

    series_instance_uid: str
    attributes: Attributes
    instances: Mapping[str, InstanceRecord] = field(repr=False)
    """By SOP Instance UID, in the document's order, which says nothing about slice order."""


@dataclass(frozen=True, kw_only=True)
class ImageSetMetadata:
    """The metadata of one image set version."""

    datastore_id: str
    image_set_id: str
    patient: Attributes
    study: Attributes
    series: Mapping[str, SeriesRecord]
    """By Series Instance UID."""
    document: Mapping[str, Any] = field(repr=False)
    """The JSON document itself."""

    @property
    def study_instance_uid(self) -> str | None:
        """Study Instance UID (0020,000D)."""
        return self.study.text("StudyInstanceUID")

    @property
    def instances(self) -> list[InstanceRecord]:
        """All instances of all series, in the document's order."""
        return [instance for series in self.series.values() for instance in series.instances.values()]

    @classmethod
    def from_bytes(cls, blob: bytes) -> ImageSetMetadata:
        """Reads what GetImageSetMetadata returned: JSON, with or without gzip around it.

        Raises:
            MetadataError: The bytes are damaged or not a metadata document.
        """
        try:
            text = gzip.decompress(blob) if blob.startswith(_GZIP_MAGIC) else blob
            document = json.loads(text)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            msg = f"The metadata document cannot be read: {type(error).__name__}"
            raise MetadataError(msg) from error
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> ImageSetMetadata:
        """Reads the decoded JSON document.

        Raises:
            MetadataError: A level that must be an object is not, an identifier is missing, or identifiers
                contradict each other.
        """
        root = _mapping(document, "the document", image_set_id=None)
        image_set_id = root.get("ImageSetID")
        datastore_id = root.get("DatastoreID")
        if not isinstance(image_set_id, str) or not isinstance(datastore_id, str):
            msg = "The metadata document lacks ImageSetID or DatastoreID"
            raise MetadataError(msg)
        patient = _mapping(root.get("Patient"), "Patient", image_set_id=image_set_id)
        study = _mapping(root.get("Study"), "Study", image_set_id=image_set_id)
        series = _mapping(study.get("Series"), "Study.Series", image_set_id=image_set_id)
        metadata = cls(
            datastore_id=datastore_id,
            image_set_id=image_set_id,
            patient=_attributes(patient, "Patient", image_set_id=image_set_id),
            study=_attributes(study, "Study", image_set_id=image_set_id),
            series={
                uid: _series(uid, record, datastore_id=datastore_id, image_set_id=image_set_id)
                for uid, record in series.items()
            },
            document=root,
        )
        _require_one_identity(metadata)
        return metadata


def _require_one_identity(metadata: ImageSetMetadata) -> None:
    """Attributes say who an instance is, and so do the levels that it is filed under: they must agree."""
    filed: dict[str, str | None] = {
        "PatientID": metadata.patient.text("PatientID"),
        "StudyInstanceUID": metadata.study_instance_uid,
    }
    seen: set[str] = set()
    for series_uid, series in metadata.series.items():
        filed["SeriesInstanceUID"] = series_uid
        _require_identity(series.attributes, filed, image_set_id=metadata.image_set_id, series=series_uid)
        for uid, instance in series.instances.items():
            _require_identity(
                instance.attributes,
                {**filed, "SOPInstanceUID": uid},
                image_set_id=metadata.image_set_id,
                series=series_uid,
                instance=uid,
            )
            if uid in seen:
                msg = "The instance is in another series, too"
                raise MetadataError(msg, image_set_id=metadata.image_set_id, sop_instance_uid=uid)
            seen.add(uid)


def _require_identity(
    attributes: Attributes,
    filed: Mapping[str, str | None],
    *,
    image_set_id: str,
    series: str,
    instance: str | None = None,
) -> None:
    for keyword, expected in filed.items():
        if keyword not in attributes.values:
            continue
        found = attributes.text(keyword)
        if found is not None and expected is not None and found != expected:
            # Without the two: one may be the ID of a patient.
            msg = f"{keyword} is not that of what it is filed under"
            raise MetadataError(
                msg, image_set_id=image_set_id, series_instance_uid=series, sop_instance_uid=instance
            )


def _mapping(value: Any, name: str, *, image_set_id: str | None) -> Mapping[str, Any]:
    """An object of the document; null and absence count as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        msg = f"{name} of the metadata document is a {type(value).__name__}, not an object"
        raise MetadataError(msg, image_set_id=image_set_id)
    return value


def _attributes(level: Mapping[str, Any], name: str, *, image_set_id: str) -> Attributes:
    return Attributes(
        _mapping(level.get("DICOM"), f"{name}.DICOM", image_set_id=image_set_id),
        _mapping(level.get("DICOMVRs"), f"{name}.DICOMVRs", image_set_id=image_set_id),
    )


def _series(uid: str, value: Any, *, datastore_id: str, image_set_id: str) -> SeriesRecord:
    record = _mapping(value, f"Series {uid}", image_set_id=image_set_id)
    instances = _mapping(record.get("Instances"), f"Series {uid}.Instances", image_set_id=image_set_id)
    return SeriesRecord(
        series_instance_uid=uid,
        attributes=_attributes(record, f"Series {uid}", image_set_id=image_set_id),
        instances={
            sop_uid: _instance(
                sop_uid,
                instance,
                datastore_id=datastore_id,
                image_set_id=image_set_id,
                series_instance_uid=uid,
            )
            for sop_uid, instance in instances.items()
        },
    )


def _instance(
    uid: str, value: Any, *, datastore_id: str, image_set_id: str, series_instance_uid: str
) -> InstanceRecord:
    record = _mapping(value, f"Instance {uid}", image_set_id=image_set_id)
    frames = record.get("ImageFrames")
    frames = [] if frames is None else frames
    if not isinstance(frames, list):
        msg = "ImageFrames is not a list"
        raise MetadataError(msg, image_set_id=image_set_id, sop_instance_uid=uid)
    first = frames[0] if frames and isinstance(frames[0], dict) else {}
    checksum_type = record.get("ChecksumType") or first.get("ChecksumType")
    transfer_syntax = record.get("StoredTransferSyntaxUID")
    if transfer_syntax is not None and not isinstance(transfer_syntax, str):
        msg = "StoredTransferSyntaxUID is not text"
        raise MetadataError(msg, image_set_id=image_set_id, sop_instance_uid=uid)
    return InstanceRecord(
        datastore_id=datastore_id,
        image_set_id=image_set_id,
        sop_instance_uid=uid,
        series_instance_uid=series_instance_uid,
        attributes=_attributes(record, f"Instance {uid}", image_set_id=image_set_id),
        frames=tuple(
            _frame(frame, number, image_set_id=image_set_id, sop_instance_uid=uid)
            for number, frame in enumerate(frames, start=1)
        ),
        transfer_syntax_uid=transfer_syntax or HTJ2K_LOSSLESS_RPCL,
        checksum_type=checksum_type if isinstance(checksum_type, str) else None,
    )


def _frame(value: Any, number: int, *, image_set_id: str, sop_instance_uid: str) -> FrameRecord:
    def refuse(message: str) -> MetadataError:
        return MetadataError(
            message, image_set_id=image_set_id, sop_instance_uid=sop_instance_uid, frame_number=number
        )

    if not isinstance(value, dict) or not isinstance(value.get("ID"), str):
        raise refuse("An entry of ImageFrames has no ID")
    entries = value.get("PixelDataChecksumFromBaseToFullResolution")
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise refuse("PixelDataChecksumFromBaseToFullResolution is not a list of objects")
    checksum = entries[-1].get("Checksum") if entries else None
    if checksum is not None and (type(checksum) is not int or not 0 <= checksum < 2**32):
        raise refuse("A frame's checksum is not an unsigned 32-bit number")
    return FrameRecord(
        frame_id=value["ID"],
        checksum=checksum,
        minimum=_number(value.get("MinPixelValue")),
        maximum=_number(value.get("MaxPixelValue")),
        reduced_checksums={
            (entry["Height"], entry["Width"]): entry["Checksum"]
            for entry in entries[:-1]
            if all(isinstance(entry.get(key), int) for key in ("Height", "Width", "Checksum"))
        },
    )


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
