"""The SageMaker Pipeline of a task as data: train, evaluate, check the quality, register.

Plain dictionaries in the pipeline definition schema 2020-12-01
(https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/). The
arguments of a step are the request of the API call that it makes; tests hold them against botocore's model of
these calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.environment import Task
from infra.instances import has_local_storage
from infra.training import retries

_METRICS = {"train:loss": r"train_loss=([0-9.eE+-]+)", "validation:mean_dice": r"val_mean_dice=([0-9.eE+-]+)"}
"""What the training container prints, and the metric that SageMaker makes of it."""

_MANIFEST_FOLDER = "/opt/ml/processing/input/manifest"
_MODEL_FOLDER = "/opt/ml/processing/input/model"
_EVALUATION_FOLDER = "/opt/ml/processing/output/evaluation"
_EVALUATION_FILE = "evaluation.json"

_EXECUTION = "Execution.PipelineExecutionId"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a pipeline refers to. Values may be tokens of the CDK."""

    training_image: str
    inference_image: str
    trainer_role_arn: str
    evaluator_role_arn: str
    key_arn: str
    network: Mapping[str, Sequence[str]]
    """Subnets and security groups of the jobs, as SageMaker's VpcConfig."""
    model_package_group_name: str
    training_uri: str
    """`s3://` URI below which training puts models."""
    checkpoint_uri: str
    """`s3://` URI below which each execution keeps the checkpoints of its training."""
    evaluation_uri: str
    """`s3://` URI below which each execution puts its evaluation."""


def pipeline_definition(*, task: Task, around: Surroundings) -> dict[str, Any]:
    """The definition of the pipeline that trains `task`."""
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [
            {"Name": "ManifestUri", "Type": "String"},
            {"Name": "MinimumDice", "Type": "Float", "DefaultValue": task.minimum_dice},
            {
                "Name": "InstanceType",
                "Type": "String",
                "DefaultValue": task.instance_type,
                # Whether a volume key may be named depends on the machine, and only its name is a parameter.
                "EnumValues": [task.instance_type, *task.other_instance_types],
            },
            {"Name": "MaxSteps", "Type": "Integer", "DefaultValue": task.max_steps},
        ],
        "Steps": [
            _train(task=task, around=around),
            _evaluate(task=task, around=around),
            _check_quality(task=task, around=around),
        ],
    }


