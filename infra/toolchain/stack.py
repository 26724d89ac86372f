"""Stack `toolchain`: a pipeline that deploys the platform to every environment of `delivery.toml`, in their
order, from one assembly.
"""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_iam as iam
from aws_cdk import pipelines
from constructs import Construct

from infra.environment import Delivery
from infra.platform import Platform
from infra.promotion.names import TOOLING_CHECKS_ROLE, role_arn, verification_role_name
from infra.toolchain.artifacts import Artifacts
from infra.toolchain.image_scan import lookup_role_arn
from infra.toolchain.stack_parameters import CONFIGURATION, inference_stack
from infra.toolchain.steps import (
    BUILD_IMAGE,
    RUNTIMES,
    approval,
    cdk_version,
    environment_check,
    image_scan,
    kept_parameters,
    kept_parameters_objects,
    synthesis,
)
from infra.workload import Workload, allow

CDK_ASSETS_VERSION = "4.7.3"
"""Publishes files and images of the assembly (npm package cdk-assets)."""


class ToolchainStack(cdk.Stack):
    """Source, tests and synthesis, itself, images and files, then one stage an environment.

    The stages are children of the app and not of this stack, so that their templates are to the letter those
    that `cdk deploy -c env=NAME` makes.
    """

    def __init__(self, scope: Construct, *, delivery: Delivery, platforms: Sequence[Platform]) -> None:
        tooling = delivery.tooling
        super().__init__(
            scope,
            "toolchain",
            stack_name="monai-toolchain",
            description="MONAI on AWS: delivery pipeline",
            env=cdk.Environment(account=tooling.account, region=tooling.region),
            termination_protection=True,
        )
        self.artifacts = Artifacts(self, "Artifacts")
        self.kept_parameters = [kept_parameters_objects(platform.environment) for platform in platforms]
        """Keys of the only artifacts that a check may write."""
        source = pipelines.CodePipelineSource.connection(
            delivery.source.repository,
            delivery.source.branch,
            connection_arn=delivery.source.connection_arn,
        )
        synth = synthesis(source)
        defaults = pipelines.CodeBuildOptions(
            build_environment=codebuild.BuildEnvironment(
                build_image=BUILD_IMAGE, compute_type=codebuild.ComputeType.MEDIUM
            ),
            partial_build_spec=RUNTIMES,
            logging=codebuild.LoggingOptions(
                cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=self.artifacts.builds)
            ),
        )
        pipeline = pipelines.CodePipeline(
            self,
            "Pipeline",
            synth=synth,
            artifact_bucket=self.artifacts.bucket,
            cross_account_keys=True,
            pipeline_type=codepipeline.PipelineType.V2,
            self_mutation=True,
            cli_version=cdk_version(),
            cdk_assets_cli_version=CDK_ASSETS_VERSION,
            code_build_defaults=defaults,
            # One build for the images: what the accounts get is one image, not one build each of one recipe.
            publish_assets_in_parallel=False,
            use_pipeline_role_for_actions=True,
        )
        checks = self._checks(platforms)
        for platform in platforms:
            environment = platform.environment
            scan = image_scan(environment, source=source, assembly=synth, role=checks.role)
            before: list[pipelines.Step] = [scan]
            if environment.name in delivery.approval_before:
                before.append(approval(environment, after=scan))
            before.append(
                kept_parameters(
                    environment, source=source, assembly=synth, role=checks.role, after=before[-1]
                )
            )
            pipeline.add_stage(
                platform,
                pre=before,
                post=[environment_check(environment, source=source, role=checks.role)],
            )
        pipeline.build_pipeline()
        self.pipeline = pipeline.pipeline
        for platform in platforms:
            self._keep_parameters(platform.environment.name)
        # The CDK allows `codestar-connections:UseConnection`. For a connection with `codeconnections` in its
        # ARN that is not enough: the action's service has to be the one of the ARN
        # (https://docs.aws.amazon.com/dtconsole/latest/userguide/rename.html).
        self.pipeline.add_to_role_policy(
            allow("codeconnections:UseConnection", on=[delivery.source.connection_arn])
        )
        cdk.CfnOutput(self, "PipelineName", value=self.pipeline.pipeline_name)

    def _keep_parameters(self, environment: str) -> None:
        """Give the stack `inference` the parameters that it has. The CDK's stages take none, so the rendered
        actions are completed.
        """
        resource = self.pipeline.node.default_child
        if not isinstance(resource, codepipeline.CfnPipeline):
            raise TypeError(f"{self.pipeline.node.path} has no pipeline resource")
        names = [stage.stage_name for stage in self.pipeline.stages]
        actions = self.pipeline.stages[names.index(environment)].actions
        place = [action.action_properties.action_name for action in actions]
        (artifact,) = actions[place.index(f"{environment}-parameters")].action_properties.outputs or []
        prepare = place.index(f"{inference_stack(environment)}.Prepare")
        path = f"Stages.{names.index(environment)}.Actions.{prepare}"
        resource.add_property_override(f"{path}.InputArtifacts.1.Name", artifact.artifact_name)
        resource.add_property_override(
            f"{path}.Configuration.TemplateConfiguration", f"{artifact.artifact_name}::{CONFIGURATION}"
        )

    def _checks(self, platforms: Sequence[Platform]) -> Workload:
        """As whom environments are checked: it becomes one of two roles in each account, both of which only
        look.
        """
        there = [
            arn
            for environment in (platform.environment for platform in platforms)
            for arn in (
                lookup_role_arn(environment.aws.account, environment.aws.region),
                role_arn(environment.aws.account, verification_role_name(environment.name)),
            )
        ]
        return Workload(
            self,
            "Checks",
            name=TOOLING_CHECKS_ROLE,
            description="Image scan and integration test: become the roles of the environments that look",
            principal=iam.ServicePrincipal("codebuild.amazonaws.com"),
            statements=[
                allow("sts:AssumeRole", on=there),
                # What a build of a pipeline needs: its input, and where to write what it prints
                # (https://docs.aws.amazon.com/codebuild/latest/userguide/setting-up-service-role.html).
                allow("s3:GetBucketAcl", "s3:GetBucketLocation", on=[self.artifacts.bucket.bucket_arn]),
                allow("s3:GetObject", "s3:GetObjectVersion", on=[self.artifacts.bucket.arn_for_objects("*")]),
                # And its output: the steps that keep parameters have one. Nothing of the assembly, which is
                # beside it.
                allow(
                    "s3:PutObject",
                    on=[self.artifacts.bucket.arn_for_objects(objects) for objects in self.kept_parameters],
                ),
                allow("kms:Decrypt", "kms:GenerateDataKey", on=[self.artifacts.key.key_arn]),
                allow("logs:CreateLogStream", "logs:PutLogEvents", on=[self.artifacts.builds.log_group_arn]),
            ],
        )
