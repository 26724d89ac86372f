"""Made-up chests to train on, and the training image's command reading them instead of a datastore.

As a program (`python training_phantoms.py train`) it is `python -m training train` with the phantoms' reader:
everything but the reading of image sets is the real thing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.manifest import Split
from training.__main__ import main
from training.data.labels import class_number, label_map

DATASTORE_ID = "0" * 32
SHAPE = (40, 40, 20)
"""(columns, rows, slices)"""
SPACING = (8.0, 8.0, 10.0)
"""mm, in the order of `SHAPE`"""

SMALL: Mapping[str, object] = {
    "network_def#channels": [4, 8],
    "network_def#strides": [2],
    "patch_size": [32, 32, 16],
    # Batch statistics would depend on how many ranks share a step.
    "network_def#norm": "instance",
    "loss#batch": False,
}
"""Overrides of `ct_segmentation` that make its steps short, and the same for any number of ranks."""

SMALL_CLASSIFIER: Mapping[str, object] = {
    "network_def#_target_": "DenseNet",
    "network_def#init_features": 4,
    "network_def#growth_rate": 4,
    "network_def#block_config": [1, 1],
    "network_def#norm": "instance",
    "image_size": [32, 32, 32],
}
"""The same of `volume_classification`."""


def phantom(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body of soft tissue in air with two lungs: HU and mask, both (columns, rows, slices)."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    widths = random.uniform(0.9, 1.1, size=3)
    image = np.full(SHAPE, -1000.0)
    image[(x / (0.85 * widths[0])) ** 2 + (y / (0.65 * widths[1])) ** 2 < 1] = 40
    lungs = np.zeros(SHAPE, dtype=bool)
    for side in (-1, 1):
        lungs |= (
            ((x - side * 0.4) / 0.27) ** 2 + (y / (0.45 * widths[1])) ** 2 + (z / (0.8 * widths[2])) ** 2
        ) < 1
    image[lungs] = -800
    return image + random.normal(0, 20, size=SHAPE), lungs


class PhantomReader:
    """Image sets by name: `chest-N` is phantom N, `nan-N` has a voxel that is no number, `gone-N` is gone."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._channels = channels

    @property
    def fingerprint(self) -> str:
        return json.dumps(sorted(self._channels.items()))

    def spacing(self, case: Case) -> tuple[float, float, float]:
        return SPACING

    def problem(self, case: Case) -> str | None:
        kind = case.image.image_set_id.partition("-")[0]
        return "ImageSetNotFoundError: The image set does not exist" if kind == "gone" else None

    def read(self, case: Case, *, level: int = 0) -> dict[str, MetaTensor]:
        assert level == 0, "phantoms are coarse already"
        kind, _, number = case.image.image_set_id.partition("-")
        image, lungs = phantom(int(number))
        if kind == "nan":
            image[:] = np.nan
        # HealthImaging's images lie in LPS: columns run to the left, rows to the back.
        affine = torch.diag(torch.tensor([-SPACING[0], -SPACING[1], SPACING[2], 1.0], dtype=torch.float64))
        item = {"image": MetaTensor(torch.from_numpy(image[None].astype(np.float32)), affine=affine)}
        if case.label is not None:
            masks = MetaTensor(torch.from_numpy(lungs[None].astype(np.uint8)), affine=affine)
            masks.meta["segment_labels"] = ["Lung"]
            item["label"] = label_map(masks, self._channels, image_set_id=case.label.image_set_id)
        if case.class_name is not None:
            item["label"] = class_number(
                case.class_name, self._channels, image_set_id=case.image.image_set_id
            )
        return item


def write_manifest(
    folder: Path,
    splits: Mapping[Split, Sequence[str]],
    *,
    labelled: bool = True,
    classes: Mapping[str, str] | None = None,
) -> Path:
    """A manifest of phantoms, one a patient: the names of image sets by split, and perhaps their classes."""

    def ref(name: str) -> ImageSetRef:
        return ImageSetRef(datastore_id=DATASTORE_ID, image_set_id=name, version_id="1")

    cases = [
        Case(
            patient_key=f"{split}-{name}",
            split=split,
            image=ref(name),
            label=ref(f"label-{name}") if labelled and classes is None else None,
            class_name=classes[name] if classes is not None else None,
        )
        for split, names in splits.items()
        for name in names
    ]
    manifest = Manifest(query="SELECT 1", datastore_id=DATASTORE_ID, seed=1, cases=tuple(cases))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "phantoms.json"
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file


def lay_out_training(
    base: Path,
    splits: Mapping[Split, Sequence[str]],
    *,
    labelled: bool = True,
    classes: Mapping[str, str] | None = None,
    **hyperparameters: object,
) -> None:
    """What SageMaker puts below /opt/ml before a training container starts."""
    config = base / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    values = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in hyperparameters.items()
    }
    (config / "hyperparameters.json").write_text(json.dumps(values))
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
    (config / "resourceconfig.json").write_text(json.dumps(resources))
    (config / "inputdataconfig.json").write_text(json.dumps({"manifest": {"TrainingInputMode": "File"}}))
    (base / "model").mkdir(exist_ok=True)
    write_manifest(base / "input" / "data" / "manifest", splits, labelled=labelled, classes=classes)


def environment(base: Path) -> dict[str, str]:
    """The environment of a training container whose /opt/ml is `base`."""
    repository = Path(__file__).resolve().parents[2]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "AWS_"))}
    return kept | {
        "SAGEMAKER_BASE_DIR": str(base),
        "TRAINING_JOB_NAME": "phantoms",
        "PYTHONPATH": str(repository),
        "PYTHONWARNINGS": "ignore",
        # As in the image: other tests may run beside.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], open_reader=PhantomReader, program=[__file__]))
