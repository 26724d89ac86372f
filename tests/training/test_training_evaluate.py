"""The `evaluate` command as the pipeline's processing step starts it, on phantoms."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd
from training_jobs import Finished, lay_out_evaluation, run_main
from training_phantoms import DATASTORE_ID, PhantomReader, write_manifest

from healthimaging import Case, ImageSetRef
from training.configuration.bundle import read_bundle
from training.errors import EvaluationError
from training.evaluation.evaluate import Model, mean_dice, score

CHEST = Case(
    patient_key="chest",
    split="test",
    image=ImageSetRef(datastore_id=DATASTORE_ID, image_set_id="chest-4", version_id="1"),
)


def test_evaluation_succeeds_and_says_what_on(evaluated: Finished, trained: Finished) -> None:
    assert evaluated.exit_code == 0, evaluated.output
    folder = evaluated.base / "processing" / "output" / "evaluation"
    assert [file.name for file in folder.iterdir()] == ["evaluation.json"]
    document = json.loads((folder / "evaluation.json").read_text())
    assert document["split"] == "test"
    assert [case["imageSetId"] for case in document["cases"]] == ["chest-4"]
    (segment,) = document["cases"][0]["segments"]
    assert segment["label"] == "lung"
    assert segment["referenceMl"] > 100
    assert document["metrics"]["mean_dice"] == pytest.approx(segment["dice"])
    provenance = json.loads((trained.base / "model" / "provenance.json").read_text())
    assert document["weights"] == provenance["weights"]


def test_without_held_out_cases_the_report_says_train(
    trained: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay_out_evaluation(trained, tmp_path, {"train": ["chest-1"]})
    assert run_main("evaluate", tmp_path) == 0
    assert "says nothing about patients not seen before" in caplog.text
    file = tmp_path / "processing" / "output" / "evaluation" / "evaluation.json"
    assert json.loads(file.read_text())["split"] == "train"


def test_a_damaged_model_fails_with_a_message(trained: Finished, tmp_path: Path) -> None:
    lay_out_evaluation(trained, tmp_path, {"test": ["chest-4"]})
    archive = tmp_path / "processing" / "input" / "model" / "model.tar.gz"
    archive.write_bytes(archive.read_bytes()[:2000])
    assert run_main("evaluate", tmp_path) == 1
    assert "model.tar.gz cannot be unpacked" in (tmp_path / "output" / "message").read_text()
    assert not (tmp_path / "processing" / "output").exists()


def test_a_model_that_leaves_its_folder_is_refused(trained: Finished, tmp_path: Path) -> None:
    lay_out_evaluation(trained, tmp_path, {"test": ["chest-4"]})
    with tarfile.open(tmp_path / "processing" / "input" / "model" / "model.tar.gz", "w:gz") as tar:
        tar.add(trained.base / "model" / "provenance.json", arcname="../../outside.json")
    assert run_main("evaluate", tmp_path) == 1
    assert (
        "model.tar.gz cannot be unpacked: OutsideDestinationError"
        in (tmp_path / "output" / "message").read_text()
    )


def test_weights_that_the_training_did_not_record_are_refused(trained: Finished, tmp_path: Path) -> None:
    lay_out_evaluation(trained, tmp_path, {"test": ["chest-4"]})
    model = tmp_path / "processing" / "input" / "model"
    with tarfile.open(model / "model.tar.gz") as tar:
        tar.extractall(model, filter="data")
    (model / "model.tar.gz").unlink()
    with (model / "models" / "model.ts").open("ab") as weights:
        weights.write(b" ")
    assert run_main("evaluate", tmp_path) == 1
    assert "not those that provenance.json records" in (tmp_path / "output" / "message").read_text()


def test_an_answer_that_lies_elsewhere_is_refused(trained: Finished) -> None:
    image = PhantomReader({"lung": 1}).read(CHEST)["image"]
    model = Model(read_bundle(trained.base / "model"))
    assert model.predict(image).shape == image.shape
    invert = model._postprocessing

    def mirrored(item: dict[str, Any]) -> dict[str, Any]:
        return dict(Orientationd("pred", axcodes="RPS", labels=None)(invert(item)))

    for postprocessing in (mirrored, lambda item: {"pred": invert(item)["pred"].as_tensor()}):
        model._postprocessing = postprocessing
        with pytest.raises(EvaluationError, match="does not lie where the image lies"):
            model.predict(image)


def test_no_model_is_told(tmp_path: Path) -> None:
    write_manifest(tmp_path / "processing" / "input" / "manifest", {"test": ["chest-4"]})
    (tmp_path / "processing" / "input" / "model").mkdir()
    assert run_main("evaluate", tmp_path) == 1
    assert "There is no model" in (tmp_path / "output" / "message").read_text()


def test_scores_are_per_segment_and_in_millilitres() -> None:
    label = torch.zeros((1, 10, 10, 10))
    label[:, :2] = 1  # 200 voxels
    prediction = torch.zeros((1, 10, 10, 10))
    prediction[:, 1:3] = 1  # 200 voxels, half of them right
    affine = torch.diag(torch.tensor([-2.0, -1.0, 5.0, 1.0], dtype=torch.float64))
    lung, heart = score(prediction, MetaTensor(label, affine=affine), {"lung": 1, "heart": 2})
    assert lung.dice == pytest.approx(0.5)
    assert lung.reference_ml == pytest.approx(2.0)
    assert lung.predicted_ml == pytest.approx(2.0)
    # Neither side has any heart: that is no measurement, neither 0 nor 1.
    assert heart.dice is None
    assert mean_dice([{"meanDice": None}, {"meanDice": 0.5}]) == 0.5
