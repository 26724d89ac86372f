"""Stack `network`: where every workload runs, without a way to the internet."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.environment import Environment
from infra.network.default_group import ClosedDefaultGroup
from infra.network.endpoint_policies import Lender
from infra.network.endpoints import ServiceEndpoints
from infra.network.flow_log import FlowLog
from infra.network.placement import Placement
from infra.network.security_groups import EndpointGroup, NotebookGroup, ReceiverGroup, WorkloadGroup


class NetworkStack(cdk.Stack):
    """The platform's own VPC with isolated subnets in several zones; or, in a VPC that is there already, the
    security groups and, if the environment says so, the endpoints.
    """

    def __init__(
        self, scope: Construct, *, environment: Environment, key: kms.IKey, lender: Lender | None
    ) -> None:
        """
        Args:
            lender: The environment whose approved models come here; its account is the only other one that
                anything in the network may read from.
        """
        super().__init__(
            scope,
            "network",
            stack_name=f"monai-{environment.name}-network",
            description="MONAI on AWS: isolated network, endpoints of services",
        )
        self._zones = list(environment.network.availability_zones)
        self._lender = lender
        existing = environment.network.existing
        if existing is None:
            vpc = self._own_vpc(environment, key)
            self.placement = self._connect(
                vpc_id=vpc.vpc_id,
                subnet_ids=[subnet.subnet_id for subnet in vpc.isolated_subnets],
                route_table_ids=[subnet.route_table.route_table_id for subnet in vpc.isolated_subnets],
                make_endpoints=True,
            )
        else:
            self.placement = self._connect(
                vpc_id=existing.vpc_id,
                subnet_ids=existing.subnet_ids,
                route_table_ids=existing.route_table_ids,
                make_endpoints=existing.make_endpoints,
                endpoint_cidrs=existing.endpoint_cidrs,
            )
        for name, value in {
            "VpcId": self.placement.vpc_id,
            "SubnetIds": cdk.Fn.join(",", list(self.placement.subnet_ids)),
            "WorkloadSecurityGroupId": self.placement.security_group_id,
        }.items():
            cdk.CfnOutput(self, name, value=value)
        self._export()

    @property
    def availability_zones(self) -> list[str]:
        """Zones of the environment file: asking the account for them would need credentials."""
        return self._zones

    def _own_vpc(self, environment: Environment, key: kms.IKey) -> ec2.Vpc:
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(environment.network.cidr or ""),
            max_azs=len(self._zones),
            nat_gateways=0,
            create_internet_gateway=False,
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
            ],
        )
        FlowLog(
            self,
            "FlowLog",
            vpc_id=vpc.vpc_id,
            key=key,
            retention_days=environment.logs.retention_days,
            removal_policy=(
                cdk.RemovalPolicy.RETAIN if environment.protection.retain_data else cdk.RemovalPolicy.DESTROY
            ),
        )
        ClosedDefaultGroup(
            self,
            "DefaultGroup",
            group_id=vpc.vpc_default_security_group,
            key=key,
            environment=environment,
        )
        return vpc

    def _connect(
        self,
        *,
        vpc_id: str,
        subnet_ids: Sequence[str],
        route_table_ids: Sequence[str],
        make_endpoints: bool,
        endpoint_cidrs: Sequence[str] = (),
    ) -> Placement:
        """Security groups, and endpoints that only workloads can reach."""
        endpoints = EndpointGroup(self, "Endpoints", vpc_id=vpc_id) if make_endpoints else None
        workloads = WorkloadGroup(
            self,
            "Workloads",
            vpc_id=vpc_id,
            endpoint_group_id=endpoints.id if endpoints else None,
            endpoint_cidrs=endpoint_cidrs,
        )
        notebooks = NotebookGroup(
            self,
            "Notebooks",
            vpc_id=vpc_id,
            endpoint_group_id=endpoints.id if endpoints else None,
            endpoint_cidrs=endpoint_cidrs,
        )
        receiver = ReceiverGroup(
            self,
            "Receiver",
            vpc_id=vpc_id,
            endpoint_group_id=endpoints.id if endpoints else None,
            endpoint_cidrs=endpoint_cidrs,
        )
        if endpoints:
            endpoints.admit(workloads, notebooks, receiver)
            ServiceEndpoints(
                self,
                "Services",
                vpc_id=vpc_id,
                subnet_ids=subnet_ids,
                route_table_ids=route_table_ids,
                security_group_id=endpoints.id,
                lender=self._lender,
            )
        return Placement(
            vpc_id=vpc_id,
            subnet_ids=subnet_ids,
            security_group_id=workloads.id,
            notebook_security_group_id=notebooks.id,
            receiver_security_group_id=receiver.id,
        )

    def _export(self) -> None:
        """Export what other stacks import, whether one of them does at the moment or not (see the stack
        `data`).
        """
        for value in (
            self.placement.vpc_id,
            *self.placement.subnet_ids,
            self.placement.security_group_id,
            self.placement.notebook_security_group_id,
            self.placement.receiver_security_group_id,
        ):
            # The ids of an existing VPC are known: nobody imports them.
            if cdk.Token.is_unresolved(value):
                self.export_value(value)
