"""A trainer for the tests of training jobs, and the request that starts it."""

from __future__ import annotations

from typing import Any

from sagemaker_workbench import Workbench, wait_for

TRAINER = """
import json, os, pathlib, signal, sys, time
import boto3

base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
parameters = json.loads((base / "input/config/hyperparameters.json").read_text())
if sys.argv[1:] != ["train"]:
    sys.exit(f"arguments {sys.argv[1:]}")
mode = parameters.get("mode", "work")
print("mode", mode, "greeting", os.environ["GREETING"], "job", os.environ["TRAINING_JOB_NAME"])
if mode == "fail":
    (base / "output/failure").write_text("the labels are upside down " * 100)
    sys.exit(3)
if mode == "crash":
    raise SystemExit("no such luck")
if mode == "denied":
    try:
        boto3.client("s3").get_object(Bucket=parameters["bucket"], Key="secret/x")
    except Exception as error:
        (base / "output/failure").write_text(str(error))
        sys.exit(1)
if mode == "sleep":
    signal.signal(signal.SIGTERM, lambda *_: ((base / "model/stopped").write_text("yes"), sys.exit(0)))
    print("sleeping")
    time.sleep(120)
for step in (1, 2):
    print(f"step={step} train_loss={1 / step}")
(base / "checkpoints/last.pt").write_text("weights")
seen = {"files": sorted(str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()),
        "environment": sorted(os.environ), "path": sys.path, "cwd": os.getcwd(),
        "who": boto3.client("sts").get_caller_identity()["Arn"],
        "channels": json.loads((base / "input/config/inputdataconfig.json").read_text()),
        "resources": json.loads((base / "input/config/resourceconfig.json").read_text())}
(base / "model/seen.json").write_text(json.dumps(seen))
(base / "output/data/curve.csv").write_text("1,1.0")
"""


def request(bench: Workbench, image: str, name: str, **parameters: str) -> dict[str, Any]:
    """A training job as the pipelines make it."""
    return {
        "TrainingJobName": f"{bench.name}-{name}",
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "train:loss", "Regex": "train_loss=([0-9.eE+-]+)"}],
        },
        "RoleArn": bench.role,
        "HyperParameters": parameters,
        "OutputDataConfig": {"S3OutputPath": bench.uri("training/")},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def finished(bench: Workbench, name: str) -> dict[str, Any]:
    """Wait for the end of a job and describe it."""

    def check() -> Any:
        job = bench.sagemaker.describe_training_job(TrainingJobName=name)
        return job if job["TrainingJobStatus"] not in ("InProgress", "Stopping") else None

    return dict(wait_for(check))
