"""SageMaker's training contract, kept by the built training image.

Source: docs.aws.amazon.com/sagemaker/latest/dg, "Use Your Own Training Algorithms".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_under_test import ImageUnderTest
from running_endpoint import Archive
from synthetic_patient import Patient
from test_training_datastore import study
from training_phantoms import lay_out_training

from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.manifest import Split, patient_key

CASES: tuple[tuple[Split, str, int], ...] = (
    ("train", "TRAIN-1", 1),
    ("train", "TRAIN-2", 2),
    ("validation", "TRAIN-3", 3),
)


@pytest.fixture(scope="module")
def manifest(archive: Archive) -> Manifest:
    """Phantoms and their segmentations in the datastore."""
    cases = []
    for split, patient_id, seed in CASES:
        series, label = study(seed=seed, patient_id=patient_id)
        found = [
            ImageSetRef(
                datastore_id=archive.datastore_id,
                image_set_id=archive.store(
                    Patient(patient_id=patient_id, datasets=datasets, array=np.empty((0, 0, 0), np.int16))
                ),
                version_id="1",
            )
            for datasets in (series, [label])
        ]
        cases.append(Case(patient_key=patient_key(patient_id), split=split, image=found[0], label=found[1]))
    return Manifest(query="SELECT 1", datastore_id=archive.datastore_id, seed=1, cases=tuple(cases))


def _train(
    image: ImageUnderTest, cloud: Any, manifest: Manifest, base: Path, **hyperparameters: object
) -> int:
    lay_out_training(base, {"train": ["replaced-below"]}, **hyperparameters)
    (base / "input" / "data" / "manifest" / "phantoms.json").write_text(manifest.to_json())
    environment = {**cloud.environment, "TRAINING_JOB_NAME": "image-test"}
    with image.started("train", base=base, environment=environment, read_only=["input"]) as container:
        return container.wait(240)


def test_a_training_of_a_few_steps_leaves_a_bundle(
    training_image: ImageUnderTest, cloud: Any, manifest: Manifest, tmp_path: Path
) -> None:
    base = tmp_path / "ml"
    status = _train(
        training_image,
        cloud,
        manifest,
        base,
        bundle="ct_segmentation",
        max_steps=3,
        validate_every=3,
        checkpoint_every=3,
        # What a machine with two GPUs would start.
        processes_per_host=2,
    )
    assert status == 0, (tmp_path / "ml.log").read_text()[-3000:]
    # What SageMaker packs as model.tar.gz.
    written = {path.relative_to(base / "model").as_posix() for path in (base / "model").rglob("*")}
    assert {"configs/inference.json", "configs/metadata.json"} <= written
    assert any(name.startswith("models/") for name in written)
    assert json.loads((base / "model" / "provenance.json").read_text())["worldSize"] == 2
    log = (tmp_path / "ml.log").read_text()
    for metric in ("train_loss", "val_mean_dice", "input_wait_share"):
        assert log.count(f"step=3 {metric}=") == 1, f"one rank prints {metric}, once"
    assert not (base / "output" / "failure").exists()


def test_bad_hyperparameters_are_told_in_the_failure_file(
    training_image: ImageUnderTest, cloud: Any, manifest: Manifest, tmp_path: Path
) -> None:
    base = tmp_path / "ml"
    assert _train(training_image, cloud, manifest, base, max_steps="many", colour="blue") == 1
    failure = (base / "output" / "failure").read_text()
    assert "max_steps is 'many'" in failure
    assert "colour is unknown" in failure
    assert not list((base / "model").iterdir())
