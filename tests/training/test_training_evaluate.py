"""The evaluation as the pipeline's processing step starts it: what it writes, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_models import (
    CLASSES,
    GOOD,
    WORSE,
    Brightness,
    Evaluated,
    FakeAws,
    MadeReader,
    NotANumber,
    Passing,
    case,
    pack_model,
)
from monai.transforms import Orientationd
from PIL import Image
from training_jobs import Finished, lay_out_evaluation, run_main
from training_phantoms import write_manifest

from healthimaging.errors import ManifestError
from training.configuration.bundle import read_bundle
from training.errors import BundleError, DataError, EvaluationError
from training.evaluation.model import Model, open_model
from training.evaluation.pictures import PREDICTION, REFERENCE

GROUP = {"MODEL_PACKAGE_GROUP": "lungs", "GATE_METRIC": "mean_dice"}
CHESTS = [case("chest-1"), case("chest-2"), case("chest-3")]
GREYS = [
    case(f"grey-{grey}", patient=f"patient-{grey % 7}", class_name=CLASSES[grey > 50])
    for grey in (10, 22, 35, 48, 55, 63, 77, 90)
]


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return document


def test_a_trained_model_is_evaluated_and_the_document_says_what_on(
    evaluated: Finished, trained: Finished
) -> None:
    assert evaluated.exit_code == 0, evaluated.output
    folder = evaluated.base / "processing" / "output" / "evaluation"
    document = read(folder)
    assert document["split"] == "test"
    assert [one["imageSetId"] for one in document["cases"]] == ["chest-4"]
    (segment,) = document["cases"][0]["segments"]
    assert segment["label"] == "lung"
    assert segment["referenceMl"] > 100
    assert document["metrics"]["mean_dice"] == pytest.approx(segment["dice"])
    assert document["intervals"]["mean_dice"] is None
    provenance = json.loads((trained.base / "model" / "provenance.json").read_text())
    assert document["weights"] == provenance["weights"]


def test_everything_a_reader_needs_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = Evaluated(tmp_path, WORSE, [*CHESTS, case("empty-4"), case("chest-5", split="train")])
    document = evaluated.run(MODEL_ARCHIVE_URI="s3://models/training/job-1/output/model.tar.gz", **GROUP)
    assert read(evaluated.folder) == document
    files = {file.relative_to(evaluated.folder).as_posix() for file in evaluated.folder.rglob("*")}
    assert files == {
        *("evaluation.json", "report.html", "model-card.json", "pictures"),
        *(f"pictures/worst-{number}.png" for number in (1, 2, 3)),
    }
    assert document["schema"] == "monai-on-aws/evaluation/2"
    assert (document["task"], document["device"]) == ("segmentation", "cpu")
    assert document["bundle"]["name"] == "ct_segmentation"
    assert document["modelArchive"] == {
        "sha256": evaluated.sha256,
        "uri": "s3://models/training/job-1/output/model.tar.gz",
    }
    assert document["manifest"] == {"name": "cases.json", "sha256": evaluated.manifest_sha256}
    assert (document["patients"], len(document["cases"])) == (4, 4)
    assert document["intervals"]["mean_dice"]["patients"] == 3
    assert [one["imageSetId"] for one in document["pictures"]] == [
        one["imageSetId"] for one in sorted(document["cases"], key=lambda one: one["meanDice"] or 2)[:3]
    ]
    printed = capsys.readouterr().out
    for name, value in document["metrics"].items():
        assert f"split=test {name}={value:.6g}\n" in printed


def test_the_archives_hash_is_of_the_bytes_that_were_given(tmp_path: Path) -> None:
    sha256 = pack_model(tmp_path / "model.tar.gz", GOOD)
    (tmp_path / "scratch").mkdir()
    assert open_model(tmp_path, tmp_path / "scratch").archive_sha256 == sha256


@pytest.mark.parametrize(
    ("cases", "provenance", "value", "reason"),
    [
        ([case("chest-1", split="train")], None, False, "that the model was trained on"),
        ([case("chest-1", split="validation")], None, True, "chosen among its weights"),
        ([case("chest-1")], None, True, "none of these patients"),
        ([case("chest-1")], {}, False, "does not say what it was trained on"),
        ([case("chest-1")], {"manifestSha256": "0" * 64}, False, "from another manifest"),
        (
            [case("chest-1")],
            {"manifestSha256": "0" * 64, "trainPatients": ["somebody-else"]},
            True,
            "none of",
        ),
        ([case("chest-1")], {"trainPatients": ["patient-of-chest-1"]}, False, "trained on 1 of these"),
    ],
)
def test_held_out_is_what_the_training_recorded(
    tmp_path: Path, cases: list[Any], provenance: dict[str, object] | None, value: bool, reason: str
) -> None:
    evaluated = Evaluated(tmp_path, GOOD, cases, provenance=provenance)
    document = evaluated.run(**GROUP)
    assert document["heldOut"] is value
    assert document["gate"]["heldOut"] == int(value)
    assert reason in document["heldOutReason"]
    html = (evaluated.folder / "report.html").read_text()
    assert ("<b>HELD-OUT PATIENTS</b>" in html, "<b>NOT HELD OUT</b>" in html) == (value, not value)


def test_without_held_out_cases_the_log_says_so(
    trained: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay_out_evaluation(trained, tmp_path, {"train": ["chest-1"]})
    assert run_main("evaluate", tmp_path) == 0
    assert "says nothing about patients not seen before" in caplog.text
    assert read(tmp_path / "processing" / "output" / "evaluation")["split"] == "train"


def test_a_leaking_split_is_refused(tmp_path: Path) -> None:
    leaking = [case("chest-1", patient="p"), case("chest-2", split="train", patient="p")]
    with pytest.raises(ManifestError, match="Patient p is in test and in train"):
        Evaluated(tmp_path / "made", GOOD, leaking)
    evaluated = Evaluated(
        tmp_path / "edited", GOOD, [case("chest-1", patient="p"), case("chest-2", split="train")]
    )
    file = tmp_path / "edited" / "cases.json"
    file.write_text(file.read_text().replace("patient-of-chest-2", "p"))
    with pytest.raises(DataError, match="Patient p is in test and in train"):
        evaluated.run()


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (NotANumber(), "chest-1", "image set chest-1.*training diverged"),
        (Passing(), "nan-1", "image set nan-1.*image holds voxels that are not finite"),
        (GOOD, "far-1", r"image set far-1: The label has \(39, 40, 20\) voxels and the image \(40, 40, 20\)"),
    ],
)
def test_what_cannot_be_measured_is_told_with_its_image_set(
    tmp_path: Path, network: torch.nn.Module, name: str, message: str
) -> None:
    evaluated = Evaluated(tmp_path, network, [case(name)])
    with pytest.raises(EvaluationError, match=f"(?i){message}"):
        evaluated.run()
    assert not evaluated.folder.exists()


def test_an_answer_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    pack_model(tmp_path / "model.tar.gz", GOOD)
    (tmp_path / "scratch").mkdir()
    model = Model(open_model(tmp_path, tmp_path / "scratch").bundle)
    image = MadeReader({"lung": 1}).read(CHESTS[0])["image"]
    assert model.segment(image).shape == image.shape
    invert = model._postprocessing

    def mirrored(item: dict[str, Any]) -> dict[str, Any]:
        return dict(Orientationd("pred", axcodes="RPS", labels=None)(invert(item)))

    for postprocessing in (mirrored, lambda item: {"pred": invert(item)["pred"].as_tensor()}):
        model._postprocessing = postprocessing
        with pytest.raises(EvaluationError, match="does not lie where the image lies"):
            model.segment(image)
    model._postprocessing = lambda item: {"pred": invert(item)["pred"][:, :-1]}
    with pytest.raises(EvaluationError, match=r"answers \(39, 40, 20\) to an image of \(40, 40, 20\)"):
        model.segment(image)


def test_nothing_to_find_and_nothing_found_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="No case has a voxel to find or found"):
        Evaluated(tmp_path, GOOD, [case("empty-1")]).run()


def test_classes_are_measured(tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, Brightness(8), GREYS, bundle="volume_classification")
    document = evaluated.run(GATE_METRIC="auc")
    assert document["task"] == "classification"
    assert document["metrics"]["auc"] == 1.0
    assert document["confusion"]["cases"] == [[4, 0], [0, 4]]
    assert document["patients"] == 4
    assert document["gate"] == {"metric": "auc", "heldOut": 1, "improvement": 1.0}
    assert sum(one["cases"] for one in document["calibration"]["bins"]) == len(GREYS)
    (first, *_) = document["cases"]
    assert first["class"] == first["predicted"] == "negative"
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert len(document["pictures"]) == 3
    # The least probable true classes are those next to the threshold.
    assert {one["imageSetId"] for one in document["pictures"]} <= {"grey-48", "grey-55", "grey-35", "grey-63"}


def test_a_held_out_set_of_one_class_cannot_pass_a_gate_on_auc(tmp_path: Path) -> None:
    alone = [one for one in GREYS if one.class_name == "negative"]
    evaluated = Evaluated(tmp_path, Brightness(8), alone, bundle="volume_classification")
    document = evaluated.run(GATE_METRIC="accuracy")
    assert document["metrics"]["auc"] is None
    assert document["classes"]["positive"]["cases"] == 0
    with pytest.raises(EvaluationError, match=r"auc.*undefined: all 4 cases are of class 'negative'"):
        evaluated.run(GATE_METRIC="auc")
    with pytest.raises(EvaluationError, match="'mean_dice'; this task has auc, accuracy"):
        evaluated.run(GATE_METRIC="mean_dice")


@pytest.mark.parametrize(
    ("cases", "bundle", "message"),
    [
        (CHESTS, "volume_classification", "3 of 3 cases have a segmentation"),
        (GREYS, "ct_segmentation", "8 of 8 cases have a class"),
        ([case("grey-1", class_name="neither")], "volume_classification", "of class 'neither'"),
    ],
)
def test_labels_of_another_kind_are_refused(
    tmp_path: Path, cases: list[Any], bundle: str, message: str
) -> None:
    evaluated = Evaluated(tmp_path, Brightness(8), cases, bundle=bundle)
    with pytest.raises(DataError, match=message):
        evaluated.run()


def test_probabilities_are_asked_for(tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, Brightness(8), GREYS[:1], bundle="volume_classification")
    model_file = tmp_path / "model" / "model.tar.gz"
    content = rewritten(model_file, "configs/inference.json", b'"softmax": true', b'"softmax": false')
    model_file.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"grey-10.*postprocessing.*must apply softmax or sigmoid"):
        evaluated.run()


def rewritten(archive: Path, name: str, old: bytes, new: bytes) -> bytes:
    """The archive with one of its files edited."""
    stream = io.BytesIO()
    with tarfile.open(archive) as source, tarfile.open(fileobj=stream, mode="w:gz") as target:
        for member in source:
            file = source.extractfile(member)
            content = b"" if file is None else file.read()
            if member.name == name:
                assert old in content
                content = content.replace(old, new)
                member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_a_damaged_model_fails_with_a_message(tmp_path: Path) -> None:
    write_manifest(tmp_path / "processing" / "input" / "manifest", {"test": ["chest-4"]})
    folder = tmp_path / "processing" / "input" / "model"
    folder.mkdir()
    pack_model(folder / "model.tar.gz", GOOD)
    archive = folder / "model.tar.gz"
    archive.write_bytes(archive.read_bytes()[:2000])
    assert run_main("evaluate", tmp_path) == 1
    assert "model.tar.gz cannot be unpacked" in (tmp_path / "output" / "message").read_text()
    assert not (tmp_path / "processing" / "output").exists()


def test_a_model_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("../../outside.json")
        tar.addfile(info, io.BytesIO())
    with pytest.raises(EvaluationError, match="cannot be unpacked: OutsideDestinationError"):
        open_model(tmp_path, tmp_path / "scratch")


def test_weights_that_the_training_did_not_record_are_refused(tmp_path: Path) -> None:
    pack_model(tmp_path / "model.tar.gz", GOOD)
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "model.tar.gz").unlink()
    assert open_model(tmp_path, tmp_path).archive_sha256 is None
    with (tmp_path / "models" / "model.ts").open("ab") as weights:
        weights.write(b" ")
    with pytest.raises(EvaluationError, match=r"not those that provenance\.json records"):
        open_model(tmp_path, tmp_path)


def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    pack_model(tmp_path / "model.tar.gz", GOOD)
    (tmp_path / "scratch").mkdir()
    root = open_model(tmp_path, tmp_path / "scratch").bundle.root
    (root / "models" / "model.ts").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="cannot be loaded"):
        Model(read_bundle(root))


def test_no_model_is_told(tmp_path: Path) -> None:
    write_manifest(tmp_path / "processing" / "input" / "manifest", {"test": ["chest-4"]})
    (tmp_path / "processing" / "input" / "model").mkdir()
    assert run_main("evaluate", tmp_path) == 1
    assert "There is no model" in (tmp_path / "output" / "message").read_text()


def test_pictures_show_both_contours_through_the_error(tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, WORSE, CHESTS)
    evaluated.run()
    for number in (1, 2, 3):
        picture = Image.open(evaluated.folder / "pictures" / f"worst-{number}.png")
        assert not picture.info, "a picture carries nothing beside its pixels"
        pixels = np.asarray(picture.convert("RGB"))
        for colour in (REFERENCE, PREDICTION):
            drawn = (pixels == colour).all(axis=-1)
            # In each of the three panels, which are of one width.
            for left in (12, 404, 796):
                assert drawn[82:460, left : left + 380].sum() > 50


def test_the_report_stands_alone_and_says_nothing_of_patients(tmp_path: Path) -> None:
    evaluated = Evaluated(tmp_path, WORSE, CHESTS)
    evaluated.run(**GROUP)
    html = (evaluated.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:image/png;base64,)""", html)
    assert "<script" not in html
    assert "patient-of" not in html
    assert html.count("data:image/png") == 3
    assert evaluated.sha256 in html
    assert evaluated.manifest_sha256 in html
    assert "lungs has no approved model yet" in html


