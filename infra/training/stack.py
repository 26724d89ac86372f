"""Stack `training`: a pipeline and a model registry for each task, and the two images."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import EVALUATION, MANIFESTS, TRAINING, Buckets
from infra.environment import Environment
from infra.permissions import (
    lend_key_to_volumes,
    pull_image,
    read_image_sets,
    read_objects,
    use_key,
    write_objects,
    write_sagemaker_logs,
)
from infra.training.model_pipeline import ModelPipeline
from infra.workload import Workload, service


class TrainingStack(cdk.Stack):
    """From a dataset manifest to a model package that waits for approval."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
    ) -> None:
        super().__init__(
            scope,
            "training",
            stack_name=f"monai-{environment.name}-training",
            description="MONAI on AWS: training pipelines, model package groups, images",
        )
        training_image = Image(
            self, "TrainingImage", package="training", base=environment.images.training_base
        )
        self.inference_image = Image(
            self,
            "InferenceImage",
            package="runtime",
            base=environment.images.inference_base,
            without=("runtime/functions",),
        )
        trainer = Workload(
            self,
            "Trainer",
            description="Training and evaluation: read image sets and manifests, write models and metrics",
            principal=service("sagemaker.amazonaws.com", account=self.account),
            statements=[
                read_image_sets(archive),
                *read_objects(buckets.models, MANIFESTS, TRAINING),
                write_objects(buckets.models, TRAINING, EVALUATION),
                use_key(key),
                lend_key_to_volumes(key),
                *pull_image(training_image.repository),
                *write_sagemaker_logs(self, "TrainingJobs", "ProcessingJobs"),
            ],
        )
        for task in environment.training.tasks:
            ModelPipeline(
                self,
                task.logical_name,
                environment=environment,
                task=task,
                training_image=training_image,
                inference_image=self.inference_image,
                trainer=trainer,
                buckets=buckets,
                key=key,
            )
        cdk.CfnOutput(self, "TrainingRoleArn", value=trainer.role_arn)
