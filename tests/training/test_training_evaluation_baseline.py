"""A new model against the one in use: measured by the same code on the same patients, or said why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import get_session
from botocore.validate import ParamValidator
from evaluation_models import (
    GOOD,
    WORSE,
    Brightness,
    Evaluated,
    FakeAws,
    NotANumber,
    Refusing,
    Shifted,
    case,
)

from training.errors import BaselineError
from training.evaluation.baseline import newest_approved
from training.evaluation.gate import COMPARISON_FAILED, Gate

GROUP = {"MODEL_PACKAGE_GROUP": "lungs", "GATE_METRIC": "mean_dice"}
CHESTS = [case("chest-1"), case("chest-2"), case("chest-3")]


def compared(tmp_path: Path, aws: FakeAws, **environ: str) -> dict[str, Any]:
    return Evaluated(tmp_path / "new", GOOD, CHESTS).run(aws=aws, **{**GROUP, **environ})


def test_the_model_in_use_is_measured_on_the_same_patients(tmp_path: Path) -> None:
    aws = FakeAws()
    aws.approve(GOOD, tmp_path, trained_on=[case("chest-9", split="train")])
    arn = aws.approve(WORSE, tmp_path, trained_on=[case("chest-9", split="train")])
    document = compared(tmp_path, aws)
    shape = get_session().get_service_model("sagemaker").operation_model("ListModelPackages").input_shape
    for asked in aws.asked:
        assert asked["ModelPackageGroupName"] == "lungs"
        assert asked["ModelApprovalStatus"] == "Approved"
        assert (asked["SortBy"], asked["SortOrder"]) == ("CreationTime", "Descending")
        assert not ParamValidator().validate(asked, shape).has_errors()
    baseline = document["baseline"]
    assert baseline["modelPackageArn"] == arn
    assert baseline["patientsSeenInTraining"] == 0
    assert (baseline["patients"], baseline["cases"]) == (3, 3)
    alone = Evaluated(tmp_path / "alone", WORSE, CHESTS).run()
    assert baseline["metrics"] == alone["metrics"]
    gain = document["metrics"]["mean_dice"] - alone["metrics"]["mean_dice"]
    assert document["gate"]["improvement"] == pytest.approx(gain)
    # More is better in every improvement, whatever the metric.
    assert all(value > 0 for value in baseline["improvement"].values())
    interval = baseline["improvementIntervals"]["mean_hausdorff95_mm"]
    assert 0 < interval["low"] <= baseline["improvement"]["mean_hausdorff95_mm"] <= interval["high"]
    html = (tmp_path / "new" / "evaluation" / "report.html").read_text()
    assert arn in html


def test_a_worse_model_improves_by_less_than_nothing(tmp_path: Path) -> None:
    aws = FakeAws()
    aws.approve(GOOD, tmp_path, trained_on=[case("chest-9", split="train")])
    document = Evaluated(tmp_path / "new", WORSE, CHESTS).run(
        aws=aws, MODEL_PACKAGE_GROUP="lungs", GATE_METRIC="mean_dice"
    )
    assert document["gate"]["improvement"] < -0.1


def test_less_is_better_of_distances() -> None:
    gate = Gate(group="g", metric="mean_hausdorff95_mm", archive_uri=None)
    assert gate.improvement(3.0, 5.0) == 2.0
    assert gate.improvement(3.0, None) == 0.0
    assert Gate(group="g", metric="auc", archive_uri=None).improvement(0.75, 0.5) == 0.25


def test_nothing_approved_yet_is_measured_against_nothing(tmp_path: Path) -> None:
    document = compared(tmp_path, FakeAws())
    assert document["baseline"] is None
    assert document["baselineReason"] == "lungs has no approved model yet"
    assert document["gate"]["improvement"] == document["metrics"]["mean_dice"]


@pytest.mark.parametrize("by", ["record", "manifest"])
def test_patients_that_the_model_in_use_was_trained_on_are_left_out(tmp_path: Path, by: str) -> None:
    aws = FakeAws()
    if by == "record":
        aws.approve(WORSE, tmp_path, train_patients=["patient-of-chest-2", "somebody-else"])
    else:
        trained_on = [case("chest-2", split="train"), case("chest-9", split="train"), case("chest-1")]
        aws.approve(WORSE, tmp_path, trained_on=trained_on)
    document = compared(tmp_path, aws)
    baseline = document["baseline"]
    assert (baseline["patientsSeenInTraining"], baseline["patients"], baseline["cases"]) == (1, 2, 2)
    # Both sides of the comparison are about the same two patients.
    rest = [one["meanDice"] for one in document["cases"] if one["imageSetId"] != "chest-2"]
    assert baseline["candidateMetrics"]["mean_dice"] == pytest.approx(sum(rest) / 2)
    assert document["gate"]["improvement"] == pytest.approx(
        baseline["candidateMetrics"]["mean_dice"] - baseline["metrics"]["mean_dice"]
    )
    html = (tmp_path / "new" / "evaluation" / "report.html").read_text()
    assert "1 patient left out of the comparison" in html


def test_a_model_in_use_that_saw_all_patients_leaves_nothing_to_compare(tmp_path: Path) -> None:
    aws = FakeAws()
    aws.approve(WORSE, tmp_path, train_patients=[one.patient_key for one in CHESTS])
    document = compared(tmp_path, aws)
    assert document["baseline"] is None
    assert "was trained on all 3 patients" in document["baselineReason"]
    assert document["gate"]["improvement"] == document["metrics"]["mean_dice"]


def test_it_is_said_when_nobody_knows_what_the_model_in_use_was_trained_on(tmp_path: Path) -> None:
    aws = FakeAws()
    aws.approve(WORSE, tmp_path, trained_on=[case("chest-1", split="train")])
    (uri,) = (uri for uri in aws.objects if "/manifests/" in uri)
    changed = aws.objects[uri].replace(b'"seed": 1', b'"seed": 2')
    for content, reason in (
        (changed, "its manifest was changed"),
        (None, "cannot be read (GetObject: AccessDenied)"),
    ):
        if content is None:
            del aws.objects[uri]
        else:
            aws.objects[uri] = content
        document = Evaluated(tmp_path / reason[:20], GOOD, CHESTS).run(aws=aws, **GROUP)
        assert document["baseline"]["patientsSeenInTraining"] is None
        assert reason in document["baseline"]["note"]
        # The doubt is in favour of the model in use, so that the comparison stands.
        assert document["baseline"]["patients"] == 3


def remove_model(aws: FakeAws) -> None:
    del aws.objects["s3://models/training/1/model.tar.gz"]


def exchange_model(aws: FakeAws) -> None:
    """Another archive of the very same weights."""
    aws.objects["s3://models/training/1/model.tar.gz"] += b"\0"


def exchange_weights(aws: FakeAws) -> None:
    uri = "s3://models/evaluation/1/evaluation.json"
    evaluation = json.loads(aws.objects[uri])
    aws.objects[uri] = json.dumps({**evaluation, "weights": {"model.ts": "0" * 64}}).encode()


def two_containers(aws: FakeAws) -> None:
    containers = aws.packages[0]["InferenceSpecification"]["Containers"]
    containers.append(containers[0])


def elsewhere(aws: FakeAws) -> None:
    aws.packages[0]["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] = "https://models/m.tar.gz"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove_model, "cannot be fetched: GetObject: AccessDenied"),
        (exchange_model, "is not the one that was evaluated"),
        (exchange_weights, "are not those that its evaluation measured"),
        (two_containers, "does not have one container"),
        (elsewhere, "is not an object in S3"),
    ],
)
def test_a_model_in_use_that_cannot_be_measured_shuts_the_gate(
    tmp_path: Path, spoil: Any, reason: str
) -> None:
    aws = FakeAws()
    arn = aws.approve(WORSE, tmp_path)
    spoil(aws)
    document = compared(tmp_path, aws)
    assert reason in document["baseline"]["error"]
    assert document["baseline"]["modelPackageArn"] in (arn, None)
    assert document["gate"]["improvement"] == COMPARISON_FAILED < -1e6
    # The model's own figures stand.
    assert document["metrics"]["mean_dice"] > 0.9
    html = (tmp_path / "new" / "evaluation" / "report.html").read_text()
    assert "COMPARISON FAILED" in html


def test_a_model_in_use_that_answers_no_numbers_shuts_the_gate(tmp_path: Path) -> None:
    aws = FakeAws()
    arn = aws.approve(NotANumber(), tmp_path)
    document = compared(tmp_path, aws)
    assert document["baseline"]["modelPackageArn"] == arn
    assert "not finite" in document["baseline"]["error"]
    assert document["gate"]["improvement"] == COMPARISON_FAILED


def test_a_model_in_use_whose_own_code_fails_shuts_the_gate(tmp_path: Path) -> None:
    """And the new model is measured all the same: else a broken model would stay in use for ever."""
    aws = FakeAws()
    arn = aws.approve(Refusing(), tmp_path)
    document = compared(tmp_path, aws)
    assert document["baseline"]["modelPackageArn"] == arn
    assert "Image set chest-1: the approved model fails with RuntimeError" in document["baseline"]["error"]
    assert document["gate"]["improvement"] == COMPARISON_FAILED
    assert document["metrics"]["mean_dice"] > 0.9


def test_a_model_in_use_of_another_task_shuts_the_gate(tmp_path: Path) -> None:
    aws = FakeAws()
    aws.approve(Brightness(8), tmp_path, bundle="volume_classification")
    document = compared(tmp_path, aws)
    assert "it does classification, this model segmentation" in document["baseline"]["error"]


def test_a_model_in_use_without_a_value_of_the_metric_shuts_the_gate(tmp_path: Path) -> None:
    """It finds nothing, so that there is no distance: nobody can say which of the two is better."""
    aws = FakeAws()
    aws.approve(Shifted(5.0, 6.0, 0), tmp_path, trained_on=[case("chest-9", split="train")])
    document = compared(tmp_path, aws, GATE_METRIC="mean_hausdorff95_mm")
    assert document["baseline"]["metrics"]["mean_hausdorff95_mm"] is None
    assert document["baseline"]["improvement"]["mean_hausdorff95_mm"] is None
    assert document["gate"]["improvement"] == COMPARISON_FAILED


def test_a_registry_that_does_not_answer_shuts_the_gate(tmp_path: Path) -> None:
    class Denied(FakeAws):
        def list_model_packages(self, **request: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListModelPackages")

    document = compared(tmp_path, Denied())
    assert document["baseline"] == {
        "modelPackageArn": None,
        "error": "The approved packages of lungs cannot be read: ListModelPackages: AccessDeniedException",
    }
    assert document["gate"]["improvement"] == COMPARISON_FAILED
    with pytest.raises(BaselineError):
        newest_approved("lungs", connect=Denied().client)
