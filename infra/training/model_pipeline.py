"""One task's way to a registered model: pipeline, model package group, and the role that runs the
pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.assets.images import Image
from infra.data.buckets import CHECKPOINTS, EVALUATION, TRAINING, Buckets
from infra.environment import Environment, Task
from infra.instances import has_local_storage
from infra.network.placement import Placement
from infra.permissions import read_with_key
from infra.retention import unless_creation_fails
from infra.training.package_reader import package_reader_policy
from infra.training.pipeline_definition import pipeline_definition
from infra.training.surroundings import Surroundings
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
        evaluator: Workload,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        model_reader: str | None,
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            environment: Says what the pipeline is called, and whether its models are kept.
            task: What is trained.
            training_image: Trains and evaluates.
            inference_image: Serves the registered model.
            trainer: The role of training jobs.
            evaluator: The role of evaluation jobs.
            buckets: Where manifests are, and models and evaluations go.
            key: For all that is stored, and for volumes that have no hardware encryption.
            placement: Where jobs run.
            model_reader: ARN of the role by which the next environment reads approved packages.
        """
        super().__init__(scope, id)
        name = f"monai-{environment.name}-{task.name}"
        # Name and description are create-only: constant, so that approved models never lose their group.
        group = sagemaker.CfnModelPackageGroup(
            self,
            "Models",
            model_package_group_name=name,
            model_package_group_policy=(
                package_reader_policy(cdk.Stack.of(self), group=name, role_arn=model_reader)
                if model_reader
                else None
            ),
        )
        group.apply_removal_policy(
            unless_creation_fails(
                cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
            )
        )
        runner = self._runner(
            name=name,
            task=task,
            jobs_run_as=[trainer, evaluator],
            buckets=buckets,
            key=key,
            placement=placement,
        )
        definition = pipeline_definition(
            task=task,
            around=Surroundings(
                training_image=training_image.uri,
                inference_image=inference_image.uri,
                trainer_role_arn=trainer.role_arn,
                evaluator_role_arn=evaluator.role_arn,
                key_arn=key.key_arn,
                network=placement.of_job(),
                model_package_group_name=name,
                training_uri=buckets.models.s3_url_for_object(TRAINING),
                checkpoint_uri=buckets.models.s3_url_for_object(f"{CHECKPOINTS}{task.name}/"),
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
        pipeline.node.add_dependency(group, runner.policy, trainer.policy, evaluator.policy)
        stack = cdk.Stack.of(self)
        for output, value in {"PipelineName": name, "ModelPackageGroupName": name}.items():
            cdk.CfnOutput(stack, f"{task.logical_name}{output}", value=value)

    def _runner(
        self,
        *,
        name: str,
        task: Task,
        jobs_run_as: Sequence[Workload],
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
    ) -> Workload:
        """The role of the pipeline itself.

        It can start jobs only as the definition does: in the network, encrypted, on the task's machines. So
        a definition that somebody has edited in the console starts nothing that is not. Condition keys:
        https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
        """
        stack = cdk.Stack.of(self)

        def arn(resource: str, resource_name: str) -> str:
            return stack.format_arn(service="sagemaker", resource=resource, resource_name=resource_name)

        def as_defined(*instance_types: str) -> dict[str, Any]:
            return _in_network_and_encrypted(instance_types, key=key, placement=placement)

        # SageMaker names the jobs of a pipeline "pipelines-<execution>-<step>-<random>".
        training_jobs = arn("training-job", "pipelines-*")
        processing_jobs = arn("processing-job", "pipelines-*")
        group, packages = arn("model-package-group", name), arn("model-package", f"{name}/*")
        return Workload(
            self,
            "Runner",
            description=f"Pipeline {name}: start its jobs, read the evaluation, register the model",
            principal=service("sagemaker.amazonaws.com", account=stack.account),
            statements=[
                allow(
                    "sagemaker:CreateTrainingJob",
                    on=[training_jobs],
                    when=as_defined(task.instance_type, *task.other_instance_types),
                ),
                allow(
                    "sagemaker:CreateProcessingJob",
                    on=[processing_jobs],
                    when=as_defined(task.evaluation_instance_type),
                ),
                allow("sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob", on=[training_jobs]),
                allow("sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob", on=[processing_jobs]),
                # Whatever a pipeline registers waits for a person.
                allow(
                    "sagemaker:CreateModelPackage",
                    on=[group, packages],
                    when={"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}},
                ),
                allow("sagemaker:DescribeModelPackage", on=[packages]),
                # A pipeline tags what it makes with its own ARN.
                allow("sagemaker:AddTags", on=[training_jobs, processing_jobs, group, packages]),
                allow(
                    "iam:PassRole",
                    on=[job.role_arn for job in jobs_run_as],
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


def _in_network_and_encrypted(
    instance_types: Sequence[str], *, key: kms.IKey, placement: Placement
) -> dict[str, Any]:
    """Conditions that a request for a job fulfils only in the platform's network, with traffic, results and
    volumes encrypted, on these machines.
    """
    lists = {
        "sagemaker:VpcSubnets": list(placement.subnet_ids),
        "sagemaker:VpcSecurityGroupIds": [placement.security_group_id],
        "sagemaker:InstanceTypes": list(instance_types),
    }
    keys = {"sagemaker:OutputKmsKey": key.key_arn}
    # A task's machines all have local storage, or all have not; with it, a volume key is refused.
    if not has_local_storage(instance_types[0]):
        keys["sagemaker:VolumeKmsKey"] = key.key_arn
    return {
        "ForAllValues:StringEquals": lists,
        # "All values" holds of a request that has none.
        "Null": dict.fromkeys(lists, "false"),
        "ArnEquals": keys,
        "Bool": {"sagemaker:InterContainerTrafficEncryption": "true"},
    }
