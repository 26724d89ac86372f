"""Patches with and without a lesion, cut from real CT and MR volumes and laid into a datastore as DICOM
series.

The volumes are pyradiomics' five (BSD-3), each with an expert's mask of one lesion: two brains (MR), a breast
(MR) and two chests (CT). Each is a patient.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.data import get_testdata_file
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from healthimaging import ImageSetRef, SegmentDescription, write_segmentation

PATIENTS = ("brain1", "brain2", "breast1", "lung1", "lung2")

SIZE = (40, 40, 8)
"""Voxels of a patch (columns, rows, slices)."""

LESION = SegmentDescription(
    number=1,
    label="Lesion",
    category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    type=Code("52988006", "SCT", "Lesion"),
)

_TYPES = {"short": "<i2", "int": "<i4"}


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A cube of a volume.

    Attributes:
        patient: Which volume it is from.
        values: (columns, rows, slices), in the modality's unit.
        lesion: Mask on the same grid.
        affine: Voxel (column, row, slice) to LPS mm.
    """

    patient: str
    values: npt.NDArray[np.int16]
    lesion: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StoredPatch:
    """A patch as it lies in the datastore; `label` is there for patches with a lesion."""

    patient: str
    image: ImageSetRef
    label: ImageSetRef | None


class PatchStore:
    """A datastore of a local cloud.

    Args:
        cloud: The running cloud.
    """

    def __init__(self, cloud: Any) -> None:
        self._s3, self._imaging = cloud.client("s3"), cloud.client("medical-imaging")
        self._bucket = f"patches-{generate_uid()[-12:].replace('.', '')}"
        self._s3.create_bucket(Bucket=self._bucket)
        iam = cloud.client("iam")
        trust = _allow("sts:AssumeRole", Principal={"Service": "medical-imaging.amazonaws.com"})
        self._role = iam.create_role(RoleName=self._bucket, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        files = [f"arn:aws:s3:::{self._bucket}", f"arn:aws:s3:::{self._bucket}/*"]
        policy = _allow("s3:*", Resource=files)
        iam.put_role_policy(RoleName=self._bucket, PolicyName="import", PolicyDocument=policy)
        self.datastore_id = str(self._imaging.create_datastore(datastoreName=self._bucket)["datastoreId"])

    def store(self, patch: Patch) -> StoredPatch:
        """Imports a patch as a series, and its lesion, if it has one, as a DICOM SEG."""
        series = _series(patch)
        label = None
        if patch.lesion.any():
            segmentation = write_segmentation(
                source=series,
                masks=patch.lesion.transpose(2, 1, 0)[None],
                segments=[LESION],
                series_instance_uid=generate_uid(),
                sop_instance_uid=generate_uid(),
                series_number=100,
                algorithm_name="expert",
                algorithm_version="1",
            )
            label = self._import([segmentation])
        return StoredPatch(patient=patch.patient, image=self._import(series), label=label)

    def _import(self, datasets: Sequence[pydicom.Dataset]) -> ImageSetRef:
        folder = generate_uid()
        for number, dataset in enumerate(datasets):
            buffer = BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            self._s3.put_object(Bucket=self._bucket, Key=f"in/{folder}/{number}.dcm", Body=buffer.getvalue())
        job_id = self._imaging.start_dicom_import_job(
            datastoreId=self.datastore_id,
            dataAccessRoleArn=self._role,
            inputS3Uri=f"s3://{self._bucket}/in/{folder}/",
            outputS3Uri=f"s3://{self._bucket}/out/{folder}/",
        )["jobId"]
        deadline = time.monotonic() + 60
        while True:
            job = self._imaging.get_dicom_import_job(datastoreId=self.datastore_id, jobId=job_id)[
                "jobProperties"
            ]
            if job["jobStatus"] in ("COMPLETED", "FAILED"):
                break
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        assert job["jobStatus"] == "COMPLETED", job
        key = f"{job['outputS3Uri'].split('/', 3)[3]}job-output-manifest.json"
        report = json.loads(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        (only,) = report["jobSummary"]["imageSetsSummary"]
        return ImageSetRef(
            datastore_id=self.datastore_id, image_set_id=str(only["imageSetId"]), version_id="1"
        )


def cut_patches(folder: Path, patient: str) -> tuple[Patch, Patch]:
    """One patch around the lesion and one of tissue beside it.

    Args:
        folder: Of the volumes, `PATIENT_image.nrrd` and `PATIENT_label.nrrd`.
        patient: One of `PATIENTS`.
    """
    values, affine = _read_nrrd(folder / f"{patient}_image.nrrd")
    mask, _ = _read_nrrd(folder / f"{patient}_label.nrrd")
    lesion = mask != 0
    wanted = [min(size, length) for size, length in zip(SIZE, values.shape, strict=True)]
    centre = np.argwhere(lesion).mean(axis=0).round().astype(int)
    corners = [
        np.clip(centre - np.array(wanted) // 2, 0, np.array(values.shape) - wanted),
        _beside(values, lesion, wanted),
    ]
    patches = []
    for corner in corners:
        place = tuple(slice(start, start + length) for start, length in zip(corner, wanted, strict=True))
        shifted = affine.copy()
        shifted[:3, 3] = (affine @ [*corner, 1.0])[:3]
        patches.append(
            Patch(
                patient=patient,
                values=values[place].astype(np.int16),
                lesion=lesion[place],
                affine=shifted,
            )
        )
    with_lesion, without = patches
    assert with_lesion.lesion.any()
    assert not without.lesion.any()
    return with_lesion, without


def _beside(
    values: npt.NDArray[Any], lesion: npt.NDArray[np.bool_], wanted: Sequence[int]
) -> npt.NDArray[np.int_]:
    """The brightest place, tissue rather than air, that has no voxel of the lesion."""
    starts = [
        sorted({0, (length - size) // 2, length - size, *range(0, length - size, size)})
        for length, size in zip(values.shape, wanted, strict=True)
    ]
    found: list[tuple[float, tuple[int, ...]]] = []
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3).tolist():
        place = tuple(slice(start, start + size) for start, size in zip(corner, wanted, strict=True))
        if not lesion[place].any():
            found.append((float(values[place].mean()), tuple(corner)))
    return np.array(max(found)[1])


def _read_nrrd(file: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """A volume (columns, rows, slices) and its affine to LPS mm, of the kind of NRRD that these files are."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([^:#]+): (.+)$", head.decode("ascii"), flags=re.MULTILINE))
    assert fields["encoding"] == "gzip"
    assert fields["space"] == "left-posterior-superior"
    sizes = [int(size) for size in fields["sizes"].split()]
    values = np.frombuffer(gzip.decompress(body), dtype=_TYPES[fields["type"]]).reshape(sizes, order="F")
    columns = [
        [float(x) for x in v.split(",")] for v in re.findall(r"\(([^)]+)\)", fields["space directions"])
    ]
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    affine[:3, 3] = [float(x) for x in fields["space origin"].strip("()").split(",")]
    return values, affine


def _series(patch: Patch) -> list[pydicom.Dataset]:
    is_ct = patch.patient.startswith("lung")
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm" if is_ct else "MR_small.dcm")))
    if 0xFFFCFFFC in template:
        del template[0xFFFCFFFC]  # trailing padding, which would end the file instead of the pixels
    sop_class = CTImageStorage if is_ct else MRImageStorage
    template.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    template.file_meta.MediaStorageSOPClassUID = template.SOPClassUID = sop_class
    template.PatientID = patch.patient
    template.StudyInstanceUID, template.SeriesInstanceUID = generate_uid(), generate_uid()
    template.FrameOfReferenceUID = generate_uid()
    columns = patch.affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    directions = columns / spacing
    template.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    template.SliceThickness = float(spacing[2])
    template.ImageOrientationPatient = [*directions[:, 0].tolist(), *directions[:, 1].tolist()]
    template.BitsAllocated = template.BitsStored = 16
    template.HighBit, template.PixelRepresentation = 15, 1
    template.Columns, template.Rows = patch.values.shape[:2]
    # Smallest and largest pixel values and windows are those of the template's image.
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "WindowCenter"):
        template.pop(name, None)
    template.pop("WindowWidth", None)
    if is_ct:
        template.RescaleSlope, template.RescaleIntercept = 1, 0
    series = []
    for k in range(patch.values.shape[2]):
        dataset = copy.deepcopy(template)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = (patch.affine @ [0, 0, k, 1.0])[:3].round(6).tolist()
        dataset.SliceLocation = float(k * spacing[2])
        dataset.PixelData = np.ascontiguousarray(patch.values[:, :, k].T).astype("<i2").tobytes()
        series.append(dataset)
    return series


def _allow(action: str, **members: Any) -> str:
    statement = {"Effect": "Allow", "Action": action, **members}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
