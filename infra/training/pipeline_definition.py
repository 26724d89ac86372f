"""The SageMaker Pipeline of a task as data: train, evaluate, check the quality, register.

Plain dictionaries in the pipeline definition schema 2020-12-01
(https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/). The
arguments of a step are the request of the API call that it makes; tests hold them against botocore's model of
these calls.
"""

from __future__ import annotations

from typing import Any

from infra.environment import Task
from infra.instances import has_local_storage
from infra.training import retries
from infra.training.references import join, of_step, parameter
from infra.training.registration import check_quality
from infra.training.surroundings import EVALUATION_FILE, Surroundings

_NUMBER = "=([0-9.eE+-]+)"
_METRICS = {
    "train:loss": "train_loss",
    "train:input_wait_share": "input_wait_share",
    "train:seconds_per_step": "seconds_per_step",
}
"""The metric that SageMaker makes of what the training container prints as NAME=NUMBER."""

_TRAIN_CACHE = "P30D"
"""How old a training may be that is taken in place of the same again. Its checkpoints stay as long."""

_MANIFEST_FOLDER = "/opt/ml/processing/input/manifest"
_MODEL_FOLDER = "/opt/ml/processing/input/model"
_EVALUATION_FOLDER = "/opt/ml/processing/output/evaluation"


def pipeline_definition(*, task: Task, around: Surroundings) -> dict[str, Any]:
    """The definition of the pipeline that trains `task`."""
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": [
            {"Name": "ManifestUri", "Type": "String"},
            # Names the checkpoints, so that the same training goes on where it was, whoever starts it again
            # (workbench/training derives it from all that training depends on).
            {"Name": "Run", "Type": "String"},
            {"Name": "Bundle", "Type": "String", "DefaultValue": task.bundle},
            {"Name": "Overrides", "Type": "String", "DefaultValue": "{}"},
            {"Name": "MaxSteps", "Type": "Integer", "DefaultValue": task.max_steps},
            {"Name": "MinimumScore", "Type": "Float", "DefaultValue": task.minimum_score},
            # Not worse than what is approved.
            {"Name": "MinimumImprovement", "Type": "Float", "DefaultValue": 0.0},
            # 1: a score on patients that training has seen registers nothing.
            {"Name": "RequireHeldOut", "Type": "Integer", "DefaultValue": 1},
            {
                "Name": "InstanceType",
                "Type": "String",
                "DefaultValue": task.instance_type,
                # Whether a volume key may be named depends on the machine, and only its name is a parameter.
                "EnumValues": [task.instance_type, *task.other_instance_types],
            },
        ],
        "Steps": [
            _train(task=task, around=around),
            _evaluate(task=task, around=around),
            check_quality(task=task, around=around),
        ],
    }


def _train(*, task: Task, around: Surroundings) -> dict[str, Any]:
    return {
        "Name": "Train",
        "Type": "Training",
        # A training with the same arguments is not done twice, and judging it otherwise needs no other one.
        # What must be equal: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html
        "CacheConfig": {"Enabled": True, "ExpireAfter": _TRAIN_CACHE},
        "RetryPolicies": retries.OF_JOBS,
        "Arguments": {
            "AlgorithmSpecification": {
                "TrainingImage": around.training_image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": name, "Regex": f"{printed}{_NUMBER}"}
                    for name, printed in {
                        **_METRICS,
                        f"validation:{task.metric}": f"val_{task.metric}",
                    }.items()
                ],
            },
            "HyperParameters": {
                "bundle": parameter("Bundle"),
                "overrides": parameter("Overrides"),
                # Hyperparameters are strings; a bare reference to an Integer parameter would arrive as a
                # number.
                "max_steps": join(parameter("MaxSteps")),
                **task.hyperparameters,
            },
            # Part of what the exported model says about its origin.
            "Environment": {"TRAINING_IMAGE": around.training_image},
            "InputDataConfig": [
                {
                    "ChannelName": "manifest",
                    "ContentType": "application/json",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": parameter("ManifestUri"),
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": around.training_uri, "KmsKeyId": around.key_arn},
            # Of the run and not of the job: a job that takes the place of one that SageMaker lost, or whose
            # spot machine was taken away, goes on where that one was. So does another execution of the run.
            "CheckpointConfig": {"S3Uri": join(around.checkpoint_uri, parameter("Run"), "/")},
            "ResourceConfig": {
                "InstanceType": parameter("InstanceType"),
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
    """Never cached: it compares with the model that is approved now."""
    return {
        "Name": "Evaluate",
        "Type": "Processing",
        "RetryPolicies": retries.OF_JOBS,
        "Arguments": {
            "AppSpecification": {"ImageUri": around.training_image, "ContainerArguments": ["evaluate"]},
            "Environment": {
                "MODEL_PACKAGE_GROUP": around.model_package_group_name,
                "GATE_METRIC": task.metric,
                "MODEL_ARCHIVE_URI": of_step("Train", "ModelArtifacts.S3ModelArtifacts"),
            },
            "ProcessingInputs": [
                _input("model", of_step("Train", "ModelArtifacts.S3ModelArtifacts"), _MODEL_FOLDER),
                _input("manifest", parameter("ManifestUri"), _MANIFEST_FOLDER),
            ],
            "ProcessingOutputConfig": {
                "KmsKeyId": around.key_arn,
                "Outputs": [
                    {
                        "OutputName": "evaluation",
                        "AppManaged": False,
                        "S3Output": {
                            "S3Uri": around.evaluation_folder,
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
            {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": EVALUATION_FILE}
        ],
    }


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
