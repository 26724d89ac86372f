"""Image sets without a cloud: metadata documents as the service writes them, and a client that has them."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from botocore.exceptions import ClientError

DATASTORE = "d" * 32
IMAGE_SET = "1" * 32
STUDY_UID = "1.2.3"
SERIES_UID = "1.2.3.4"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
HTJ2K = "1.2.840.10008.1.2.4.202"


@dataclass
class FakeService:
    """The data calls of a boto3 `medical-imaging` client, over a document and frames that tests change."""

    document: dict[str, Any]
    frames: dict[str, bytes | Exception] = field(default_factory=dict)
    version: str = "1"
    is_primary: bool = True
    requested: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def get_image_set(self, **params: str) -> dict[str, Any]:
        if params["imageSetId"] != IMAGE_SET:
            raise client_error("ResourceNotFoundException", "GetImageSet")
        return {
            "imageSetState": "ACTIVE",
            "versionId": params.get("versionId", self.version),
            "isPrimary": self.is_primary,
        }

    def get_image_set_metadata(self, **_params: str) -> dict[str, Any]:
        return {"imageSetMetadataBlob": BytesIO(gzip.compress(json.dumps(self.document).encode()))}

    def get_image_frame(self, *, imageFrameInformation: dict[str, str], **_params: str) -> dict[str, Any]:
        frame_id = imageFrameInformation["imageFrameId"]
        with self.lock:
            self.requested.append(frame_id)
        answer = self.frames[frame_id]
        if isinstance(answer, Exception):
            raise answer
        return {"imageFrameBlob": BytesIO(answer), "contentType": "image/jph"}


def client_error(code: str, operation: str = "GetImageFrame") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "refused"}}, operation)


def crc32(pixels: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes())


def instance(
    pixels: np.ndarray[Any, Any],
    *,
    number: int | None,
    position: tuple[float, float, float],
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (1, 1),
    **attributes: Any,
) -> tuple[dict[str, Any], bytes]:
    """One CT instance of an image set document, and its stored frame."""
    rows, columns = pixels.shape[:2]
    uid = f"{SERIES_UID}.{attributes.pop('uid', number)}"
    dicom = {
        "SOPClassUID": CT_IMAGE_STORAGE,
        "SOPInstanceUID": uid,
        "InstanceNumber": None if number is None else str(number),
        "ImagePositionPatient": [f"{x:.6f}" for x in position],
        "ImageOrientationPatient": [f"{x:.6f}" for x in orientation],
        "PixelSpacing": [f"{x}" for x in spacing],
        "SliceThickness": "2.5",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024 ",
        "PixelData": None,
        **attributes,
    }
    record = {
        "DICOM": dicom,
        "DICOMVRs": {},
        "StoredTransferSyntaxUID": HTJ2K,
        "ChecksumType": "DECOMPRESSED",
        "ImageFrames": [
            {
                "ID": f"frame-{uid}",
                "PixelDataChecksumFromBaseToFullResolution": [
                    {"Width": columns, "Height": rows, "Checksum": crc32(pixels)}
                ],
                "MinPixelValue": int(pixels.min()),
                "MaxPixelValue": int(pixels.max()),
                "FrameSizeInBytes": 1,
            }
        ],
    }
    return record, imagecodecs.htj2k_encode(pixels)


def document(instances: dict[str, Any]) -> dict[str, Any]:
    return {
        "SchemaVersion": "1.1",
        "DatastoreID": DATASTORE,
        "ImageSetID": IMAGE_SET,
        "Patient": {"DICOM": {"PatientID": "P1 ", "PatientName": "Test^Case", "PatientSex": None}},
        "Study": {
            "DICOM": {
                "StudyInstanceUID": STUDY_UID,
                "StudyDate": "20240102",
                "StudyTime": "101112",
                "StudyID": "S1",
                "AccessionNumber": None,
                "ReferringPhysicianName": None,
            },
            "Series": {
                SERIES_UID: {
                    "DICOM": {
                        "SeriesInstanceUID": SERIES_UID,
                        "Modality": "CT",
                        "SeriesNumber": "3 ",
                        "FrameOfReferenceUID": "1.2.3.9",
                        "BodyPartExamined": "CHEST",
                        "Manufacturer": "Maker",
                    },
                    "Instances": instances,
                }
            },
        },
    }


def image_set(built: list[tuple[dict[str, Any], bytes]]) -> FakeService:
    """A service that holds one image set of these instances, in this order."""
    records = {record["DICOM"]["SOPInstanceUID"]: record for record, _ in built}
    frames: dict[str, bytes | Exception] = {record["ImageFrames"][0]["ID"]: data for record, data in built}
    return FakeService(document(records), frames)


def ct_series() -> tuple[FakeService, np.ndarray[Any, Any]]:
    """Seven CT slices of 9 rows and 12 columns in shuffled order, and their HU as (slices, rows, columns)."""
    rng = np.random.default_rng(7)
    stored = rng.integers(0, 4096, size=(7, 9, 12), dtype=np.uint16)
    built = [
        instance(stored[k], number=7 - k, position=(-10, -20, 2.5 * k), spacing=(2, 1))
        for k in (3, 0, 6, 1, 5, 2, 4)
    ]
    return image_set(built), stored.astype(np.int16) - 1024
