"""A training pipeline without a cloud: its definition, and executions that go through stages."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from workbench_fakes import FakePaginator

from healthimaging.manifest import Case, Manifest, Split
from healthimaging.reference import ImageSetRef

ACCOUNT = "arn:aws:sagemaker:us-east-1:000000000000"
EXECUTION = f"{ACCOUNT}:pipeline/lung-pipeline/execution/abc"
PACKAGE = f"{ACCOUNT}:model-package/lung-models/3"
JOB = f"{ACCOUNT}:training-job/job-1"
BEGIN = datetime(2026, 1, 2, 3, 4, 5)
TRAIN = {"Metadata": {"TrainingJob": {"Arn": JOB}}}
MANIFEST_URI = "s3://models/manifests/a.json"
EVALUATION_KEY = "models/evaluation/abc/evaluation.json"


def _condition(path: str, parameter: str) -> dict[str, Any]:
    file = {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"}
    return {
        "Type": "GreaterThanOrEqualTo",
        "LeftValue": {"Std:JsonGet": {"PropertyFile": file, "Path": path}},
        "RightValue": {"Get": f"Parameters.{parameter}"},
    }


def definition(image: str = "training:1") -> dict[str, Any]:
    """The parts of a pipeline definition that the workbench reads."""
    folder = {"Std:Join": {"On": "/", "Values": ["s3://models/evaluation", {"Get": _EXECUTION_ID}]}}
    return {
        "Parameters": [
            {"Name": "ManifestUri", "Type": "String"},
            {"Name": "Run", "Type": "String"},
            {"Name": "Bundle", "Type": "String", "DefaultValue": "ct_segmentation"},
            {"Name": "Overrides", "Type": "String", "DefaultValue": "{}"},
            {"Name": "MaxSteps", "Type": "Integer", "DefaultValue": 140},
            {"Name": "MinimumScore", "Type": "Float", "DefaultValue": 0.85},
            {"Name": "MinimumImprovement", "Type": "Float", "DefaultValue": 0.0},
            {"Name": "RequireHeldOut", "Type": "Integer", "DefaultValue": 1},
            {
                "Name": "InstanceType",
                "Type": "String",
                "DefaultValue": "ml.a",
                "EnumValues": ["ml.a", "ml.b"],
            },
        ],
        "Steps": [
            {
                "Name": "Train",
                "Arguments": {
                    "AlgorithmSpecification": {"TrainingImage": image},
                    "HyperParameters": {
                        "bundle": {"Get": "Parameters.Bundle"},
                        "overrides": {"Get": "Parameters.Overrides"},
                        "max_steps": {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.MaxSteps"}]}},
                        "batch_size": "2",
                    },
                    "InputDataConfig": [{"S3Uri": {"Get": "Parameters.ManifestUri"}}],
                    "CheckpointConfig": {"S3Uri": {"Get": "Parameters.Run"}},
                    "ResourceConfig": {
                        "InstanceType": {"Get": "Parameters.InstanceType"},
                        "InstanceCount": 1,
                    },
                },
            },
            {
                "Name": "Evaluate",
                "Arguments": {"ProcessingOutputConfig": {"Outputs": [{"S3Output": {"S3Uri": folder}}]}},
            },
            {
                "Name": "CheckQuality",
                "Arguments": {
                    "Conditions": [
                        _condition("gate.heldOut", "RequireHeldOut"),
                        _condition("metrics.mean_dice", "MinimumScore"),
                        _condition("gate.improvement", "MinimumImprovement"),
                    ]
                },
            },
        ],
    }


_EXECUTION_ID = "Execution.PipelineExecutionId"


class FakePipeline:
    """An execution that goes through `stages`, one per look."""

    def __init__(
        self, stages: list[tuple[str, list[dict[str, Any]]]] | None = None, *, image: str = "training:1"
    ) -> None:
        self.stages = stages or [("Succeeded", [])]
        self.image = image
        self.started: dict[str, Any] = {}
        self.stopped = ""
        self.executions: list[dict[str, Any]] = []
        """What runs, or ran, besides."""

    @property
    def parameters(self) -> dict[str, str]:
        return {one["Name"]: one["Value"] for one in self.started["PipelineParameters"]}

    def describe_pipeline(self, **_: Any) -> dict[str, Any]:
        return {"PipelineDefinition": json.dumps(definition(self.image))}

    def start_pipeline_execution(self, **request: Any) -> dict[str, Any]:
        self.started = request
        return {"PipelineExecutionArn": EXECUTION}

    def stop_pipeline_execution(self, *, PipelineExecutionArn: str, **_: Any) -> None:
        self.stopped = PipelineExecutionArn

    def describe_pipeline_execution(self, **_: Any) -> dict[str, Any]:
        if len(self.stages) > 1:
            self.stages.pop(0)
        return {"PipelineExecutionStatus": self.stages[0][0], "FailureReason": "a step failed"}

    def describe_model_package(self, **_: Any) -> dict[str, Any]:
        return {
            "ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": f"s3://{EVALUATION_KEY}"}}},
            "ModelCard": {"ModelCardStatus": "Draft"},
        }

    def get_paginator(self, name: str) -> FakePaginator:
        if name == "list_pipeline_executions":
            return FakePaginator(lambda **_: [{"PipelineExecutionSummaries": self.executions}])
        if name == "list_pipeline_parameters_for_execution":
            given = self.started.get("PipelineParameters", [])
            return FakePaginator(lambda **_: [{"PipelineParameters": given}])
        assert name == "list_pipeline_execution_steps"
        return FakePaginator(lambda **_: [{"PipelineExecutionSteps": self.stages[0][1]}])


def step(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "StepName": name,
        "StepStatus": status,
        "StartTime": BEGIN,
        "EndTime": BEGIN + timedelta(seconds=30),
        **more,
    }


def succeeded() -> list[tuple[str, list[dict[str, Any]]]]:
    """The stages of a training that registers a package."""
    return [
        ("Executing", []),
        ("Executing", [step("Train", "Executing", **TRAIN)]),
        (
            "Succeeded",
            [
                step("Train", "Succeeded", **TRAIN),
                step("Register", "Succeeded", Metadata={"RegisterModel": {"Arn": PACKAGE}}),
            ],
        ),
    ]


def manifest(*splits: Split) -> bytes:
    """A manifest with one patient for each of `splits`."""
    cases = tuple(
        Case(
            patient_key=f"{number:016}",
            split=split,
            image=ImageSetRef(datastore_id="d" * 32, image_set_id=f"{number:032}", version_id="1"),
        )
        for number, split in enumerate(splits)
    )
    made = Manifest(query="SELECT", datastore_id="d" * 32, seed=0, cases=cases)
    return made.to_json().encode()


def evaluation(**more: Any) -> dict[str, Any]:
    """An evaluation.json of two held-out patients."""
    return {
        "schema": "monai-on-aws/evaluation/2",
        "task": "segmentation",
        "bundle": {"name": "ct_segmentation", "version": "0.1.0"},
        "weights": {"model.pt": "e" * 64, "model.ts": "f" * 64},
        "manifest": {"name": "a.json", "sha256": "a" * 64},
        "split": "test",
        "heldOut": True,
        "heldOutReason": "The training used none of these patients",
        "patients": 2,
        "metrics": {"mean_dice": 0.93, "mean_hausdorff95_mm": None},
        "intervals": {
            "mean_dice": {"low": 0.9, "high": 0.95, "level": 0.95, "method": "percentile"},
            "mean_hausdorff95_mm": None,
        },
        "gate": {"heldOut": 1, "improvement": 0.02},
        "baseline": {
            "modelPackageArn": f"{ACCOUNT}:model-package/lung-models/1",
            "metrics": {"mean_dice": 0.91},
        },
        "cases": [{}, {}, {}],
        **more,
    }
