"""The network: isolated, and every function is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, get_args

import pytest
from infra_assembly import ENVIRONMENTS, Assembly, Resource
from network_template import (
    TLS,
    group_id,
    group_properties,
    listed,
    of_type,
    only_id,
    without_description,
)

from infra.environment import HealthImagingRegion, load_environment
from infra.network.security_groups import S3_PREFIX_LISTS

WAYS_OUT = (
    "AWS::EC2::CarrierGateway",
    "AWS::EC2::EIP",
    "AWS::EC2::EgressOnlyInternetGateway",
    "AWS::EC2::InternetGateway",
    "AWS::EC2::NatGateway",
    "AWS::EC2::Route",
    "AWS::EC2::TransitGatewayAttachment",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::EC2::VPCPeeringConnection",
    "AWS::EC2::VPNGateway",
)
"""A VPC has a way out only with one of these: its own route table knows its own addresses alone."""

OUTSIDE = {
    "close_default_group": "closes the default group of the network, before anything is in it",
}
"""Functions that are not in the network, and why."""


# The platform's own VPC.


def test_there_is_no_way_to_the_internet(assembly: Assembly) -> None:
    types = {
        resource["Type"]
        for stack in assembly.stacks.values()
        for resource in stack["template"]["Resources"].values()
    }
    assert "AWS::EC2::VPC" in types
    assert not types & set(WAYS_OUT)
    for _, subnet in assembly.resources("AWS::EC2::Subnet"):
        assert subnet["Properties"]["MapPublicIpOnLaunch"] is False
        assert "Ipv6CidrBlock" not in subnet["Properties"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_subnets_are_in_the_zones_and_addresses_of_the_file(
    environment: str, synthesize: Callable[[str], Assembly]
) -> None:
    network = load_environment(environment).network
    template = synthesize(environment).template("network")
    subnets = of_type(template, "AWS::EC2::Subnet").values()
    assert [subnet["AvailabilityZone"] for subnet in subnets] == list(network.availability_zones)
    assert len(set(network.availability_zones)) >= 2
    blocks = [IPv4Network(subnet["CidrBlock"]) for subnet in subnets]
    assert network.cidr is not None
    assert all(block.subnet_of(IPv4Network(network.cidr)) for block in blocks)
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)
    (vpc,) = of_type(template, "AWS::EC2::VPC").values()
    # Private DNS names of endpoints need both.
    assert vpc["EnableDnsHostnames"] is vpc["EnableDnsSupport"] is True


def test_addresses_of_environments_do_not_overlap() -> None:
    # So that a hospital can connect any of them to its own network.
    blocks = [IPv4Network(load_environment(environment).network.cidr or "") for environment in ENVIRONMENTS]
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)


def test_the_flow_log_records_everything_encrypted(assembly: Assembly) -> None:
    template = assembly.template("network")
    (log,) = of_type(template, "AWS::EC2::FlowLog").values()
    assert log["ResourceId"] == {"Ref": only_id(template, "AWS::EC2::VPC")}
    assert log["TrafficType"] == "ALL"
    group = template["Resources"][log["LogGroupName"]["Ref"]]
    assert "EncryptionKey" in json.dumps(group["Properties"]["KmsKeyId"])
    environment = load_environment(assembly.environment)
    assert group["Properties"]["RetentionInDays"] == environment.logs.retention_days
    assert group["DeletionPolicy"] == ("Retain" if environment.protection.retain_data else "Delete")


def test_the_default_group_of_the_vpc_is_closed_by_our_own_function(dev: Assembly) -> None:
    template = dev.template("network")
    group = {"Fn::GetAtt": [only_id(template, "AWS::EC2::VPC"), "DefaultSecurityGroup"]}
    (closed,) = of_type(template, "Custom::ClosedDefaultGroup").values()
    function = only_id(template, "AWS::Lambda::Function")
    assert closed["ServiceToken"] == {"Fn::GetAtt": [function, "Arn"]}
    assert closed["GroupId"] == group
    # CloudFormation waits for an hour unless told otherwise.
    assert int(closed["ServiceTimeout"]) <= 600
    (policy,) = (
        one
        for name, one in of_type(template, "AWS::IAM::ManagedPolicy").items()
        if name.startswith("DefaultGroup")
    )
    (revoke,) = (
        statement
        for statement in policy["PolicyDocument"]["Statement"]
        if "ec2:RevokeSecurityGroupIngress" in statement["Action"]
    )
    assert revoke["Resource"] == {
        "Fn::Join": ["", ["arn:aws:ec2:us-east-1:111122223333:security-group/", group]]
    }


def test_the_default_group_is_closed_under_the_functions_own_role(cloud: Any, tmp_path: Path) -> None:
    import aws_cdk as cdk
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_kms as kms

    from infra.network.default_group import ClosedDefaultGroup

    app = cdk.App(outdir=str(tmp_path))
    stack = cdk.Stack(
        app,
        "closed-default-group",
        env=cdk.Environment(account=cloud.account_id, region=cloud.region),
        synthesizer=cdk.DefaultStackSynthesizer(
            file_assets_bucket_name="closed-default-group", generate_bootstrap_version_rule=False
        ),
    )
    vpc = ec2.CfnVPC(stack, "Vpc", cidr_block="10.98.0.0/24")
    cdk.CfnOutput(stack, "GroupId", value=vpc.attr_default_security_group)
    ClosedDefaultGroup(
        stack,
        "Closed",
        group_id=vpc.attr_default_security_group,
        key=kms.Key(stack, "Key"),
        environment=load_environment("local"),
    )
    app.synth()
    s3, cloudformation = cloud.client("s3"), cloud.client("cloudformation")
    s3.create_bucket(Bucket="closed-default-group")
    assets = json.loads((tmp_path / "closed-default-group.assets.json").read_text())
    for digest, asset in assets["files"].items():
        if asset["source"]["packaging"] == "zip":
            s3.put_object(
                Bucket="closed-default-group",
                Key=f"{digest}.zip",
                Body=zipped(tmp_path / asset["source"]["path"]),
            )
    cloudformation.create_stack(
        StackName="closed-default-group",
        TemplateBody=(tmp_path / "closed-default-group.template.json").read_text(),
        Capabilities=["CAPABILITY_IAM"],
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="closed-default-group", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (made,) = cloudformation.describe_stacks(StackName="closed-default-group")["Stacks"]
    (output,) = made["Outputs"]
    (group,) = cloud.client("ec2").describe_security_groups(GroupIds=[output["OutputValue"]])[
        "SecurityGroups"
    ]
    assert group["GroupName"] == "default"
    assert (group["IpPermissions"], group["IpPermissionsEgress"]) == ([], [])
    cloudformation.delete_stack(StackName="closed-default-group")
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName="closed-default-group", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )


def zipped(folder: Path) -> bytes:
    """What the CDK's command line uploads for a folder."""
    import io
    import zipfile

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return content.getvalue()


