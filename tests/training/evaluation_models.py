"""Models whose answers are known beforehand, made from the shipped bundles, and volumes to measure."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from training_phantoms import DATASTORE_ID, SPACING, phantom

from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.manifest import Split
from training.configuration.bundle import LIBRARY
from training.evaluation.evaluate import evaluate
from training.job.contract import EvaluationJob
from training.stopping import StopRequest

CLASSES = ("negative", "positive")


class Between(torch.nn.Module):
    """Calls lung what lies between two grey values: of the phantoms' lungs 0.14, of air 0, of tissue 0.74."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = ((x > self.low) & (x < self.high)).float() * 20
        return torch.cat([10 - inside, inside - 10], dim=1)


class Shifted(Between):
    """The same, but everything lies somewhere else: so many voxels along the columns."""

    def __init__(self, low: float, high: float, voxels: int) -> None:
        super().__init__(low, high)
        self.voxels = voxels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = (((x > self.low) & (x < self.high)).float() * 20).roll(self.voxels, 2)
        return torch.cat([10 - inside, inside - 10], dim=1)


class NotANumber(torch.nn.Module):
    """A network whose weights are lost."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], dim=1) * float("nan")


class Refusing(torch.nn.Module):
    """Wants a size that no volume here has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(7, 11, 13)


class Passing(torch.nn.Module):
    """Hands on what it gets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x], dim=1)


class Brightness(torch.nn.Module):
    """Calls positive what is bright in the middle, the more the brighter."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.steepness = steepness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = x[:, :, 24:40, 24:40, 24:40].mean(dim=(1, 2, 3, 4)) - 0.5
        return torch.stack([-middle, middle], dim=1) * self.steepness


GOOD, WORSE = Between(0.07, 0.3), Shifted(0.07, 0.3, 3)


def pack_model(
    file: Path, network: torch.nn.Module, *, bundle: str = "ct_segmentation", **provenance: object
) -> str:
    """Writes a model.tar.gz as training leaves it; returns its SHA-256."""
    folder = file.parent / f"{file.name}.unpacked"
    shutil.copytree(LIBRARY / bundle, folder)
    (folder / "models").mkdir()
    with warnings.catch_warnings():
        # As MONAI's export does: TorchScript is what the endpoint serves, deprecated or not.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(folder / "models" / "model.ts"))
    weights = {"model.ts": hashlib.sha256((folder / "models" / "model.ts").read_bytes()).hexdigest()}
    (folder / "provenance.json").write_text(json.dumps({"weights": weights, **provenance}))
    with tarfile.open(file, "w:gz") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, arcname=entry.name)
    shutil.rmtree(folder)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def ref(name: str) -> ImageSetRef:
    return ImageSetRef(datastore_id=DATASTORE_ID, image_set_id=name, version_id="1")


def case(
    name: str, *, split: Split = "test", patient: str | None = None, class_name: str | None = None
) -> Case:
    """A case of a phantom, `chest-N`; of a segmentation unless it has a class."""
    labelled: dict[str, Any] = {"class_name": class_name} if class_name else {"label": ref(f"label-{name}")}
    return Case(patient_key=patient or f"patient-of-{name}", split=split, image=ref(name), **labelled)


def manifest_bytes(cases: Sequence[Case]) -> bytes:
    manifest = Manifest(query="SELECT 1", datastore_id=DATASTORE_ID, seed=1, cases=tuple(cases))
    return manifest.to_json().encode()