def test_texts_from_outside_are_escaped_in_the_report(tmp_path: Path) -> None:
    provenance: dict[str, object] = {"trainingJob": "<script>alert(1)</script>"}
    evaluated = Evaluated(tmp_path, GOOD, CHESTS[:1], provenance=provenance)
    evaluated.run()
    html = (evaluated.folder / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


CARD = {
    "model_overview": {"model_creator", "model_artifact"},
    "intended_uses": {"purpose_of_model", "intended_uses", "risk_rating"},
    "training_details": {"training_observations", "training_job_details"},
    "evaluation_details": set(),
    "additional_information": {"caveats_and_recommendations", "custom_details"},
}
"""Keys that SageMaker's schema of package cards knows, as far as they are used."""


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_card_keeps_to_its_schema(tmp_path: Path, task: str) -> None:
    provenance: dict[str, object] = {
        "manifestName": "m.json",
        "manifestSha256": "0" * 64,
        "stepOfWeights": 10,
        "steps": 12,
        "seed": 7,
        "device": "cpu",
        "hyperparameters": {"overrides": "x" * 400, "bundle": ""},
        "packages": {"torch": "2"},
    }
    if task == "segmentation":
        evaluated = Evaluated(tmp_path, WORSE, CHESTS, provenance=provenance)
    else:
        evaluated = Evaluated(
            tmp_path, Brightness(8), GREYS, bundle="volume_classification", provenance=provenance
        )
    document = evaluated.run(MODEL_ARCHIVE_URI="s3://models/m.tar.gz")
    card = json.loads((evaluated.folder / "model-card.json").read_text())
    assert set(card) == set(CARD)
    for part, keys in CARD.items():
        if keys:
            assert set(card[part]) == keys
    (evaluation,) = card["evaluation_details"]
    assert evaluation["evaluation_observation"].startswith("NOT HELD OUT: ")
    data = [one for group in evaluation["metric_groups"] for one in group["metric_data"]]
    assert all(one["type"] in ("number", "matrix") and len(one.get("notes", "")) <= 1024 for one in data)
    assert all(len(group["name"]) <= 63 for group in evaluation["metric_groups"])
    name, key = ("Dice", "mean_dice") if task == "segmentation" else ("AUC", "auc")
    assert next(one for one in data if one["name"] == name)["value"] == document["metrics"][key]
    (parameter,) = card["training_details"]["training_job_details"]["user_provided_hyper_parameters"]
    assert parameter == {"name": "overrides", "value": "x" * 255}
    assert len(json.dumps(card)) < 100_000
    assert "patient-" not in json.dumps(card)


def test_no_registry_is_asked_without_a_group(tmp_path: Path) -> None:
    aws = FakeAws()
    document = Evaluated(tmp_path, GOOD, CHESTS[:1]).run(aws=aws)
    assert aws.asked == []
    assert document["baseline"] is None
    assert document["gate"] == {"metric": None, "heldOut": 1, "improvement": None}
