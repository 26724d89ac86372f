"""The container of the receiver, and the service that keeps as many of it running as the file says."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.arrival.load_balancer import STOP_SECONDS, ReceiverAddress
from infra.arrival.roles import ReceiverRole, StarterRole
from infra.assets.images import Image
from infra.environment import RECEIVER_PORT, Receiver
from infra.network.placement import Placement

_CONTAINER = "receiver"
_NOBODY = "65534:65534"
"""User and group `nobody`, which every base image has and which owns nothing."""


class ReceiverService(Construct):
    """ECS on Fargate: no machine to patch or to log in to.

    The container writes nothing to its disk, which is read-only: an instance is in memory or in S3. It runs
    as nobody, without capabilities, and nobody can open a shell in it (ECS Exec is off).

    A new version starts beside the old one and takes over when it answers. One that does not come up is
    undone (circuit breaker).
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        receiver: Receiver,
        image: Image,
        variables: Mapping[str, str],
        role: ReceiverRole,
        log_group: logs.CfnLogGroup,
        address: ReceiverAddress,
        placement: Placement,
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            receiver: Of the environment file.
            image: Of package `arrival`.
            variables: What the process is told (arrival/settings.py).
            role: Of the process.
            log_group: For what it prints.
            address: Where it is called.
            placement: Where it runs.
        """
        super().__init__(scope, id)
        starter = StarterRole(self, "Starter", repository=image.repository, log_group=log_group)
        cluster = ecs.CfnCluster(
            self,
            "Cluster",
            cluster_settings=[
                ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enabled")
            ],
        )
        task = ecs.CfnTaskDefinition(
            self,
            "Task",
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(receiver.cpu),
            memory=str(receiver.memory_mib),
            runtime_platform=ecs.CfnTaskDefinition.RuntimePlatformProperty(
                cpu_architecture="X86_64", operating_system_family="LINUX"
            ),
            task_role_arn=role.role_arn,
            execution_role_arn=starter.role_arn,
            container_definitions=[
                _container(
                    image=image, variables=variables, log_group=log_group, region=cdk.Stack.of(self).region
                )
            ],
        )
        service = ecs.CfnService(
            self,
            "Service",
            cluster=cluster.attr_arn,
            task_definition=task.attr_task_definition_arn,
            launch_type="FARGATE",
            desired_count=receiver.tasks,
            enable_execute_command=False,
            # Copies stay in different zones.
            availability_zone_rebalancing="ENABLED",
            deployment_configuration=ecs.CfnService.DeploymentConfigurationProperty(
                minimum_healthy_percent=100,
                maximum_percent=200,
                deployment_circuit_breaker=ecs.CfnService.DeploymentCircuitBreakerProperty(
                    enable=True, rollback=True
                ),
            ),
            health_check_grace_period_seconds=60,
            network_configuration=ecs.CfnService.NetworkConfigurationProperty(
                awsvpc_configuration=ecs.CfnService.AwsVpcConfigurationProperty(
                    subnets=list(placement.subnet_ids),
                    security_groups=[placement.receiver_security_group_id],
                    assign_public_ip="DISABLED",
                )
            ),
            load_balancers=[
                ecs.CfnService.LoadBalancerProperty(
                    container_name=_CONTAINER,
                    container_port=RECEIVER_PORT,
                    target_group_arn=address.targets.attr_target_group_arn,
                )
            ],
        )
        # A target group without a listener takes no targets; a task whose role has no policy yet gives up.
        service.node.add_dependency(address.listener, role.policy, starter.policy)
        self.cluster_name = cluster.ref
        self.name = service.attr_name


def _container(
    *, image: Image, variables: Mapping[str, str], log_group: logs.CfnLogGroup, region: str
) -> ecs.CfnTaskDefinition.ContainerDefinitionProperty:
    definition = ecs.CfnTaskDefinition
    return definition.ContainerDefinitionProperty(
        name=_CONTAINER,
        image=image.uri,
        # The image's entry point is `python -m arrival`.
        command=["receive"],
        essential=True,
        user=_NOBODY,
        privileged=False,
        readonly_root_filesystem=True,
        linux_parameters=definition.LinuxParametersProperty(
            capabilities=definition.KernelCapabilitiesProperty(drop=["ALL"]), init_process_enabled=True
        ),
        environment=[
            definition.KeyValuePairProperty(name=name, value=value)
            for name, value in sorted(variables.items())
        ],
        port_mappings=[definition.PortMappingProperty(container_port=RECEIVER_PORT, protocol="tcp")],
        health_check=definition.HealthCheckProperty(
            command=["CMD", "python", "-m", "arrival", "echo"],
            interval=30,
            timeout=10,
            retries=3,
            start_period=60,
        ),
        stop_timeout=STOP_SECONDS,
        log_configuration=definition.LogConfigurationProperty(
            log_driver="awslogs",
            options={
                "awslogs-group": log_group.ref,
                "awslogs-region": region,
                "awslogs-stream-prefix": _CONTAINER,
                # A log that cannot be written must not keep instances from being received.
                "mode": "non-blocking",
                "max-buffer-size": "25m",
            },
        ),
    )