# Security groups.


def test_workloads_may_connect_to_endpoints_s3_and_each_other_only(assembly: Assembly) -> None:
    template = assembly.template("network")
    workloads, services = group_id(template, "Workloads"), group_id(template, "Endpoints")
    (outgoing,) = of_type(template, "AWS::EC2::SecurityGroupEgress").values()
    assert without_description(outgoing) == {
        "GroupId": workloads,
        "IpProtocol": "-1",
        "DestinationSecurityGroupId": workloads,
    }
    region = load_environment(assembly.environment).aws.region
    for beginning in ("Workloads", "Notebooks", "Receiver"):
        group = group_properties(template, beginning)
        assert [without_description(rule) for rule in group["SecurityGroupEgress"]] == [
            {**TLS, "DestinationPrefixListId": S3_PREFIX_LISTS[region]},
            {**TLS, "DestinationSecurityGroupId": services},
        ]


def test_nothing_comes_in_but_tls_to_endpoints_and_workloads_to_each_other(assembly: Assembly) -> None:
    # Nothing at all can connect to a notebook server: it asks nobody for a password.
    template = assembly.template("network")
    groups = of_type(template, "AWS::EC2::SecurityGroup")
    assert len(groups) == 4
    assert not [name for name, group in groups.items() if "SecurityGroupIngress" in group]
    # The receiver's load balancer, which alone can connect to it, is in another stack: test_infra_arrival.py.
    workloads, notebooks, receiver, services = (
        group_id(template, beginning) for beginning in ("Workloads", "Notebooks", "Receiver", "Endpoints")
    )
    incoming = [
        without_description(rule) for rule in of_type(template, "AWS::EC2::SecurityGroupIngress").values()
    ]
    wanted = [
        {"GroupId": workloads, "IpProtocol": "-1", "SourceSecurityGroupId": workloads},
        {**TLS, "GroupId": services, "SourceSecurityGroupId": workloads},
        {**TLS, "GroupId": services, "SourceSecurityGroupId": notebooks},
        {**TLS, "GroupId": services, "SourceSecurityGroupId": receiver},
    ]
    assert len(incoming) == len(wanted)
    assert all(rule in incoming for rule in wanted)


