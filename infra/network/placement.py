"""Where workloads run inside the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sagemaker as sagemaker


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The subnets and the security group of every workload. Values may be tokens of the CDK.

    The subnets have no route to the internet; the group allows TLS to the services' endpoints and traffic
    among the machines of a training job, nothing else.
    """

    vpc_id: str
    subnet_ids: Sequence[str]
    security_group_id: str
    notebook_security_group_id: str
    """Of people's notebook servers, which nothing can connect to."""
    receiver_security_group_id: str
    """Of the DICOM receiver, which only its load balancer can connect to."""

    def of_model(self) -> sagemaker.CfnModel.VpcConfigProperty:
        """For a model's containers."""
        return sagemaker.CfnModel.VpcConfigProperty(
            subnets=list(self.subnet_ids), security_group_ids=[self.security_group_id]
        )

    def of_job(self) -> dict[str, list[str]]:
        """For a training, processing or transform job in a pipeline definition."""
        return {"SecurityGroupIds": [self.security_group_id], "Subnets": list(self.subnet_ids)}

    def put(self, function: lambda_.Function) -> None:
        """Move a function into the network.

        On the lowest level: with its own parameters for it, the CDK would attach a managed policy that lets
        the role make network interfaces anywhere, and a security group that may reach everything.
        """
        resource = function.node.default_child
        if not isinstance(resource, lambda_.CfnFunction):
            raise TypeError(f"{function.node.path} has no function resource")
        resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
            subnet_ids=list(self.subnet_ids), security_group_ids=[self.security_group_id]
        )
