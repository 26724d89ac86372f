"""One task's way to a registered model: pipeline, model package group, and the role that runs the
pipeline.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.assets.images import Image
from infra.data.buckets import EVALUATION, TRAINING, Buckets
from infra.environment import Environment, Task
from infra.permissions import read_with_key
from infra.training.pipeline_definition import Surroundings, pipeline_definition
from infra.workload import Workload, allow, service


class ModelPipeline(Construct):
    """Trains, evaluates, checks and registers models of `task`."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        task: Task,
        training_image: Image,
        inference_image: Image,
        trainer: Workload,
        buckets: Buckets,
        key: kms.IKey,
    ) -> None:
        super().__init__(scope, id)
        name = f"monai-{environment.name}-{task.name}"
        # Name and description are create-only: constant, so that approved models never lose their group.
        group = sagemaker.CfnModelPackageGroup(self, "Models", model_package_group_name=name)
        group.apply_removal_policy(
            cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
        )
        runner = self._runner(name=name, trainer=trainer, buckets=buckets, key=key)
        definition = pipeline_definition(
            task=task,
            around=Surroundings(
                training_image=training_image.uri,
                inference_image=inference_image.uri,
                role_arn=trainer.role_arn,
                key_arn=key.key_arn,
                model_package_group_name=name,
                training_uri=buckets.models.s3_url_for_object(TRAINING),
                evaluation_uri=buckets.models.s3_url_for_object(EVALUATION),
            ),
        )
        pipeline = sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name=name,
            pipeline_display_name=name,
            pipeline_description=f"Trains, evaluates and registers {task.name}",
            pipeline_definition={"PipelineDefinitionBody": cdk.Stack.of(self).to_json_string(definition)},
            role_arn=runner.role_arn,
        )
        pipeline.node.add_dependency(group, runner.policy, trainer.policy)
        stack = cdk.Stack.of(self)
        for output, value in {"PipelineName": name, "ModelPackageGroupName": name}.items():
            cdk.CfnOutput(stack, f"{task.logical_name}{output}", value=value)

    def _runner(self, *, name: str, trainer: Workload, buckets: Buckets, key: kms.IKey) -> Workload:
        stack = cdk.Stack.of(self)

        def arn(resource: str, resource_name: str) -> str:
            return stack.format_arn(service="sagemaker", resource=resource, resource_name=resource_name)

        # SageMaker names the jobs of a pipeline "pipelines-<execution>-<step>-<random>".
        training_jobs = arn("training-job", "pipelines-*")
        processing_jobs = arn("processing-job", "pipelines-*")
        packages = [arn("model-package-group", name), arn("model-package", f"{name}/*")]
        return Workload(
            self,
            "Runner",
            description=f"Pipeline {name}: start its jobs, read the evaluation, register the model",
            principal=service("sagemaker.amazonaws.com", account=stack.account),
            statements=[
                allow(
                    "sagemaker:CreateTrainingJob",
                    "sagemaker:DescribeTrainingJob",
                    "sagemaker:StopTrainingJob",
                    on=[training_jobs],
                ),
                allow(
                    "sagemaker:CreateProcessingJob",
                    "sagemaker:DescribeProcessingJob",
                    "sagemaker:StopProcessingJob",
                    on=[processing_jobs],
                ),
                allow("sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage", on=packages),
                # A pipeline tags what it makes with its own ARN.
                allow("sagemaker:AddTags", on=[training_jobs, processing_jobs, *packages]),
                allow(
                    "iam:PassRole",
                    on=[trainer.role_arn],
                    when={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
                ),
                # The condition reads the evaluation; registering looks whether the model is there.
                allow(
                    "s3:GetObject",
                    on=[buckets.models.arn_for_objects(f"{prefix}*") for prefix in (TRAINING, EVALUATION)],
                ),
                read_with_key(key),
            ],
        )
