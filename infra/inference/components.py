"""Mode `inference-components`: several models on the same machines, each with its share of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.data.buckets import PROMOTED, TRAINING
from infra.environment import ComponentEndpoint, ModelComponent
from infra.inference.alarms import SYNCHRONOUS, VARIANT, guard, of_component
from infra.inference.approved_model import ApprovedModel
from infra.inference.container_role import ContainerRole
from infra.inference.endpoint_logs import container_logs
from infra.inference.machines import STARTUP_SECONDS, configuration, endpoint_on, variant
from infra.inference.safe_updates import rolling
from infra.inference.scaling import follow, only_if, wake
from infra.inference.surroundings import Surroundings
from infra.service_logs import ServiceLogGroup


class Components(Construct):
    """The endpoint `endpoint` of the environment file, for the model packages given at deployment.

    SageMaker adds machines when copies of models do not fit, and removes those that have none; each model's
    copies follow its own requests. The endpoint is there as long as one of its models is deployed.

    A new package of a model is a rolling update of its component. The endpoint itself changes only with its
    machines, in SageMaker's default way and without alarms, which are the components'.
    """

    def __init__(
        self, scope: Construct, id: str, *, endpoint: ComponentEndpoint, surroundings: Surroundings
    ) -> None:
        super().__init__(scope, id)
        environment = surroundings.environment.name
        logs = container_logs(
            self, "Logs", name=f"Endpoints/{endpoint.endpoint_name(environment)}", surroundings=surroundings
        )
        watched = [
            _Watched(self, model.logical_name, endpoint=endpoint, model=model, surroundings=surroundings)
            for model in endpoint.models
        ]
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=endpoint.name,
            models=(TRAINING, PROMOTED),
            logs=(logs, *(one.logs for one in watched)),
            metrics=("/aws/sagemaker/Endpoints", "/aws/sagemaker/InferenceComponents"),
            guards=[alarm for one in watched for alarm in one.alarms],
        )
        approved = [
            ApprovedModel(
                one,
                "Approved",
                name=f"{endpoint.logical_name}{one.model.logical_name}",
                endpoint=endpoint.name,
                serves=one.name,
                container=container,
                surroundings=surroundings,
            )
            for one in watched
        ]
        self.deployed = _any_of(self, endpoint, [one.deployed for one in approved])
        """Holds while at least one model is deployed."""
        served = self._host(endpoint, surroundings=surroundings, container=container)
        served.node.add_dependency(logs.resource)
        for one, model in zip(watched, approved, strict=True):
            one.put(model, on=served)
        cdk.CfnOutput(
            cdk.Stack.of(self),
            f"{endpoint.logical_name}EndpointName",
            value=served.attr_endpoint_name,
            condition=self.deployed,
        )

    def _host(
        self, endpoint: ComponentEndpoint, *, surroundings: Surroundings, container: ContainerRole
    ) -> sagemaker.CfnEndpoint:
        """The machines, as yet without a model."""
        placement = surroundings.placement
        settings = configuration(
            self,
            variant=variant(
                endpoint,
                model_name=None,
                managed=sagemaker.CfnEndpointConfig.ManagedInstanceScalingProperty(
                    status="ENABLED",
                    min_instance_count=endpoint.minimum_instances,
                    max_instance_count=endpoint.maximum_instances,
                ),
                least_busy=True,
            ),
            surroundings=surroundings,
            execution_role_arn=container.role_arn,
            vpc=sagemaker.CfnEndpointConfig.VpcConfigProperty(
                subnets=list(placement.subnet_ids), security_group_ids=[placement.security_group_id]
            ),
        )
        settings.node.add_dependency(container.policy)
        served = endpoint_on(
            self,
            endpoint=endpoint,
            environment=surroundings.environment.name,
            configuration=settings,
            deployment=None,
        )
        only_if(self.deployed, settings, served)
        return served


class _Watched(Construct):
    """One model of the endpoint: first what is there without a package, then its component."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        endpoint: ComponentEndpoint,
        model: ModelComponent,
        surroundings: Surroundings,
    ) -> None:
        super().__init__(scope, id)
        self.model = model
        self._endpoint = endpoint
        self.name = endpoint.component_name(surroundings.environment.name, model)
        self.logs: ServiceLogGroup = container_logs(
            self, "Logs", name=f"InferenceComponents/{self.name}", surroundings=surroundings
        )
        self.alarms: list[cloudwatch.CfnAlarm] = guard(
            self,
            named=f"{endpoint.name} ({model.task})",
            dimensions=of_component(self.name),
            watches=SYNCHRONOUS,
            topic=surroundings.alarm_topic,
        )

    def put(self, approved: ApprovedModel, *, on: sagemaker.CfnEndpoint) -> None:
        """Run the model on an endpoint.

        Id and name contain the endpoint's machine, because a component cannot move to another endpoint.
        """
        properties = sagemaker.CfnInferenceComponent
        component = properties(
            self,
            f"Component-{self._endpoint.instance_type}",
            inference_component_name=self.name,
            endpoint_name=on.attr_endpoint_name,
            variant_name=VARIANT,
            specification=properties.InferenceComponentSpecificationProperty(
                model_name=approved.model_name,
                compute_resource_requirements=properties.InferenceComponentComputeResourceRequirementsProperty(
                    number_of_accelerator_devices_required=self.model.accelerators or None,
                    min_memory_required_in_mb=self.model.memory_mib,
                ),
                startup_parameters=properties.InferenceComponentStartupParametersProperty(
                    container_startup_health_check_timeout_in_seconds=STARTUP_SECONDS,
                    model_data_download_timeout_in_seconds=STARTUP_SECONDS,
                ),
            ),
            runtime_config=properties.InferenceComponentRuntimeConfigProperty(copy_count=self.model.copies),
            # With a single copy, SageMaker's default: the new one beside the old one, which goes when the
            # new one answers /ping.
            deployment_config=rolling(self.alarms) if self.model.copies >= 2 else None,
        )
        component.node.add_dependency(self.logs.resource)
        target = scaling.CfnScalableTarget(
            self,
            "Copies",
            service_namespace="sagemaker",
            resource_id=f"inference-component/{self.name}",
            scalable_dimension="sagemaker:inference-component:DesiredCopyCount",
            # Machines can only go when no model has a copy on them.
            min_capacity=self.model.copies if self._endpoint.minimum_instances else 0,
            max_capacity=self.model.maximum_copies,
        )
        target.node.add_dependency(component)
        by_requests = follow(
            self,
            "ByRequests",
            target=target,
            name="invocations-per-copy",
            value=self.model.invocations_per_copy,
            predefined="SageMakerInferenceComponentInvocationsPerCopy",
        )
        only_if(approved.deployed, component, target, by_requests)
        if not self._endpoint.minimum_instances:
            # https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html. The
            # requests that wake it are refused: callers try again for some minutes.
            waking = wake(
                self,
                target=target,
                named=f"{self._endpoint.name} ({self.model.task})",
                metric="NoCapacityInvocationFailures",
                statistic="Sum",
                dimensions=of_component(self.name),
            )
            only_if(approved.deployed, *waking)
        cdk.CfnOutput(
            cdk.Stack.of(self),
            f"{self._endpoint.logical_name}{self.model.logical_name}ComponentName",
            value=self.name,
            condition=approved.deployed,
        )


def _any_of(
    scope: Construct, endpoint: ComponentEndpoint, conditions: Sequence[cdk.CfnCondition]
) -> cdk.CfnCondition:
    """That one of them holds. In pairs: CloudFormation takes 2 to 10 conditions at once."""
    each = [cast(cdk.ICfnConditionExpression, condition) for condition in conditions]
    either = reduce(lambda one, other: cdk.Fn.condition_or(one, other), each)
    return cdk.CfnCondition(cdk.Stack.of(scope), f"{endpoint.logical_name}Deployed", expression=either)
