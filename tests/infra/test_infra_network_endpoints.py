"""Endpoints: a way to every service that something in the network calls, for this account alone."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

from infra_assembly import Assembly, Resource
from network_template import endpoints, group_id, listed, of_type

from infra.environment import load_environment
from infra.network.endpoints import ENDPOINT_SERVICES, GATEWAY_CLIENTS
from infra.repository import ROOT

ENVIRONMENT_BEFORE = {"staging": "dev", "prod": "staging"}
"""From where candidates for an environment come."""

OUTSIDE = ("runtime/functions/close_default_group/",)
"""Code that does not run in the network (test_infra_network.py)."""


def test_s3_is_reached_through_the_gateway_from_every_subnet(assembly: Assembly) -> None:
    template = assembly.template("network")
    ((name, gateway),) = endpoints(template, "Gateway").items()
    assert name == f"com.amazonaws.{load_environment(assembly.environment).aws.region}.s3"
    subnets = {one["SubnetId"]["Ref"]: one["RouteTableId"] for one in associations(template)}
    assert set(subnets) == set(of_type(template, "AWS::EC2::Subnet"))
    assert all(table in gateway["RouteTableIds"] for table in subnets.values())


def associations(template: Resource) -> list[Resource]:
    return list(of_type(template, "AWS::EC2::SubnetRouteTableAssociation").values())


def test_endpoints_are_in_every_subnet_with_private_dns(assembly: Assembly) -> None:
    template = assembly.template("network")
    region = load_environment(assembly.environment).aws.region
    found = endpoints(template, "Interface")
    assert set(found) == {service.name.format(region=region) for service in ENDPOINT_SERVICES}
    assert len(found) == len(ENDPOINT_SERVICES)
    subnets = [{"Ref": subnet} for subnet in of_type(template, "AWS::EC2::Subnet")]
    for name, endpoint in found.items():
        assert endpoint["PrivateDnsEnabled"] is True, name
        assert endpoint["SubnetIds"] == subnets, name
        assert endpoint["SecurityGroupIds"] == [group_id(template, "Endpoints")], name


def test_services_are_called_what_aws_calls_them() -> None:
    import aws_cdk as cdk
    from aws_cdk import aws_ec2 as ec2

    stack = cdk.Stack(cdk.App(), env=cdk.Environment(account="111122223333", region="eu-west-1"))
    known = {
        stack.resolve(value.name)
        for value in vars(ec2.InterfaceVpcEndpointAwsService).values()
        if isinstance(value, ec2.InterfaceVpcEndpointAwsService)
    } or {
        stack.resolve(getattr(ec2.InterfaceVpcEndpointAwsService, name).name)
        for name in dir(ec2.InterfaceVpcEndpointAwsService)
        if name.isupper()
    }
    assert {service.name.format(region="eu-west-1") for service in ENDPOINT_SERVICES} <= known


def test_endpoints_let_this_accounts_principals_reach_its_resources_only(assembly: Assembly) -> None:
    template = assembly.template("network")
    aws = load_environment(assembly.environment).aws
    own = {
        "Sid": "OwnPrincipalsToOwnResources",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "*",
        "Resource": "*",
        "Condition": {
            "StringEquals": {"aws:PrincipalAccount": aws.account, "aws:ResourceAccount": aws.account}
        },
    }
    beyond = {}
    for logical_id, endpoint in of_type(template, "AWS::EC2::VPCEndpoint").items():
        document = endpoint["PolicyDocument"]
        assert len(json.dumps(document)) < 20_480, logical_id
        first, *others = document["Statement"]
        assert first == own, logical_id
        if others:
            beyond[endpoint["ServiceName"].rpartition(f"{aws.region}.")[2]] = others
    layers = {
        "Sid": "ImageLayers",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::prod-{aws.region}-starport-layer-bucket/*",
    }
    before = ENVIRONMENT_BEFORE.get(assembly.environment)
    if before is None:
        assert beyond == {"s3": [layers]}
        return
    # One role of this account reads approved models of the environment before.
    lent = {
        "Sid": "ModelsOfTheEnvironmentBefore",
        "Effect": "Allow",
        "Principal": "*",
        "Resource": "*",
        "Condition": {
            "StringEquals": {"aws:ResourceAccount": load_environment(before).aws.account},
            "ArnEquals": {
                "aws:PrincipalArn": f"arn:aws:iam::{aws.account}:role/monai-{assembly.environment}-promotion"
            },
        },
    }
    assert beyond == {
        "s3": [layers, {**lent, "Action": "s3:GetObject"}],
        "sagemaker.api": [{**lent, "Action": "sagemaker:DescribeModelPackage"}],
    }


def product_clients() -> Iterator[tuple[str, str]]:
    """(file, service) of every boto3 client that the product makes outside the infrastructure."""
    for package in ("arrival", "healthimaging", "runtime", "training", "workbench"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr="client" | "resource"),
                        args=[ast.Constant(value=str(name)), *_],
                    ):
                        yield path.relative_to(ROOT).as_posix(), name


def test_every_client_of_the_product_has_an_endpoint() -> None:
    reached = {client for service in ENDPOINT_SERVICES for client in service.clients} | set(GATEWAY_CLIENTS)
    made = [(path, client) for path, client in product_clients() if not path.startswith(OUTSIDE)]
    assert {"s3", "medical-imaging", "sagemaker-runtime", "athena"} <= {client for _, client in made}
    assert {(path, client) for path, client in made if client not in reached} == set()


def test_every_endpoint_is_for_something_that_may_call_it(dev: Assembly) -> None:
    may: set[str] = set()
    for name, policy in dev.resources("AWS::IAM::ManagedPolicy"):
        actions = {
            action
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Allow"
            for action in listed(statement["Action"])
        }
        # People work in the network too, and so does the receiver, but Studio and ECS connect them without
        # their roles.
        if "ec2:CreateNetworkInterface" in actions or name.startswith(("arrival/", "studio/")):
            may |= {action.partition(":")[0] for action in actions}
    called = {"sagemaker-runtime": "sagemaker"}
    idle = {
        service.id
        for service in ENDPOINT_SERVICES
        if service.clients and not {called.get(client, client) for client in service.clients} & may
    }
    # Who am I: that may be asked without a permission.
    assert idle == {"Tokens"}


def test_every_host_of_healthimaging_has_an_endpoint() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("medical-imaging")
    prefixes = {
        (model.operation_model(name).endpoint or {}).get("hostPrefix", "") for name in model.operation_names
    }
    connector = "".join(path.read_text() for path in (ROOT / "healthimaging" / "dicomweb").glob("*.py"))
    assert "dicom-medical-imaging" in connector
    hosts = {f"{prefix}medical-imaging" for prefix in prefixes} | {"dicom-medical-imaging"}
    named = {service.name.rpartition("{region}.")[2] for service in ENDPOINT_SERVICES}
    assert hosts == {name for name in named if "medical-imaging" in name}
