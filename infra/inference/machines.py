"""Endpoints on machines: their configuration, and the endpoint that runs it.

Requests and answers are never captured (DataCaptureConfig): they name image sets of patients, and a second
place that collects them would need the protection of the first. What the audit trail needs, CloudTrail has.
"""

from __future__ import annotations

from typing import Protocol

from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.inference.alarms import VARIANT
from infra.inference.surroundings import Surroundings
from infra.instances import CUDA_13_AMI, has_nvidia_gpu

STARTUP_SECONDS = 600
"""A container loads its model, a network of up to a gigabyte, before it answers /ping."""


class OnMachines(Protocol):
    """What is read of an endpoint's section in the environment file."""

    @property
    def instance_type(self) -> str: ...

    @property
    def minimum_instances(self) -> int: ...

    def endpoint_name(self, environment: str) -> str: ...


def variant(
    endpoint: OnMachines,
    *,
    model_name: str | None,
    managed: sagemaker.CfnEndpointConfig.ManagedInstanceScalingProperty | None = None,
    least_busy: bool = False,
) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
    """The one production variant.

    Args:
        endpoint: The section of the environment file.
        model_name: None for inference components, which bring their models.
        managed: How SageMaker itself adds and removes machines: for inference components.
        least_busy: Send a request to the machine with the fewest, not to any: segmentation takes seconds, and
            a container works on one request at a time.
    """
    machine = endpoint.instance_type
    return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
        variant_name=VARIANT,
        model_name=model_name,
        instance_type=machine,
        # An endpoint is created with an instance; scaling takes it to its minimum.
        initial_instance_count=max(1, endpoint.minimum_instances),
        initial_variant_weight=None if model_name is None else 1,
        container_startup_health_check_timeout_in_seconds=STARTUP_SECONDS,
        model_data_download_timeout_in_seconds=STARTUP_SECONDS,
        inference_ami_version=CUDA_13_AMI if has_nvidia_gpu(machine) else None,
        managed_instance_scaling=managed,
        routing_config=(
            sagemaker.CfnEndpointConfig.RoutingConfigProperty(routing_strategy="LEAST_OUTSTANDING_REQUESTS")
            if least_busy
            else None
        ),
    )


def configuration(
    scope: Construct,
    *,
    variant: sagemaker.CfnEndpointConfig.ProductionVariantProperty,
    surroundings: Surroundings,
    asynchronous: sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty | None = None,
    execution_role_arn: str | None = None,
    vpc: sagemaker.CfnEndpointConfig.VpcConfigProperty | None = None,
) -> sagemaker.CfnEndpointConfig:
    """An endpoint's configuration. Has no name: each of its properties is create-only."""
    return sagemaker.CfnEndpointConfig(
        scope,
        "Configuration",
        # On machines with local disks this covers the storage volume only; their hardware encrypts the
        # disks (KmsKeyId of CreateEndpointConfig).
        kms_key_id=surroundings.key.key_arn,
        production_variants=[variant],
        async_inference_config=asynchronous,
        execution_role_arn=execution_role_arn,
        vpc_config=vpc,
    )


def endpoint_on(
    scope: Construct,
    *,
    endpoint: OnMachines,
    environment: str,
    configuration: sagemaker.CfnEndpointConfig,
    deployment: sagemaker.CfnEndpoint.DeploymentConfigProperty | None,
    keep_instances: bool | None = None,
) -> sagemaker.CfnEndpoint:
    """The endpoint. It has a name, so that alarms, log groups and roles can know it beforehand.

    UpdateEndpoint fails if it changes the instance type of an endpoint that scales
    (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html). Name and id contain the
    type: another type is another endpoint, made before the old one is deleted, so the stack's output changes
    only when the new one serves. Callers read the output for each piece of work; who still has the old name
    then gets an error. Requests that the old endpoint is working on, or that wait in its queue, are lost
    with it: change a machine when the backlog is empty, or send again what is not answered. A new model is an
    update in place and loses nothing.

    Args:
        scope: Parent.
        endpoint: The section of the environment file.
        environment: Name of the environment.
        configuration: What it runs.
        deployment: How it is updated.
        keep_instances: Whether an update keeps the number of machines to which the endpoint has scaled, and
            does not start again with the initial one.
    """
    return sagemaker.CfnEndpoint(
        scope,
        f"Endpoint-{endpoint.instance_type}",
        endpoint_name=endpoint.endpoint_name(environment),
        endpoint_config_name=configuration.attr_endpoint_config_name,
        deployment_config=deployment,
        retain_all_variant_properties=keep_instances,
    )
