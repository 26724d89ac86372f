"""Security groups: what workloads and endpoints may say to each other."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

S3_PREFIX_LISTS: dict[str, str] = {
    "us-east-1": "pl-63a5400a",
    "us-west-2": "pl-68a54001",
    "eu-west-1": "pl-6da54004",
    "eu-west-2": "pl-7ca54015",
    "ap-southeast-2": "pl-6ca54005",
}
"""AWS's own list of the addresses of S3 in a region, `com.amazonaws.REGION.s3`. It belongs to AWS, has the
same id in every account and never changes it; asking for it would need credentials at synthesis.

`aws ec2 describe-managed-prefix-lists` says it. A wrong id fails the deployment, so it cannot go unnoticed.
"""

_TLS = 443
_NOWHERE = ec2.CfnSecurityGroup.EgressProperty(
    ip_protocol="tcp",
    from_port=1,
    to_port=1,
    cidr_ip="127.0.0.1/32",
    description="Nothing. A group without a rule would get one that allows everything",
)


class WorkloadGroup(Construct):
    """The group of every workload: TLS to the endpoints of services and to S3, and whatever they like among
    themselves.

    Machines of one training job talk on ports that they choose, encrypted by SageMaker with IPsec, which is
    not a port at all (https://docs.aws.amazon.com/sagemaker/latest/dg/train-encrypt.html). The group cannot
    tell one job from another, nor from a container that serves a model.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        endpoint_group_id: str | None,
        endpoint_cidrs: Sequence[str],
    ) -> None:
        """
        Args:
            scope: The scope.
            id: The id.
            vpc_id: The VPC.
            endpoint_group_id: The group of the endpoints, where the platform makes them.
            endpoint_cidrs: Addresses of endpoints that are there already.
        """
        super().__init__(scope, id)
        group = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=vpc_id,
            group_description="Workloads of the platform: TLS to endpoints of services, nothing else",
            security_group_egress=_to_services(
                self, endpoint_group_id=endpoint_group_id, endpoint_cidrs=endpoint_cidrs
            ),
        )
        self.id = group.attr_group_id
        among_themselves = "Machines of one job"
        ec2.CfnSecurityGroupIngress(
            self,
            "FromEachOther",
            group_id=self.id,
            ip_protocol="-1",
            source_security_group_id=self.id,
            description=among_themselves,
        )
        ec2.CfnSecurityGroupEgress(
            self,
            "ToEachOther",
            group_id=self.id,
            ip_protocol="-1",
            destination_security_group_id=self.id,
            description=among_themselves,
        )


class NotebookGroup(Construct):
    """The group of people's notebook servers: TLS to the endpoints of services and to S3. Nothing comes in.

    A Jupyter server asks nobody from inside the network for a password. In a group that accepts itself,
    everybody's notebooks would be open to everybody, and to every container
    (https://docs.aws.amazon.com/sagemaker/latest/dg/studio-notebooks-and-internet-access.html). People reach
    theirs through Studio, which comes another way; server and kernels of JupyterLab are one container.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        endpoint_group_id: str | None,
        endpoint_cidrs: Sequence[str],
    ) -> None:
        """As `WorkloadGroup`."""
        super().__init__(scope, id)
        self.id = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=vpc_id,
            group_description="Notebook servers: TLS to endpoints of services, nothing comes in",
            security_group_egress=_to_services(
                self, endpoint_group_id=endpoint_group_id, endpoint_cidrs=endpoint_cidrs
            ),
        ).attr_group_id


class ReceiverGroup(Construct):
    """The group of the DICOM receiver: TLS to the endpoints of services and to S3. Of itself it accepts
    nothing.

    Not the workloads' group, in which every container can connect to every other one: what a device may send
    is decided by who calls from where, so only the load balancer may pass calls on. The stack `arrival`,
    which has the load balancer, adds that one rule. The group is here whether an environment has a receiver
    or not, so that the endpoints need not change with it.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        endpoint_group_id: str | None,
        endpoint_cidrs: Sequence[str],
    ) -> None:
        """As `WorkloadGroup`."""
        super().__init__(scope, id)
        self.id = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=vpc_id,
            group_description="DICOM receiver: TLS to endpoints of services",
            security_group_egress=_to_services(
                self, endpoint_group_id=endpoint_group_id, endpoint_cidrs=endpoint_cidrs
            ),
        ).attr_group_id


def _to_services(
    scope: Construct, *, endpoint_group_id: str | None, endpoint_cidrs: Sequence[str]
) -> list[ec2.CfnSecurityGroup.EgressProperty]:
    allowed = [
        _tls_to("S3 through its gateway endpoint", prefix_list=S3_PREFIX_LISTS[cdk.Stack.of(scope).region]),
        *(_tls_to("Endpoints of services", cidr=cidr) for cidr in endpoint_cidrs),
    ]
    if endpoint_group_id:
        allowed.append(_tls_to("Endpoints of services", group=endpoint_group_id))
    return allowed


def _tls_to(
    description: str, *, cidr: str | None = None, group: str | None = None, prefix_list: str | None = None
) -> ec2.CfnSecurityGroup.EgressProperty:
    return ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="tcp",
        from_port=_TLS,
        to_port=_TLS,
        cidr_ip=cidr,
        destination_security_group_id=group,
        destination_prefix_list_id=prefix_list,
        description=description,
    )


class EndpointGroup(Construct):
    """The group of the endpoints, which never begin a connection."""

    def __init__(self, scope: Construct, id: str, *, vpc_id: str) -> None:
        super().__init__(scope, id)
        self.id = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=vpc_id,
            group_description="Endpoints of services: TLS from workloads of the platform",
            security_group_egress=[_NOWHERE],
        ).attr_group_id

    def admit(self, workloads: WorkloadGroup, notebooks: NotebookGroup, receiver: ReceiverGroup) -> None:
        """Accept TLS from the workloads, from people's notebook servers and from the receiver, and from
        nobody else.
        """
        for id, source, description in (
            ("FromWorkloads", workloads.id, "Workloads of the platform"),
            ("FromNotebooks", notebooks.id, "Notebook servers"),
            ("FromReceiver", receiver.id, "DICOM receiver"),
        ):
            ec2.CfnSecurityGroupIngress(
                self,
                id,
                group_id=self.id,
                ip_protocol="tcp",
                from_port=_TLS,
                to_port=_TLS,
                source_security_group_id=source,
                description=description,
            )
