"""Both bundles trained on real patches out of an archive, evaluated, and served by the runtime as they
are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.utils import set_determinism
from real_patches import PATIENTS, PatchStore, StoredPatch, cut_patches

from healthimaging import Case, Manifest
from healthimaging.manifest import Split, patient_key
from runtime.bundles.bundle import load_bundle, warm_up
from runtime.bundles.task import Task
from training.configuration.bundle import named_bundle
from training.configuration.training import TrainingConfiguration
from training.data.cases import DatastoreReader, check_cases
from training.data.preparation import split_transform
from training.data.sampling import StepLoader, ValidationLoader
from training.data.source import CaseSource
from training.evaluation.evaluate import evaluate
from training.export.export import Provenance, export_model
from training.job.contract import EvaluationJob
from training.stopping import StopRequest
from workbench.demo.source_data import fetch

SPLITS: Mapping[str, Split] = {
    "brain1": "train",
    "breast1": "train",
    "lung1": "train",
    "brain2": "validation",
    "lung2": "test",
}

CLASSES = ("healthy", "lesion")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A datastore with two patches of every patient."""

    client: Any
    datastore_id: str
    patches: tuple[StoredPatch, ...]

    def manifest(self, *, classes: bool) -> Manifest:
        """All patches by their class, or those with a lesion by its mask."""
        cases = tuple(
            Case(
                patient_key=patient_key(patch.patient),
                split=SPLITS[patch.patient],
                image=patch.image,
                label=None if classes else patch.label,
                class_name=CLASSES[patch.label is not None] if classes else None,
            )
            for patch in self.patches
            if classes or patch.label is not None
        )
        return Manifest(query="SELECT 1", datastore_id=self.datastore_id, seed=1, cases=cases)


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    folder = fetch(progress=print)
    store = PatchStore(cloud)
    cut = [patch for patient in PATIENTS for patch in cut_patches(folder, patient)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        patches = list(pool.map(store.store, cut))
    assert len(patches) == 2 * len(PATIENTS)
    return Archive(
        client=cloud.client("medical-imaging"), datastore_id=store.datastore_id, patches=tuple(patches)
    )


def trained(archive: Archive, bundle_name: str, base: Path, *, steps: int, overrides: dict[str, Any]) -> Path:
    """A model folder, as the Evaluate step of the pipeline finds it, with the manifest beside it."""
    bundle = named_bundle(bundle_name)
    configuration = TrainingConfiguration(bundle, max_steps=steps, batch_size=2, overrides=overrides)
    manifest = archive.manifest(classes=configuration.bundle.task.value == Task.CLASSIFICATION.value)
    reader = DatastoreReader(archive.client, configuration.channels)
    check_cases(manifest.cases, reader)
    set_determinism(configuration.seed)
    sources = [
        CaseSource(
            manifest.split(split),
            reader,
            preparation=split_transform(
                configuration.preprocessing(section),
                fingerprint=configuration.preparation_fingerprint(section),
            ),
            cache=None,
            stop=StopRequest(),
        )
        for split, section in (("train", "train"), ("validation", "validate"))
    ]
    loader = StepLoader(
        source=sources[0],
        batch_size=2,
        world_size=1,
        rank=0,
        accumulate=1,
        seed=configuration.seed,
        workers=1,
    )
    configuration.bring_loaders(
        training=loader,
        validation=ValidationLoader(sources[1], world_size=1, rank=0),
        steps_per_epoch=loader.steps_per_epoch,
    )
    try:
        configuration.part("trainer").run()
    finally:
        loader.close()
    configuration.part("evaluator").run()
    metrics = configuration.part("evaluator").state.metrics
    assert 0 <= metrics[configuration.key_metric_name] <= 1
    processing = base / "processing"
    export_model(
        bundle=bundle,
        network=configuration.part("network"),
        folder=processing / "input" / "model",
        overrides=overrides,
        provenance=Provenance(
            training_job="patches",
            manifest_name="patches.json",
            manifest_sha256="0" * 64,
            datastore_id=archive.datastore_id,
            cases={"train": len(manifest.split("train"))},
            bundle_sha256=bundle.digest(),
            hyperparameters={"max_steps": str(steps)},
            seed=configuration.seed,
            steps=steps,
            step_of_weights=steps,
            device="cpu",
        ),
    )
    (processing / "input" / "manifest").mkdir(parents=True)
    (processing / "input" / "manifest" / "patches.json").write_text(manifest.to_json())
    return processing / "input" / "model"


def evaluated(archive: Archive, base: Path, *, metric: str) -> dict[str, Any]:
    def refuse(service: str) -> Any:
        raise AssertionError(service)

    evaluate(
        EvaluationJob.from_environment({"SAGEMAKER_BASE_DIR": str(base)}),
        open_reader=lambda channels: DatastoreReader(archive.client, channels),
        stop=StopRequest(),
        environ={"GATE_METRIC": metric},
        connect=refuse,
    )
    document = json.loads((base / "processing" / "output" / "evaluation" / "evaluation.json").read_text())
    assert isinstance(document, dict)
    return document


def test_the_classifier_trains_on_real_patches_and_is_served_unchanged(
    archive: Archive, tmp_path: Path
) -> None:
    model = trained(
        archive,
        "volume_classification",
        tmp_path,
        steps=6,
        overrides={"classes": list(CLASSES), "image_size": [32, 32, 32]},
    )
    document = evaluated(archive, tmp_path, metric="auc")
    assert document["task"] == "classification"
    assert document["split"] == "test"
    assert document["metrics"]["auc"] is not None

    served = load_bundle(model)
    warm_up(served)
    assert served.task is Task.CLASSIFICATION
    assert [channel.name for channel in served.files.channels] == list(CLASSES)
    patch = archive.patches[-1]
    case = next(case for case in archive.manifest(classes=True).cases if case.image == patch.image)
    image = DatastoreReader(archive.client, {"healthy": 0, "lesion": 1}).read(case)["image"]
    scores = served.classify(image)
    assert [score.label for score in scores] == list(CLASSES)
    assert sum(score.probability for score in scores) == pytest.approx(1, abs=1e-4)


def test_the_segmentation_trains_on_real_lesions_and_is_served_unchanged(
    archive: Archive, tmp_path: Path
) -> None:
    """Another structure than the bundle's own, by the names of its classes; the network by an overlay."""
    model = trained(
        archive,
        "ct_segmentation",
        tmp_path,
        steps=4,
        overrides={
            "classes": ["background", "lesion"],
            "overlays": ["segresnet"],
            "patch_size": [32, 32, 16],
        },
    )
    document = evaluated(archive, tmp_path, metric="mean_dice")
    assert document["task"] == "segmentation"
    assert 0 <= document["metrics"]["mean_dice"] <= 1

    served = load_bundle(model)
    warm_up(served)
    assert [channel.name for channel in served.files.segment_channels] == ["lesion"]
    case = archive.manifest(classes=False).split("test")[0]
    image = DatastoreReader(archive.client, {"lesion": 1}).read(case)["image"]
    masks = served.predict(image)
    assert masks.shape[1:] == image.shape[1:]
    assert set(torch.unique(masks).tolist()) <= {0, 1}
