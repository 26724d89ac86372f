"""Packages side by side: scores with their intervals, and which of them may be compared."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from training_world import ACCOUNT, evaluation
from typer.testing import CliRunner
from workbench_fakes import FakeS3, deployment

from workbench import main
from workbench.compare import Comparison, compare
from workbench.errors import WorkbenchError

GROUP = f"{ACCOUNT}:model-package/lung-models"


class FakePackages:
    """A registry of versions 1 to 3, the newest first."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def list_model_packages(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        arns = [f"{GROUP}/{number}" for number in (3, 2, 1)]
        return {
            "ModelPackageSummaryList": [{"ModelPackageArn": arn} for arn in arns[: request["MaxResults"]]]
        }

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:
        version = int(ModelPackageName.rpartition("/")[2])
        uri = f"s3://models/evaluation/{version}/evaluation.json"
        return {
            "ModelPackageArn": ModelPackageName,
            "ModelPackageVersion": version,
            "ModelApprovalStatus": "Approved" if version == 1 else "PendingManualApproval",
            "CreationTime": datetime(2026, 1, version, 12, tzinfo=UTC),
            "ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": uri}}},
            "InferenceSpecification": {"Containers": [{"ModelDataUrl": "s3://models/m.tar.gz"}]},
            "CustomerMetadataProperties": {
                "manifestUri": "s3://models/manifests/lungs-1.json",
                "trainingJob": f"job-{version}",
            },
        }


def compared(*packages: str, **documents: dict[str, Any]) -> Comparison:
    objects = {
        f"models/evaluation/{version}/evaluation.json": json.dumps(
            documents.get(f"v{version}", evaluation())
        ).encode()
        for version in (1, 2, 3)
        if documents.get(f"v{version}", {"there": True})
    }
    return compare(deployment(sagemaker=FakePackages(), s3=FakeS3(objects)), packages)


def row(comparison: Comparison, name: str) -> list[str]:
    [found] = [cells[1:] for cells in comparison.table()[1] if cells[0] == name]
    return found


def test_the_newest_stand_side_by_side() -> None:
    comparison = compared()
    assert comparison.table()[0] == ["", "version 3", "version 2", "version 1"]
    assert row(comparison, "status") == ["PendingManualApproval"] * 2 + ["Approved"]
    assert row(comparison, "mean dice") == ["0.93 (0.9 to 0.95)"] * 3
    assert row(comparison, "mean hausdorff95 mm") == ["not defined"] * 3
    assert row(comparison, "measured on") == ["test: 2 patients, held out"] * 3
    assert row(comparison, "training job") == ["job-3", "job-2", "job-1"]
    assert comparison.comparable
    assert comparison.notes() == []


def test_scores_on_other_cases_are_marked() -> None:
    other = {"name": "b.json", "sha256": "b" * 64}
    comparison = compared(v2=evaluation(manifest=other), v3=evaluation(split="validation"))
    assert comparison.groups == ("A", "B", "C")
    assert not comparison.comparable
    assert any("different cases" in note for note in comparison.notes())
    comparison = compared("1", "3", v2=evaluation(manifest=other))
    assert (comparison.groups, comparison.comparable) == (("A", "A"), True)


def test_patients_seen_in_training_are_told() -> None:
    comparison = compared("3", v3=evaluation(heldOut=False, patients=1))
    assert row(comparison, "measured on") == ["test: 1 patient, SEEN IN TRAINING"]
    assert any("seen in training" in note for note in comparison.notes())


def test_a_package_without_its_evaluation_is_shown_and_said() -> None:
    comparison = compared("2", f"{GROUP}/3", v3={})
    assert comparison.groups == ("A", "")
    assert row(comparison, "mean dice") == ["0.93 (0.9 to 0.95)", "-"]
    assert any("version 3" in note and "not there" in note for note in comparison.notes())
    document = json.loads(json.dumps(comparison.to_json()))
    assert [one["measuredOn"] for one in document["packages"]] == ["A", None]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(WorkbenchError, match="no package of task lung-segmentation"):
        compared("newest")
    with pytest.raises(WorkbenchError, match="do not fit"):
        compared(*["1"] * 21)
    empty = FakePackages()
    empty.list_model_packages = lambda **_: {"ModelPackageSummaryList": []}  # type: ignore[method-assign] # one test's registry
    with pytest.raises(WorkbenchError, match="no model package yet") as caught:
        compare(deployment(sagemaker=empty, s3=FakeS3()))
    assert "monai-aws train lung-segmentation" in caught.value.advice


def test_the_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "deployment_of", lambda _env: None)
    monkeypatch.setattr(main, "compare", lambda *_, **__: compared())
    table = CliRunner().invoke(main.app, ["compare"], env={"COLUMNS": "200"})
    assert "0.93 (0.9 to 0.95)" in table.stdout
    document = json.loads(CliRunner().invoke(main.app, ["compare", "--json"]).stdout)
    assert document["comparable"] is True
    assert document["packages"][0]["evaluation"]["intervals"]["mean_dice"]["low"] == 0.9
