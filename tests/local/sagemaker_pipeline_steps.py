"""The pipeline of the tests: its container's program, its role's rights, its definition."""

from __future__ import annotations

from typing import Any

from sagemaker_workbench import Workbench

PROGRAM = """
import json, os, pathlib, sys, tarfile, time
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
if sys.argv[1] == "train":
    parameters = json.loads((base / "input/config/hyperparameters.json").read_text())
    if parameters["max_steps"] == "999":
        time.sleep(120)
    manifest = json.loads((base / "input/data/manifest/m.json").read_text())
    (base / "model/weights.json").write_text(json.dumps(manifest))
    print("train_loss=0.25")
elif sys.argv[1] == "evaluate":
    with tarfile.open(base / "processing/input/model/model.tar.gz") as tar:
        weights = json.loads(tar.extractfile("weights.json").read())
    assert (base / "config/processingjobconfig.json").exists()
    out = base / "processing/output/evaluation"
    document = {"metrics": {"mean_dice": weights["dice"]}, **weights.get("evaluation", {})}
    (out / "evaluation.json").write_text(json.dumps(document))
else:
    sys.exit(f"unknown {sys.argv}")
"""


def pipeline_statements(bench: Workbench) -> list[dict[str, Any]]:
    """What the role of a pipeline needs."""
    arn = "arn:aws:sagemaker:*:*"
    return [
        {
            "Effect": "Allow",
            "Action": [
                "sagemaker:CreateTrainingJob",
                "sagemaker:DescribeTrainingJob",
                "sagemaker:StopTrainingJob",
            ],
            "Resource": f"{arn}:training-job/pipelines-*",
        },
        {
            "Effect": "Allow",
            "Action": [
                "sagemaker:CreateProcessingJob",
                "sagemaker:DescribeProcessingJob",
                "sagemaker:StopProcessingJob",
            ],
            "Resource": f"{arn}:processing-job/pipelines-*",
        },
        {
            "Effect": "Allow",
            "Action": ["sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage"],
            "Resource": f"{arn}:model-package/{bench.name}*/*",
        },
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": bench.role,
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bench.bucket}/*"},
    ]


def definition(bench: Workbench, image: str, group: str) -> dict[str, Any]:
    """The product's pipeline in small."""
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}
    train = {
        "Name": "Train",
        "Type": "Training",
        "Arguments": {
            "AlgorithmSpecification": {
                "TrainingImage": image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "train_loss=([0-9.]+)"}],
            },
            "HyperParameters": {"bundle": "ct", "max_steps": {"Get": "Parameters.MaxSteps"}},
            "InputDataConfig": [
                {
                    "ChannelName": "manifest",
                    "DataSource": {
                        "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": {"Get": "Parameters.ManifestUri"}}
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": bench.uri("training/")},
            "ResourceConfig": {**cluster, "InstanceType": {"Get": "Parameters.InstanceType"}},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "RoleArn": bench.role,
        },
    }
    evaluation = {
        "Std:Join": {"On": "/", "Values": [bench.uri("evaluation"), {"Get": "Execution.PipelineExecutionId"}]}
    }
    evaluate = {
        "Name": "Evaluate",
        "Type": "Processing",
        "Arguments": {
            "AppSpecification": {"ImageUri": image, "ContainerArguments": ["evaluate"]},
            "ProcessingResources": {"ClusterConfig": cluster},
            "ProcessingInputs": [
                {
                    "InputName": "model",
                    "S3Input": {
                        "S3Uri": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"},
                        "LocalPath": "/opt/ml/processing/input/model",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                }
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "evaluation",
                        "S3Output": {
                            "S3Uri": evaluation,
                            "LocalPath": "/opt/ml/processing/output/evaluation",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
            "RoleArn": bench.role,
        },
        "PropertyFiles": [
            {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}
        ],
    }
    dice = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
            "Path": "metrics.mean_dice",
        }
    }
    statistics = "Steps.Evaluate.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri"
    check = {
        "Name": "CheckQuality",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {
                    "Type": "GreaterThanOrEqualTo",
                    "LeftValue": dice,
                    "RightValue": {"Get": "Parameters.MinimumDice"},
                }
            ],
            "IfSteps": [
                {
                    "Name": "Register",
                    "Type": "RegisterModel",
                    "Arguments": {
                        "ModelPackageGroupName": group,
                        "ModelApprovalStatus": "PendingManualApproval",
                        "InferenceSpecification": {
                            "Containers": [
                                {
                                    "Image": image,
                                    "ModelDataUrl": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"},
                                }
                            ],
                            "SupportedContentTypes": ["application/json"],
                            "SupportedResponseMIMETypes": ["application/json"],
                        },
                        "ModelMetrics": {
                            "ModelQuality": {
                                "Statistics": {
                                    "ContentType": "application/json",
                                    "S3Uri": {
                                        "Std:Join": {
                                            "On": "/",
                                            "Values": [{"Get": statistics}, "evaluation.json"],
                                        }
                                    },
                                }
                            }
                        },
                    },
                }
            ],
            "ElseSteps": [
                {
                    "Name": "Fail",
                    "Type": "Fail",
                    "Arguments": {
                        "ErrorMessage": {
                            "Std:Join": {
                                "On": "",
                                "Values": [
                                    "mean Dice ",
                                    dice,
                                    " is below ",
                                    {"Get": "Parameters.MinimumDice"},
                                ],
                            }
                        }
                    },
                }
            ],
        },
    }
    return {
        "Version": "2020-12-01",
        "Parameters": [
            {"Name": "ManifestUri", "Type": "String"},
            {"Name": "MinimumDice", "Type": "Float", "DefaultValue": 0.8},
            {"Name": "InstanceType", "Type": "String", "DefaultValue": "ml.m5.large"},
            {"Name": "MaxSteps", "Type": "Integer", "DefaultValue": 120},
        ],
        "Steps": [train, evaluate, check],
    }
