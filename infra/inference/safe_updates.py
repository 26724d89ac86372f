"""How an endpoint takes a new model: beside the old one, watched, and undone if an alarm goes off.

https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html: for asynchronous and real-time
endpoints, multi-model ones included; not for serverless ones. Inference components have an update of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker

from infra.inference.alarms import PERIOD_SECONDS

_BAKING_SECONDS = 3 * PERIOD_SECONDS
"""Long enough for an alarm to see two whole periods of the new model."""

_CANARY_SECONDS = 2 * PERIOD_SECONDS

_LIMIT_SECONDS = 3600
"""Machines with their image and their model, and the waiting: what takes longer is undone as well."""


def blue_green(
    alarms: Sequence[cloudwatch.CfnAlarm], *, canary: bool
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    """A second fleet with the new model beside the first one.

    The first fleet stays for a while after it gets no more requests, so that what it works on is finished,
    and so that an alarm in this time finds it still there.

    Args:
        alarms: Any of them undoes the update.
        canary: Send requests to one machine of the new fleet first. It may be half of the fleet at most
            (CanarySize), so this takes two machines.
    """
    shifting = sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
        type="CANARY" if canary else "ALL_AT_ONCE",
        wait_interval_in_seconds=_CANARY_SECONDS if canary else 0,
        canary_size=(
            sagemaker.CfnEndpoint.CapacitySizeProperty(type="INSTANCE_COUNT", value=1) if canary else None
        ),
    )
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(
            alarms=[sagemaker.CfnEndpoint.AlarmProperty(alarm_name=alarm.ref) for alarm in alarms]
        ),
        blue_green_update_policy=sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
            traffic_routing_configuration=shifting,
            termination_wait_in_seconds=_BAKING_SECONDS,
            maximum_execution_timeout_in_seconds=_LIMIT_SECONDS,
        ),
    )


def rolling(
    alarms: Sequence[cloudwatch.CfnAlarm],
) -> sagemaker.CfnInferenceComponent.InferenceComponentDeploymentConfigProperty:
    """Half of an inference component's copies, then the others.

    A batch is 5 to 50 % of the copies (InferenceComponentRollingUpdatePolicy), so this takes two copies.
    """
    component = sagemaker.CfnInferenceComponent
    return component.InferenceComponentDeploymentConfigProperty(
        auto_rollback_configuration=component.AutoRollbackConfigurationProperty(
            alarms=[component.AlarmProperty(alarm_name=alarm.ref) for alarm in alarms]
        ),
        rolling_update_policy=component.InferenceComponentRollingUpdatePolicyProperty(
            maximum_batch_size=component.InferenceComponentCapacitySizeProperty(
                type="CAPACITY_PERCENT", value=50
            ),
            wait_interval_in_seconds=_CANARY_SECONDS,
            maximum_execution_timeout_in_seconds=_LIMIT_SECONDS,
        ),
    )
