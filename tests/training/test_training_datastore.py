"""Training on image sets and DICOM segmentations that lie in a HealthImaging data store (the local cloud)."""

from __future__ import annotations

import copy
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from training_items import chain
from training_phantoms import SHAPE, SPACING, lay_out_training, phantom

from healthimaging import Case, ImageSetRef, Manifest, SegmentDescription, write_segmentation
from healthimaging.manifest import patient_key
from training.__main__ import main
from training.data import cases
from training.data.cache import ItemCache
from training.data.cases import DatastoreReader, check_cases
from training.data.preparation import split_transform
from training.data.source import CaseSource
from training.errors import DataError
from training.stopping import StopRequest

PATIENT = "PHANTOM-1"

LUNG = SegmentDescription(
    number=1,
    label="Lung",
    category=Code("123037004", "SCT", "Anatomical Structure"),
    type=Code("39607008", "SCT", "Lung"),
)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A datastore with a phantom and its segmentation, and segmentations that are not of it."""

    cloud: Any
    datastore_id: str
    image: str
    label: str
    shifted_label: str
    """Of another grid in the same study."""
    foreign_label: str
    """Of another patient, on the very grid of the image."""

    def case(self, **changes: Any) -> Case:
        case = Case(
            patient_key=patient_key(PATIENT),
            split="train",
            image=self.ref(self.image),
            label=self.ref(self.label),
        )
        return replace(case, **changes)

    def ref(self, image_set_id: str, version_id: str = "1") -> ImageSetRef:
        return ImageSetRef(datastore_id=self.datastore_id, image_set_id=image_set_id, version_id=version_id)

    @property
    def reader(self) -> DatastoreReader:
        return DatastoreReader(self.cloud.client("medical-imaging"), {"lung": 1})


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    ct, label = study(seed=1)
    _, shifted = study(seed=1, origin=5.0, study_instance_uid=ct[0].StudyInstanceUID)
    _, foreign = study(seed=1, patient_id="OTHER")
    name = f"training-{generate_uid()[-12:].replace('.', '')}"
    s3, iam, imaging = (cloud.client(service) for service in ("s3", "iam", "medical-imaging"))
    s3.create_bucket(Bucket=name)
    trust = allow("sts:AssumeRole", Principal={"Service": "medical-imaging.amazonaws.com"})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    objects = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    iam.put_role_policy(RoleName=name, PolicyName="import", PolicyDocument=allow("s3:*", Resource=objects))
    datastore_id = imaging.create_datastore(datastoreName=name)["datastoreId"]
    found = {
        kind: import_files(cloud, datastore_id, name, role, kind, datasets)
        for kind, datasets in (
            ("image", ct),
            ("label", [label]),
            ("shifted", [shifted]),
            ("foreign", [foreign]),
        )
    }
    return Archive(
        cloud=cloud,
        datastore_id=datastore_id,
        image=found["image"],
        label=found["label"],
        shifted_label=found["shifted"],
        foreign_label=found["foreign"],
    )


def allow(action: str, **members: Any) -> str:
    statement = {"Effect": "Allow", "Action": action, **members}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def study(
    *, seed: int, origin: float = 0.0, study_instance_uid: str | None = None, patient_id: str = PATIENT
) -> tuple[list[pydicom.Dataset], pydicom.Dataset]:
    """A phantom as a CT series, and its lungs as a segmentation."""
    hu, lungs = phantom(seed)
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    del template[0xFFFCFFFC]  # trailing padding, which would end the file instead of the pixels
    template.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    template.PatientID = patient_id
    template.StudyInstanceUID = study_instance_uid or generate_uid()
    template.SeriesInstanceUID = generate_uid()
    template.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.1"
    template.PixelSpacing, template.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    template.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    template.RescaleSlope, template.RescaleIntercept = 1, -1024
    template.Columns, template.Rows = SHAPE[:2]
    series: list[pydicom.Dataset] = []
    for k in range(SHAPE[2]):
        dataset = copy.deepcopy(template)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [origin, 0, k * SPACING[2]]
        stored = np.clip(hu[:, :, k].T + 1024, 0, 4095).astype(np.int16)
        dataset.PixelData = np.ascontiguousarray(stored).tobytes()
        series.append(dataset)
    segmentation = write_segmentation(
        source=series,
        masks=lungs.transpose(2, 1, 0)[None],
        segments=[LUNG],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=100,
        algorithm_name="phantom",
        algorithm_version="1",
    )
    return series, segmentation


def import_files(
    cloud: Any, datastore_id: str, bucket: str, role: str, folder: str, datasets: Sequence[pydicom.Dataset]
) -> str:
    """The one image set that an import of the datasets makes."""
    s3, imaging = cloud.client("s3"), cloud.client("medical-imaging")
    for number, dataset in enumerate(datasets):
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        s3.put_object(Bucket=bucket, Key=f"in/{folder}/{number}.dcm", Body=buffer.getvalue())
    job_id = imaging.start_dicom_import_job(
        datastoreId=datastore_id,
        dataAccessRoleArn=role,
        inputS3Uri=f"s3://{bucket}/in/{folder}/",
        outputS3Uri=f"s3://{bucket}/out/{folder}/",
    )["jobId"]
    deadline = time.monotonic() + 60
    while True:
        job = imaging.get_dicom_import_job(datastoreId=datastore_id, jobId=job_id)["jobProperties"]
        if job["jobStatus"] in ("COMPLETED", "FAILED"):
            break
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    assert job["jobStatus"] == "COMPLETED", job
    key = f"{job['outputS3Uri'].split('/', 3)[3]}job-output-manifest.json"
    report = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    (only,) = report["jobSummary"]["imageSetsSummary"]
    return str(only["imageSetId"])


def test_image_and_label_lie_on_one_grid_in_the_patient(archive: Archive) -> None:
    item = archive.reader.read(archive.case())
    hu, lungs = phantom(1)
    torch.testing.assert_close(
        torch.as_tensor(item["image"])[0], torch.from_numpy(np.clip(hu + 1024, 0, 4095)).int() - 1024.0
    )
    assert bool((torch.as_tensor(item["label"])[0] == torch.from_numpy(lungs)).all())
    expected = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0], dtype=torch.float64))
    for tensor in item.values():
        torch.testing.assert_close(tensor.affine, expected)


@pytest.mark.parametrize("level", [1, 2])
def test_a_coarse_case_is_every_second_pixel_of_the_full_one(archive: Archive, level: int) -> None:
    full, coarse = archive.reader.read(archive.case()), archive.reader.read(archive.case(), level=level)
    step = 2**level
    # The halved image is filtered by the wavelet; the label is not.
    assert coarse["image"].shape == full["image"][:, ::step, ::step].shape
    assert bool((coarse["label"] == torch.as_tensor(full["label"])[:, ::step, ::step]).all())
    spacing = torch.tensor([step * SPACING[0], step * SPACING[1], SPACING[2]], dtype=torch.float64)
    for tensor in coarse.values():
        torch.testing.assert_close(tensor.pixdim, spacing)


def test_the_spacing_of_a_case_is_known_without_its_pixels(archive: Archive) -> None:
    assert archive.reader.spacing(archive.case()) == pytest.approx(SPACING)
    with pytest.raises(DataError, match="0" * 32):
        archive.reader.spacing(archive.case(image=archive.ref("0" * 32)))


def test_a_case_of_a_class_is_an_image_and_a_number(archive: Archive) -> None:
    case = archive.case(label=None, class_name="lesion")
    reader = DatastoreReader(archive.cloud.client("medical-imaging"), {"healthy": 0, "Lesion": 1})
    assert reader.problem(case) is None
    item = reader.read(case)
    assert item["image"].shape == (1, *SHAPE)
    assert int(item["label"]) == 1
    with pytest.raises(DataError, match=r"is of class 'lesion'; the bundle has 'lung'"):
        archive.reader.read(case)


def test_prepared_cases_of_a_datastore_are_fetched_once(archive: Archive, tmp_path: Path) -> None:
    fetched: list[Case] = []

    class Watched(DatastoreReader):
        def read(self, case: Case, *, level: int = 0) -> dict[str, Any]:
            fetched.append(case)
            return super().read(case, level=level)

    def source() -> CaseSource:
        return CaseSource(
            [archive.case()],
            Watched(archive.cloud.client("medical-imaging"), {"lung": 1}),
            preparation=split_transform(chain(), fingerprint="chain"),
            cache=ItemCache(tmp_path, limit_bytes=2**30),
            stop=StopRequest(),
        )

    first, second = source().item(0), source().item(0)
    assert len(fetched) == 1
    assert torch.equal(first["image"].as_tensor(), second["image"].as_tensor())
    # What names the series in the archive is still there to be asked for.
    assert first["image"].meta["series_instance_uid"] == second["image"].meta["series_instance_uid"]


def test_a_vanished_image_set_and_a_missing_version_are_listed(archive: Archive) -> None:
    cases = [
        archive.case(),
        archive.case(image=archive.ref("0" * 32)),
        archive.case(label=archive.ref(archive.label, version_id="7")),
    ]
    with pytest.raises(DataError, match="2 of 3 cases") as caught:
        check_cases(cases, archive.reader)
    assert "0" * 32 in str(caught.value)
    assert "has no version 7" in str(caught.value)


def test_a_label_of_another_grid_is_refused(archive: Archive) -> None:
    with pytest.raises(DataError, match=f"image set {archive.image}: GeometryMismatchError"):
        archive.reader.read(archive.case(label=archive.ref(archive.shifted_label)))


def test_a_label_of_another_patient_is_refused_though_its_grid_fits(archive: Archive) -> None:
    case = archive.case(label=archive.ref(archive.foreign_label))
    for refused in (lambda: archive.reader.read(case), lambda: check_cases([case], archive.reader)):
        with pytest.raises(DataError, match="The label is of another patient") as caught:
            refused()
        assert "OTHER" not in str(caught.value)


def test_an_image_on_the_wrong_side_of_the_split_is_refused(archive: Archive) -> None:
    with pytest.raises(DataError, match="The image set is not of patient"):
        check_cases([archive.case(patient_key=patient_key("OTHER"))], archive.reader)


def test_what_other_libraries_say_of_a_header_is_not_repeated(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(client: Any, case: Case, *, level: int) -> None:
        raise ValueError("Invalid value: 'Doe^Jane'")

    monkeypatch.setattr(cases, "load_case", fail)
    with pytest.raises(DataError, match="unexpected ValueError at test_training_datastore") as caught:
        archive.reader.read(archive.case())
    assert "Doe" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_image_is_no_label(archive: Archive) -> None:
    with pytest.raises(DataError, match=archive.image):
        archive.reader.read(archive.case(label=archive.ref(archive.image)))


def test_a_label_without_the_bundles_segment_says_what_it_has(archive: Archive) -> None:
    reader = DatastoreReader(archive.cloud.client("medical-imaging"), {"liver": 1})
    with pytest.raises(DataError, match=r"needs one segment named 'liver' and has 0; it has 'Lung'"):
        reader.read(archive.case())


def test_the_command_trains_from_the_datastore(
    archive: Archive, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path_factory.mktemp("datastore")
    lay_out_training(base, {"train": ["chest-1"]}, max_steps=2)
    manifest = Manifest(query="SELECT 1", datastore_id=archive.datastore_id, seed=1, cases=(archive.case(),))
    (base / "input" / "data" / "manifest" / "phantoms.json").write_text(manifest.to_json())
    for name, value in (archive.cloud.environment | {"SAGEMAKER_BASE_DIR": str(base)}).items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["train"]) == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert (base / "model" / "models" / "model.ts").exists()
