"""Stack `training`: a pipeline and a model registry for each task, and the two images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import BUNDLES, CHECKPOINTS, EVALUATION, MANIFESTS, PROMOTED, TRAINING, Buckets
from infra.environment import Environment
from infra.network.placement import Placement
from infra.permissions import (
    join_network,
    lend_key_to_volumes,
    pull_image,
    read_image_sets,
    read_objects,
    read_packages,
    use_key,
    write_objects,
    write_service_logs,
)
from infra.service_logs import ServiceLogGroup
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
        placement: Placement,
        model_readers: Mapping[str, str],
    ) -> None:
        """
        Args:
            model_readers: ARN of the role by which the next environment reads approved packages, of each
                task that it has as well.
        """
        tasks = environment.training.tasks
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

        def job(name: str, *, kind: str, does: str, statements: Sequence[iam.PolicyStatement]) -> Workload:
            """The role of one kind of job: what all of them need, and what only this one does."""
            retain = environment.protection.retain_data
            logs = ServiceLogGroup(
                self,
                kind,
                name=f"/aws/sagemaker/{kind}",
                key=key,
                retention_days=environment.logs.retention_days,
                removal_policy=cdk.RemovalPolicy.RETAIN if retain else cdk.RemovalPolicy.DESTROY,
            )
            return Workload(
                self,
                name,
                description=does,
                principal=service("sagemaker.amazonaws.com", account=self.account),
                statements=[
                    read_image_sets(archive),
                    use_key(key),
                    lend_key_to_volumes(key),
                    *pull_image(training_image.repository),
                    *write_service_logs([logs], metrics=[f"/aws/sagemaker/{kind}"]),
                    *join_network(self, placement),
                    *statements,
                ],
            )

        # Two roles, so that training cannot write the evaluation by which its model is judged, and an
        # evaluation cannot change the model that it judges. A training job can still overwrite the model of
        # an earlier one, because IAM knows no execution: SageMaker puts both below the same prefix with the
        # same role. So the evaluation says which archive it measured (SHA-256), and promotion and comparisons
        # refuse another; the bucket keeps the earlier version, and its trail says who wrote. An endpoint does
        # not look: to close this, the pipeline would have to register a copy that the evaluation makes where
        # training cannot write.
        trainer = job(
            "Trainer",
            kind="TrainingJobs",
            does="Training: read image sets, manifests and bundles, write checkpoints and models",
            statements=[
                *read_objects(buckets.models, MANIFESTS, BUNDLES, CHECKPOINTS),
                write_objects(buckets.models, CHECKPOINTS, TRAINING),
            ],
        )
        evaluator = job(
            "Evaluator",
            kind="ProcessingJobs",
            does="Evaluation: read image sets, manifests, models and what is approved, write metrics",
            statements=[
                # The approved model is judged on the same patients: trained here, or promoted to here; its
                # evaluation says what its archive must hash to, its manifest which patients it has seen.
                *read_objects(buckets.models, MANIFESTS, TRAINING, PROMOTED, EVALUATION),
                write_objects(buckets.models, EVALUATION),
                *read_packages(self, groups=[f"monai-{environment.name}-{t.name}" for t in tasks]),
            ],
        )
        for task in tasks:
            ModelPipeline(
                self,
                task.logical_name,
                environment=environment,
                task=task,
                training_image=training_image,
                inference_image=self.inference_image,
                trainer=trainer,
                evaluator=evaluator,
                buckets=buckets,
                key=key,
                placement=placement,
                model_reader=model_readers.get(task.name),
            )
        for name, role in {"TrainingRoleArn": trainer, "EvaluationRoleArn": evaluator}.items():
            cdk.CfnOutput(self, name, value=role.role_arn)
