"""Mode `multi-model`: many models on the same CPU machines, loaded when they are first asked for."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.environment import MultiModelEndpoint
from infra.inference.approved_model import container_environment
from infra.inference.container_role import ContainerRole
from infra.inference.on_request import logs_and_alarms, serve
from infra.inference.scaling import only_if
from infra.inference.surroundings import Surroundings

MULTI_MODEL = "multi-model/"
"""Prefix of the model bucket below which each multi-model endpoint has its own."""


class MultiModel(Construct):
    """The endpoint `endpoint` of the environment file: every model below its prefix of the model bucket.

    A model is served as soon as its archive (`NAME.tar.gz`) is below the prefix, so who may write there
    decides what patients get: no role of the platform may, no persona's either, and an approved package's
    archive is copied there by somebody who may deploy. All models run in the inference image of this version
    of the repository, since a model package cannot be one of many. A parameter says whether the endpoint
    exists, because there is no package that could.

    CPU only: GPUs need another container than ours
    (https://docs.aws.amazon.com/sagemaker/latest/dg/multi-model-endpoints.html).
    """

    def __init__(
        self, scope: Construct, id: str, *, endpoint: MultiModelEndpoint, surroundings: Surroundings
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        # It publishes the image, which has to be there first.
        stack.add_dependency(cdk.Stack.of(surroundings.image))
        prefix = f"{MULTI_MODEL}{endpoint.name}/"
        enabled = cdk.CfnParameter(
            stack,
            f"{endpoint.logical_name}Enabled",
            type="String",
            default="false",
            allowed_values=["true", "false"],
            description=f"Whether {endpoint.name} exists; put models below {prefix} first",
        )
        self.deployed = cdk.CfnCondition(
            stack,
            f"{endpoint.logical_name}Deployed",
            expression=cdk.Fn.condition_equals(enabled.value_as_string, "true"),
        )
        """Holds while the endpoint is wanted."""
        logs, alarms = logs_and_alarms(self, endpoint, surroundings)
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=endpoint.name,
            models=(prefix,),
            logs=(logs,),
            metrics=("/aws/sagemaker/Endpoints",),
            guards=alarms,
        )
        models = surroundings.buckets.models.s3_url_for_object(prefix)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=container.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=surroundings.image.uri,
                mode="MultiModel",
                model_data_url=models,
                environment=container_environment(surroundings, endpoint=endpoint.name),
            ),
            # Why it is not isolated: approved_model.py.
            enable_network_isolation=False,
            vpc_config=surroundings.placement.of_model(),
        )
        model.node.add_dependency(container.policy)
        only_if(self.deployed, model)
        serve(
            self,
            endpoint,
            surroundings=surroundings,
            model_name=model.attr_model_name,
            logs=logs,
            alarms=alarms,
            deployed=self.deployed,
            # SageMaker prefers the machines that have loaded the model already.
            least_busy=False,
        )
        cdk.CfnOutput(stack, f"{endpoint.logical_name}ModelsS3Uri", value=models)