def _train(*, task: Task, around: Surroundings) -> dict[str, Any]:
    return {
        "Name": "Train",
        "Type": "Training",
        "RetryPolicies": retries.OF_JOBS,
        "Arguments": {
            "AlgorithmSpecification": {
                "TrainingImage": around.training_image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in _METRICS.items()],
            },
            "HyperParameters": {
                "bundle": task.bundle,
                # Hyperparameters are strings; a bare reference to an Integer parameter would arrive as a
                # number.
                "max_steps": _join({"Get": "Parameters.MaxSteps"}),
            },
            "InputDataConfig": [
                {
                    "ChannelName": "manifest",
                    "ContentType": "application/json",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": {"Get": "Parameters.ManifestUri"},
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": around.training_uri, "KmsKeyId": around.key_arn},
            # Of the execution and not of the job: a job that takes the place of one that SageMaker lost, or
            # whose spot machine was taken away, goes on where that one was.
            "CheckpointConfig": {"S3Uri": _join(around.checkpoint_uri, {"Get": _EXECUTION})},
            "ResourceConfig": {
                "InstanceType": {"Get": "Parameters.InstanceType"},
                "InstanceCount": task.instance_count,
                "VolumeSizeInGB": task.volume_size_gib,
                **_volume_key(task.instance_type, around=around),
            },
            **_capacity(task),
            "RoleArn": around.trainer_role_arn,
            "VpcConfig": around.network,
            # Frames come from HealthImaging during training: an isolated container could not read them.
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": True,
        },
    }


def _evaluate(*, task: Task, around: Surroundings) -> dict[str, Any]:
    return {
        "Name": "Evaluate",
        "Type": "Processing",
        "RetryPolicies": retries.OF_JOBS,
        "Arguments": {
            "AppSpecification": {"ImageUri": around.training_image, "ContainerArguments": ["evaluate"]},
            "ProcessingInputs": [
                _input("model", {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}, _MODEL_FOLDER),
                _input("manifest", {"Get": "Parameters.ManifestUri"}, _MANIFEST_FOLDER),
            ],
            "ProcessingOutputConfig": {
                "KmsKeyId": around.key_arn,
                "Outputs": [
                    {
                        "OutputName": "evaluation",
                        "AppManaged": False,
                        "S3Output": {
                            "S3Uri": _evaluation_folder(around),
                            "LocalPath": _EVALUATION_FOLDER,
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ],
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": task.evaluation_instance_type,
                    "InstanceCount": 1,
                    "VolumeSizeInGB": task.volume_size_gib,
                    **_volume_key(task.evaluation_instance_type, around=around),
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": task.max_runtime_minutes * 60},
            "RoleArn": around.evaluator_role_arn,
            "NetworkConfig": {
                "VpcConfig": around.network,
                "EnableNetworkIsolation": False,
                "EnableInterContainerTrafficEncryption": True,
            },
        },
        "PropertyFiles": [
            {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": _EVALUATION_FILE}
        ],
    }


def _check_quality(*, task: Task, around: Surroundings) -> dict[str, Any]:
    dice = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
            "Path": "metrics.mean_dice",
        }
    }
    minimum = {"Get": "Parameters.MinimumDice"}
    return {
        "Name": "CheckQuality",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [{"Type": "GreaterThanOrEqualTo", "LeftValue": dice, "RightValue": minimum}],
            "IfSteps": [_register(around=around)],
            "ElseSteps": [
                {
                    "Name": "Reject",
                    "Type": "Fail",
                    "Arguments": {
                        "ErrorMessage": _join(
                            f"{task.name}: mean Dice of the evaluation is below the required ", minimum
                        )
                    },
                }
            ],
        },
    }


def _register(*, around: Surroundings) -> dict[str, Any]:
    return {
        "Name": "Register",
        "Type": "RegisterModel",
        "RetryPolicies": retries.OF_REQUESTS,
        "Arguments": {
            "ModelPackageGroupName": around.model_package_group_name,
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [
                    {
                        "Image": around.inference_image,
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
                        "S3Uri": _join(_evaluation_folder(around), f"/{_EVALUATION_FILE}"),
                    }
                }
            },
            "CustomerMetadataProperties": {"manifestUri": {"Get": "Parameters.ManifestUri"}},
        },
    }


def _evaluation_folder(around: Surroundings) -> dict[str, Any]:
    return _join(around.evaluation_uri, {"Get": _EXECUTION})


def _join(*values: str | Mapping[str, Any]) -> dict[str, Any]:
    """The values as one string; joins within joins are made flat, which is easier to read in the console."""
    flat: list[Any] = []
    for value in values:
        inner = value.get("Std:Join") if isinstance(value, Mapping) else None
        flat.extend(inner["Values"] if inner else [value])
    return {"Std:Join": {"On": "", "Values": flat}}


def _input(name: str, uri: Any, folder: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "AppManaged": False,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": folder,
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
            "S3CompressionType": "None",
        },
    }


def _volume_key(instance_type: str, *, around: Surroundings) -> dict[str, str]:
    return {} if has_local_storage(instance_type) else {"VolumeKmsKeyId": around.key_arn}


def _capacity(task: Task) -> dict[str, Any]:
    """How long training may take, and on what kind of capacity. The environment file has a wait with spot
    capacity, and only there.
    """
    runtime = {"MaxRuntimeInSeconds": task.max_runtime_minutes * 60}
    if task.max_wait_minutes is None:
        return {"StoppingCondition": runtime}
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {**runtime, "MaxWaitTimeInSeconds": task.max_wait_minutes * 60},
    }