def test_endpoints_never_begin_a_connection(assembly: Assembly) -> None:
    group = group_properties(assembly.template("network"), "Endpoints")
    # A group without an outgoing rule would get one that allows everything.
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]


def test_the_addresses_of_s3_are_known_wherever_the_platform_can_be() -> None:
    assert set(S3_PREFIX_LISTS) == set(get_args(HealthImagingRegion))
    assert len(set(S3_PREFIX_LISTS.values())) == len(S3_PREFIX_LISTS)


# What is in the network.


def test_every_function_is_in_the_network(assembly: Assembly) -> None:
    template = assembly.template("network")
    exported = {json.dumps(output["Value"]): output["Export"]["Name"] for output in exports(template)}
    workloads = {"Fn::ImportValue": exported[json.dumps(group_id(template, "Workloads"))]}
    subnets = [
        {"Fn::ImportValue": exported[json.dumps({"Ref": subnet})]}
        for subnet in of_type(template, "AWS::EC2::Subnet")
    ]
    outside = set()
    for name, function in assembly.resources("AWS::Lambda::Function"):
        properties = function["Properties"]
        if "VpcConfig" not in properties:
            outside.add(properties["Handler"].removeprefix("runtime.functions.").partition(".")[0])
            continue
        assert properties["VpcConfig"] == {"SubnetIds": subnets, "SecurityGroupIds": [workloads]}, name
    assert outside == set(OUTSIDE)


def exports(template: Resource) -> Iterator[Resource]:
    yield from (output for output in template["Outputs"].values() if "Export" in output)


def test_a_functions_code_cannot_use_what_lambda_may(assembly: Assembly) -> None:
    roles = {
        f"{name.split('/')[0]}/{function['Properties']['Role']['Fn::GetAtt'][0]}": name
        for name, function in assembly.resources("AWS::Lambda::Function")
        if "VpcConfig" in function["Properties"]
    }
    assert roles
    seen = 0
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        attached = {f"{name.split('/')[0]}/{role['Ref']}" for role in policy["Properties"]["Roles"]}
        if not attached & set(roles):
            continue
        seen += 1
        statements = policy["Properties"]["PolicyDocument"]["Statement"]
        allowed = {
            action
            for statement in statements
            if statement["Effect"] == "Allow"
            for action in listed(statement["Action"])
            if action.startswith("ec2:")
        }
        (denied,) = (statement for statement in statements if statement["Effect"] == "Deny")
        assert denied["Resource"] == "*"
        assert set(denied["Action"]) == allowed, name
        # The key is there on every request that a function's own code signs.
        assert denied["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}
    assert seen == len(roles)


def test_interfaces_are_made_in_the_platforms_subnets_only(dev: Assembly) -> None:
    makers = 0
    for name, policy in dev.resources("AWS::IAM::ManagedPolicy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Allow" and "ec2:CreateNetworkInterface" in listed(statement["Action"]):
                makers += 1
                text = json.dumps(statement["Resource"])
                assert "subnet/*" not in text, name
                assert "security-group/*" not in text, name
                assert text.count(":subnet/") == 2, name
    assert makers
