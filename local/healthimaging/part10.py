"""Stored attributes as a DICOM file (PS3.10) again."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from local.healthimaging.elements import Attributes, is_ascii, to_dataset
from local.healthimaging.errors import not_acceptable


def restored_dataset(attributes: Attributes, *, get_bulk: Callable[[str], bytes]) -> Dataset:
    """The data set without its pixels. Text is UTF-8; Specific Character Set says so where it matters."""
    dataset = to_dataset(attributes, get_bulk=get_bulk)
    if not is_ascii(attributes):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def write_part10(dataset: Dataset, transfer_syntax: str) -> bytes:
    """The bytes of a file. Its pixel data must be in `transfer_syntax` already.

    Raises NotAcceptableException for big endian: stored values are little endian.
    """
    if transfer_syntax == ExplicitVRBigEndian:
        raise not_acceptable("The instance could not be transcoded, and big endian files are not written.")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    buffer = BytesIO()
    file = FileDataset(buffer, dataset, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(
        buffer,
        implicit_vr=transfer_syntax == ImplicitVRLittleEndian,
        little_endian=True,
        enforce_file_format=True,
    )
    return buffer.getvalue()
