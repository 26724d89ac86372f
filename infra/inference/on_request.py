"""What the modes have in common that answer while the caller waits: alarms, updates, scaling by requests."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.environment import MultiModelEndpoint, RealTimeEndpoint
from infra.inference.alarms import SYNCHRONOUS, guard, of_variant
from infra.inference.endpoint_logs import container_logs
from infra.inference.machines import configuration, endpoint_on, variant
from infra.inference.safe_updates import blue_green
from infra.inference.scaling import follow, instances_of, only_if
from infra.inference.surroundings import Surroundings
from infra.service_logs import ServiceLogGroup


def logs_and_alarms(
    scope: Construct, endpoint: RealTimeEndpoint | MultiModelEndpoint, surroundings: Surroundings
) -> tuple[ServiceLogGroup, list[cloudwatch.CfnAlarm]]:
    """What is there before a model is: the log group and the alarms of the endpoint."""
    name = endpoint.endpoint_name(surroundings.environment.name)
    logs = container_logs(scope, "Logs", name=f"Endpoints/{name}", surroundings=surroundings)
    alarms = guard(
        scope,
        named=endpoint.name,
        dimensions=of_variant(name),
        watches=SYNCHRONOUS,
        topic=surroundings.alarm_topic,
    )
    return logs, alarms


def serve(
    scope: Construct,
    endpoint: RealTimeEndpoint | MultiModelEndpoint,
    *,
    surroundings: Surroundings,
    model_name: str,
    logs: ServiceLogGroup,
    alarms: list[cloudwatch.CfnAlarm],
    deployed: cdk.CfnCondition,
    least_busy: bool,
) -> None:
    """Configuration, endpoint and scaling by requests: what exists while a model is deployed."""
    environment = surroundings.environment.name
    settings = configuration(
        scope,
        variant=variant(endpoint, model_name=model_name, least_busy=least_busy),
        surroundings=surroundings,
    )
    served = endpoint_on(
        scope,
        endpoint=endpoint,
        environment=environment,
        configuration=settings,
        deployment=blue_green(alarms, canary=endpoint.minimum_instances >= 2),
        # An update at the busiest hour must not begin with the machines of the quietest.
        keep_instances=True,
    )
    served.node.add_dependency(logs.resource)
    target = instances_of(
        scope,
        endpoint_name=endpoint.endpoint_name(environment),
        minimum=endpoint.minimum_instances,
        maximum=endpoint.maximum_instances,
    )
    target.node.add_dependency(served)
    by_requests = follow(
        scope,
        "ByRequests",
        target=target,
        name="invocations-per-instance",
        value=endpoint.invocations_per_instance,
        predefined="SageMakerVariantInvocationsPerInstance",
    )
    only_if(deployed, settings, served, target, by_requests)
    cdk.CfnOutput(
        cdk.Stack.of(scope),
        f"{endpoint.logical_name}EndpointName",
        value=served.attr_endpoint_name,
        condition=deployed,
    )
