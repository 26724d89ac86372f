"""Mode `serverless`: no machines of one's own, no network of one's own, no patient data."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.data.buckets import PROMOTED, TRAINING
from infra.environment import ServerlessEndpoint
from infra.inference.alarms import SYNCHRONOUS, VARIANT, guard, of_variant
from infra.inference.approved_model import ApprovedModel
from infra.inference.container_role import ContainerRole
from infra.inference.endpoint_logs import container_logs
from infra.inference.machines import configuration
from infra.inference.scaling import only_if
from infra.inference.surroundings import Surroundings


class Serverless(Construct):
    """The endpoint `endpoint` of the environment file, for the model package given at deployment.

    Such an endpoint cannot be in a VPC
    (https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html), so the environment file may
    name one only where it says that there is no patient data. It scales by itself, and an update of it cannot
    be guarded by alarms; they notify.
    """

    def __init__(
        self, scope: Construct, id: str, *, endpoint: ServerlessEndpoint, surroundings: Surroundings
    ) -> None:
        super().__init__(scope, id)
        environment = surroundings.environment
        if environment.protection.patient_data:
            raise ValueError(f"{environment.name}: {endpoint.name} is serverless, and there is patient data")
        name = endpoint.endpoint_name(environment.name)
        logs = container_logs(self, "Logs", name=f"Endpoints/{name}", surroundings=surroundings)
        guard(
            self,
            named=endpoint.name,
            dimensions=of_variant(name),
            watches=SYNCHRONOUS,
            topic=surroundings.alarm_topic,
        )
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=endpoint.name,
            models=(TRAINING, PROMOTED),
            logs=(logs,),
            metrics=("/aws/sagemaker/Endpoints",),
            inside_network=False,
        )
        model = ApprovedModel(
            self,
            "Approved",
            name=endpoint.logical_name,
            endpoint=endpoint.name,
            serves=endpoint.name,
            container=container,
            surroundings=surroundings,
            inside_network=False,
        )
        self.deployed = model.deployed
        """Holds while a model is deployed."""
        settings = configuration(
            self,
            variant=sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                variant_name=VARIANT,
                model_name=model.model_name,
                initial_variant_weight=1,
                serverless_config=sagemaker.CfnEndpointConfig.ServerlessConfigProperty(
                    memory_size_in_mb=endpoint.memory_mib, max_concurrency=endpoint.maximum_concurrency
                ),
            ),
            surroundings=surroundings,
        )
        served = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=name,
            endpoint_config_name=settings.attr_endpoint_config_name,
        )
        served.node.add_dependency(logs.resource)
        only_if(self.deployed, settings, served)
        cdk.CfnOutput(
            cdk.Stack.of(self),
            f"{endpoint.logical_name}EndpointName",
            value=served.attr_endpoint_name,
            condition=self.deployed,
        )
