"""The services' endpoints inside the network: the only places that a workload can connect to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.network.endpoint_policies import (
    Lender,
    endpoint_policy,
    s3_endpoint_policy,
    sagemaker_endpoint_policy,
)


@dataclass(frozen=True, kw_only=True)
class EndpointService:
    """A service with an interface endpoint, and why it has one."""

    id: str
    name: str
    """`{region}` stands for the region."""
    clients: Sequence[str] = ()
    """The clients of boto3 whose requests go there."""
    used: str
    """Who calls it, and for what."""


ENDPOINT_SERVICES = (
    EndpointService(
        id="HealthImaging",
        name="com.amazonaws.{region}.medical-imaging",
        clients=("medical-imaging",),
        used="Receiver and people in Studio: start import jobs and follow them.",
    ),
    EndpointService(
        id="HealthImagingRuntime",
        name="com.amazonaws.{region}.runtime-medical-imaging",
        clients=("medical-imaging",),
        used="Index function, training, inference, people in Studio: search image sets, read metadata and "
        "frames. boto3 sends these to a host of their own.",
    ),
    EndpointService(
        id="HealthImagingDicom",
        name="com.amazonaws.{region}.dicom-medical-imaging",
        used="Inference: store segmentations (STOW-RS). The connector signs these requests itself.",
    ),
    EndpointService(
        id="SageMakerApi",
        name="com.amazonaws.{region}.sagemaker.api",
        clients=("sagemaker",),
        used="People in Studio: start pipelines, follow them, review and approve models. Studio itself. "
        "Evaluation: find the approved model.",
    ),
    EndpointService(
        id="SageMakerRuntime",
        name="com.amazonaws.{region}.sagemaker.runtime",
        clients=("sagemaker-runtime",),
        used="Dispatch function and people in Studio: ask endpoints for segmentations.",
    ),
    EndpointService(
        id="Studio",
        name="aws.sagemaker.{region}.studio",
        used="Studio in its VpcOnly mode: the notebook servers' way back to Studio.",
    ),
    EndpointService(
        id="RegistryApi",
        name="com.amazonaws.{region}.ecr.api",
        clients=("ecr",),
        used="Training and inference: leave to pull their image, where SageMaker pulls inside the network. "
        "The receiver's, which ECS always pulls there.",
    ),
    EndpointService(
        id="RegistryDocker",
        name="com.amazonaws.{region}.ecr.dkr",
        used="Training, inference and receiver: the manifest of their image; the layers come from S3.",
    ),
    EndpointService(
        id="Logs",
        name="com.amazonaws.{region}.logs",
        clients=("logs",),
        used="People in Studio: read the logs of jobs and endpoints (`monai-aws train` shows them). The "
        "receiver writes its own.",
    ),
    EndpointService(
        id="Monitoring",
        name="com.amazonaws.{region}.monitoring",
        clients=("cloudwatch",),
        used="Training and inference: write metrics. People in Studio: read them.",
    ),
    EndpointService(
        id="Tokens",
        name="com.amazonaws.{region}.sts",
        clients=("sts",),
        used="People in Studio: who am I, and roles that their persona may take on.",
    ),
    EndpointService(
        id="Keys",
        name="com.amazonaws.{region}.kms",
        clients=("kms",),
        used="Training, inference, people in Studio: what encrypts or decrypts under the platform's key "
        "itself. S3 does so on its own side of the gateway.",
    ),
    EndpointService(
        id="Secrets",
        name="com.amazonaws.{region}.secretsmanager",
        clients=("secretsmanager",),
        used="Receiver and people in Studio who bring files: the key of de-identification. Receiver: its "
        "certificate.",
    ),
    EndpointService(
        id="Topics",
        name="com.amazonaws.{region}.sns",
        clients=("sns",),
        used="Inference: SageMaker announces with the endpoint's role that a segmentation is there, or "
        "is not.",
    ),
    EndpointService(
        id="Queues",
        name="com.amazonaws.{region}.sqs",
        clients=("sqs",),
        used="People in Studio: see what no function could do, and send it again (`monai-aws dead-letters`).",
    ),
    EndpointService(
        id="Events",
        name="com.amazonaws.{region}.events",
        clients=("events",),
        used="Announce function: put on the event bus which images have which result.",
    ),
    EndpointService(
        id="Glue",
        name="com.amazonaws.{region}.glue",
        clients=("glue",),
        used="People in Studio: the catalog's tables and their columns.",
    ),
    EndpointService(
        id="Athena",
        name="com.amazonaws.{region}.athena",
        clients=("athena",),
        used="People in Studio: SQL over the catalog. The functions that compact and compare it.",
    ),
    EndpointService(
        id="CloudFormation",
        name="com.amazonaws.{region}.cloudformation",
        clients=("cloudformation",),
        used="People in Studio: `monai-aws` reads the outputs of the stacks.",
    ),
)
"""Every interface endpoint. Tests see that each client of the product has one, and that something in the
network may use each.

Not here, because nothing in the network calls them: Step Functions, Lambda, EC2, ECS (which reaches a Fargate
task another way, https://docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html), IAM, and
package registries: images and the toolkit of the notebooks bring what they need.

Each supports an endpoint policy. Names, and the pages that say so:
https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html, for Studio
https://docs.aws.amazon.com/sagemaker/latest/dg/studio-interface-endpoint.html, for HealthImaging, which needs
private DNS, https://docs.aws.amazon.com/healthimaging/latest/devguide/vpc-interface-endpoints.html.
"""

GATEWAY_CLIENTS = ("s3",)
"""Clients whose requests go through the gateway endpoint."""


class ServiceEndpoints(Construct):
    """One interface endpoint a service in every subnet, and the gateway of S3 in the route tables.

    They let principals of this account reach resources of this account, and nothing else: credentials that
    somebody brings along are as useless in the network as a bucket in another account.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        subnet_ids: Sequence[str],
        route_table_ids: Sequence[str],
        security_group_id: str,
        lender: Lender | None,
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=vpc_id,
            service_name=f"com.amazonaws.{stack.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=list(route_table_ids),
            policy_document=s3_endpoint_policy(account=stack.account, region=stack.region, lender=lender),
        )
        for service in ENDPOINT_SERVICES:
            ec2.CfnVPCEndpoint(
                self,
                service.id,
                vpc_id=vpc_id,
                service_name=service.name.format(region=stack.region),
                vpc_endpoint_type="Interface",
                subnet_ids=list(subnet_ids),
                security_group_ids=[security_group_id],
                private_dns_enabled=True,
                policy_document=(
                    sagemaker_endpoint_policy(account=stack.account, lender=lender)
                    if service.id == "SageMakerApi"
                    else endpoint_policy(account=stack.account)
                ),
            )
