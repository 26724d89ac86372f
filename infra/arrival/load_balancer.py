"""The one address of the receiver inside the network, and who may call it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from infra.environment import RECEIVER_PORT, Receiver
from infra.network.placement import Placement

STOP_SECONDS = 120
"""How long a task that ends may take over associations that are open: the most that Fargate gives."""

_HEALTH_SECONDS = 10


class ReceiverAddress(Construct):
    """A network load balancer without a public address, in every subnet of the platform.

    Calls are admitted from the addresses of the environment file and no others. TCP is passed on as it is, so
    a device's TLS ends in the receiver itself, which then sees the device's certificate, and so is the
    device's own address, by which the receiver tells who calls. It writes no access log: that of a network
    load balancer knows TLS listeners only. The flow log has every connection, the receiver's log every
    association.
    """

    def __init__(
        self, scope: Construct, id: str, *, receiver: Receiver, placement: Placement, protected: bool
    ) -> None:
        """
        Args:
            scope: Parent.
            id: Id in it.
            receiver: Of the environment file.
            placement: Where the receiver is.
            protected: Whether the load balancer refuses to be deleted: devices know its name.
        """
        super().__init__(scope, id)
        group = ec2.CfnSecurityGroup(
            self,
            "Group",
            vpc_id=placement.vpc_id,
            group_description="Load balancer of the DICOM receiver: devices of the hospital only",
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    ip_protocol="tcp",
                    from_port=receiver.port,
                    to_port=receiver.port,
                    cidr_ip=cidr,
                    description="Devices that may send",
                )
                for cidr in sorted({caller.cidr for caller in receiver.allowed})
            ],
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="tcp",
                    from_port=RECEIVER_PORT,
                    to_port=RECEIVER_PORT,
                    destination_security_group_id=placement.receiver_security_group_id,
                    description="The receiver",
                )
            ],
        )
        ec2.CfnSecurityGroupIngress(
            self,
            "ToReceiver",
            group_id=placement.receiver_security_group_id,
            ip_protocol="tcp",
            from_port=RECEIVER_PORT,
            to_port=RECEIVER_PORT,
            source_security_group_id=group.attr_group_id,
            description="Load balancer of the DICOM receiver",
        )
        attributes = {
            "deletion_protection.enabled": protected,
            # A zone whose task is gone is served by another zone's.
            "load_balancing.cross_zone.enabled": True,
        }
        self.balancer = elb.CfnLoadBalancer(
            self,
            "Balancer",
            type="network",
            scheme="internal",
            ip_address_type="ipv4",
            subnets=list(placement.subnet_ids),
            security_groups=[group.attr_group_id],
            load_balancer_attributes=[
                elb.CfnLoadBalancer.LoadBalancerAttributeProperty(key=name, value=_text(value))
                for name, value in attributes.items()
            ],
        )
        self.targets = elb.CfnTargetGroup(
            self,
            "Targets",
            vpc_id=placement.vpc_id,
            target_type="ip",
            protocol="TCP",
            port=RECEIVER_PORT,
            health_check_protocol="TCP",
            health_check_interval_seconds=_HEALTH_SECONDS,
            healthy_threshold_count=2,
            unhealthy_threshold_count=2,
            target_group_attributes=[
                elb.CfnTargetGroup.TargetGroupAttributeProperty(key=name, value=value)
                for name, value in {
                    "deregistration_delay.timeout_seconds": str(STOP_SECONDS),
                    "preserve_client_ip.enabled": "true",
                }.items()
            ],
        )
        self.listener = elb.CfnListener(
            self,
            "Listener",
            load_balancer_arn=self.balancer.attr_load_balancer_arn,
            protocol="TCP",
            port=receiver.port,
            default_actions=[
                elb.CfnListener.ActionProperty(
                    type="forward", target_group_arn=self.targets.attr_target_group_arn
                )
            ],
        )
        cdk.CfnOutput(cdk.Stack.of(self), "ReceiverDnsName", value=self.balancer.attr_dns_name)
        cdk.CfnOutput(cdk.Stack.of(self), "ReceiverPort", value=str(receiver.port))


def _text(value: bool) -> str:
    return str(value).lower()
