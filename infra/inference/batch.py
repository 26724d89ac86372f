"""Mode `batch`: a model for batch transform jobs, which are started by hand and leave nothing running."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from constructs import Construct

from infra.data.buckets import PROMOTED, REQUESTS, RESPONSES, TRAINING
from infra.environment import BatchTransform
from infra.inference.approved_model import ApprovedModel
from infra.inference.container_role import ContainerRole
from infra.inference.surroundings import Surroundings
from infra.instances import BATCH_GPU_AMI, has_local_storage, has_nvidia_gpu
from infra.permissions import read_objects, write_objects
from infra.service_logs import ServiceLogGroup

_REQUEST_SECONDS = 3600
"""SageMaker's limit for one request of a transform job."""


class Batch(Construct):
    """The model `transform` of the environment file, and the request that starts a job with it.

    A job reads requests, one in each object below the input prefix, and writes an answer for each of them. It
    runs with the model's role. The stack's output `...TransformJob` is a whole CreateTransformJob request but
    for the job's name:

        aws sagemaker create-transform-job --transform-job-name NAME --cli-input-json "$OUTPUT"

    SageMaker offers batch jobs drivers up to 535, which CUDA 13 does not run on; environment files that ask
    for both are refused.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        transform: BatchTransform,
        surroundings: Surroundings,
        logs: ServiceLogGroup,
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            transform: The section of the environment file.
            surroundings: The rest of the platform.
            logs: The log group of all transform jobs.
        """
        super().__init__(scope, id)
        results = surroundings.buckets.results
        requests, answers = (f"{prefix}batch/{transform.name}/" for prefix in (REQUESTS, RESPONSES))
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=transform.name,
            models=(TRAINING, PROMOTED),
            logs=(logs,),
            metrics=("/aws/sagemaker/TransformJobs",),
            also=(*read_objects(results, requests), write_objects(results, answers)),
        )
        model = ApprovedModel(
            self,
            "Approved",
            name=transform.logical_name,
            endpoint=transform.name,
            serves=transform.name,
            container=container,
            surroundings=surroundings,
        )
        self.deployed = model.deployed
        """Holds while a model is deployed."""
        machine, key_arn = transform.instance_type, surroundings.key.key_arn
        resources: dict[str, Any] = {"InstanceType": machine, "InstanceCount": transform.instance_count}
        if not has_local_storage(machine):
            # "You can't request a VolumeKmsKeyId when using an instance type with local storage"
            # (TransformResources); the hardware of those encrypts their disks.
            resources["VolumeKmsKeyId"] = key_arn
        if has_nvidia_gpu(machine):
            resources["TransformAmiVersion"] = BATCH_GPU_AMI
        stack = cdk.Stack.of(self)
        job = {
            "ModelName": model.model_name,
            "BatchStrategy": "SingleRecord",
            "MaxConcurrentTransforms": 1,
            "MaxPayloadInMB": 1,
            "ModelClientConfig": {
                "InvocationsTimeoutInSeconds": _REQUEST_SECONDS,
                "InvocationsMaxRetries": 1,
            },
            "TransformInput": {
                "ContentType": "application/json",
                "SplitType": "None",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": results.s3_url_for_object(requests),
                    }
                },
            },
            "TransformOutput": {
                "Accept": "application/json",
                "S3OutputPath": results.s3_url_for_object(answers),
                "KmsKeyId": key_arn,
            },
            "TransformResources": resources,
        }
        for name, value in {"ModelName": model.model_name, "TransformJob": stack.to_json_string(job)}.items():
            cdk.CfnOutput(stack, f"{transform.logical_name}{name}", value=value, condition=self.deployed)