class MadeReader:
    """Phantoms by name: `chest-N` as they are, `empty-N` without lungs, `nan-N` with a voxel that is no
    number, `far-N` with a label of another shape. Cases with a class are cubes, the middle of the grey N of
    100.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._channels = channels

    def problem(self, case: Case) -> str | None:
        return None

    def read(self, case: Case, *, level: int = 0) -> dict[str, Any]:
        kind, _, number = case.image.image_set_id.partition("-")
        affine = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0], dtype=torch.float64))
        if case.label is None:
            image = np.zeros((1, 32, 32, 32), dtype=np.float32)
            image[:, :16] = 100
            image[:, 10:22, 10:22, 10:22] = int(number)
            return {
                "image": MetaTensor(torch.from_numpy(image), affine=affine),
                "label": torch.tensor(self._channels[str(case.class_name)]),
            }
        values, lungs = phantom(int(number))
        if kind == "empty":
            values[lungs], lungs[:] = 40, False
        if kind == "nan":
            values[5, 5, 5] = np.nan
        mask = torch.from_numpy(lungs[None].astype(np.uint8)) * self._channels["lung"]
        if kind == "far":
            mask = mask[:, :-1]
        return {
            "image": MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=affine),
            "label": MetaTensor(mask, affine=affine),
        }


class Evaluated:
    """Runs the evaluation as the processing job does, on made volumes.

    Args:
        base: The job's folder.
        network: Of the model.
        cases: Of the manifest.
        bundle: A shipped one.
        provenance: What the model's training recorded. None: that it was trained from this manifest.
    """

    def __init__(
        self,
        base: Path,
        network: torch.nn.Module,
        cases: Sequence[Case],
        *,
        bundle: str = "ct_segmentation",
        provenance: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = base / "evaluation"
        (base / "model").mkdir(parents=True)
        content = manifest_bytes(cases)
        self.manifest_sha256 = hashlib.sha256(content).hexdigest()
        file = base / "cases.json"
        file.write_bytes(content)
        if provenance is None:
            provenance = {"manifestSha256": self.manifest_sha256, "trainingJob": "job-1", "seed": 7}
        self.sha256 = pack_model(base / "model" / "model.tar.gz", network, bundle=bundle, **provenance)
        self._job = EvaluationJob(model_dir=base / "model", manifest_file=file, output_dir=self.folder)

    def run(self, *, aws: FakeAws | None = None, **environ: str) -> dict[str, Any]:
        connect = (aws or FakeAws()).client
        return evaluate(
            self._job, open_reader=MadeReader, stop=StopRequest(), environ=environ, connect=connect
        )


class FakeAws:
    """As much of the registry and of S3 as a comparison asks for."""

    def __init__(self) -> None:
        self.packages: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.asked: list[dict[str, Any]] = []

    def client(self, service: str) -> Any:
        assert service in ("sagemaker", "s3")
        return self

    def approve(
        self,
        network: torch.nn.Module,
        folder: Path,
        *,
        trained_on: Sequence[Case] | None = None,
        bundle: str = "ct_segmentation",
        train_patients: Sequence[str] = (),
    ) -> str:
        """Registers a model as the pipeline does, and approves it; returns the package's ARN."""
        number = len(self.packages) + 1
        provenance: dict[str, Any] = {"trainPatients": list(train_patients)}
        package: dict[str, Any] = {}
        if trained_on is not None:
            content = manifest_bytes(trained_on)
            provenance["manifestSha256"] = hashlib.sha256(content).hexdigest()
            self.objects[f"s3://models/manifests/{number}.json"] = content
            package["CustomerMetadataProperties"] = {"manifestUri": f"s3://models/manifests/{number}.json"}
        file = folder / f"approved-{number}.tar.gz"
        sha256 = pack_model(file, network, bundle=bundle, **provenance)
        self.objects[f"s3://models/training/{number}/model.tar.gz"] = file.read_bytes()
        with tarfile.open(file) as tar:
            record = tar.extractfile("provenance.json")
            assert record is not None
            weights = json.loads(record.read())["weights"]
        evaluation = {"weights": weights, "modelArchive": {"sha256": sha256}}
        self.objects[f"s3://models/evaluation/{number}/evaluation.json"] = json.dumps(evaluation).encode()
        arn = f"arn:aws:sagemaker:eu-central-1:111122223333:model-package/group/{number}"
        self.packages.append(
            {
                "ModelPackageArn": arn,
                "InferenceSpecification": {
                    "Containers": [{"ModelDataUrl": f"s3://models/training/{number}/model.tar.gz"}]
                },
                "ModelMetrics": {
                    "ModelQuality": {
                        "Statistics": {"S3Uri": f"s3://models/evaluation/{number}/evaluation.json"}
                    }
                },
                **package,
            }
        )
        return arn

    def list_model_packages(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        # Filters are applied to a page that is there already, so that one may come out empty.
        if request.get("NextToken") != "2":
            return {"ModelPackageSummaryList": [], "NextToken": "2"}
        newest = reversed(self.packages)
        return {"ModelPackageSummaryList": [{"ModelPackageArn": one["ModelPackageArn"]} for one in newest]}

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:
        return next(one for one in self.packages if one["ModelPackageArn"] == ModelPackageName)

    def download_file(self, bucket: str, key: str, file: str) -> None:
        Path(file).write_bytes(self._object(bucket, key, "GetObject"))

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self._object(Bucket, Key, "GetObject"))}

    def _object(self, bucket: str, key: str, operation: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            return self.objects[f"s3://{bucket}/{key}"]
        except KeyError:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, operation) from None
