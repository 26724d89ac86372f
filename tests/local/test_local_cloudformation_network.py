"""A network through CloudFormation: flow log, rules of security groups, endpoints of services, and a custom
resource whose function closes the default security group."""

from __future__ import annotations

from typing import Any

import pytest
from cloudformation_steps import deploy, outputs, reasons

VPC = {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/22"}}
GROUP = {
    "Type": "AWS::EC2::SecurityGroup",
    "Properties": {"GroupDescription": "of a test", "VpcId": {"Ref": "Vpc"}},
}


def role(service: str, *statements: dict[str, Any]) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [
                {
                    "PolicyName": "work",
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": list(statements)},
                }
            ]
            if statements
            else [],
        },
    }


def delete(cloud: Any, name: str) -> None:
    client = cloud.client("cloudformation")
    client.delete_stack(StackName=name)
    client.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def rules(cloud: Any, group: str, *, egress: bool) -> list[dict[str, Any]]:
    found = cloud.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    listed: list[dict[str, Any]] = found["IpPermissionsEgress" if egress else "IpPermissions"]
    return listed


def test_rules_of_a_group_as_resources(cloud) -> None:
    def rule(kind: str, **properties: Any) -> dict[str, Any]:
        return {
            "Type": f"AWS::EC2::SecurityGroup{kind}",
            "Properties": {
                "GroupId": {"Fn::GetAtt": ["Group", "GroupId"]},
                "IpProtocol": "tcp",
                **properties,
            },
        }

    among = {"Fn::GetAtt": ["Group", "GroupId"]}
    inward = rule("Ingress", FromPort=0, ToPort=65535, SourceSecurityGroupId=among, Description="machines")
    outward = rule("Egress", FromPort="443", ToPort="443", CidrIp="10.9.0.0/22", Description="TLS")
    group = {**GROUP, "Properties": {**GROUP["Properties"], "SecurityGroupEgress": []}}
    # A group without a rule of its own gets one that lets everything out; this one lets nothing out.
    group["Properties"]["SecurityGroupEgress"] = [
        {"IpProtocol": "icmp", "FromPort": 252, "ToPort": 86, "CidrIp": "255.255.255.255/32"}
    ]
    template: dict[str, Any] = {
        "Resources": {"Vpc": VPC, "Group": group, "Inward": inward, "Outward": outward},
        "Outputs": {"Group": {"Value": {"Ref": "Group"}}, "Rule": {"Value": {"Ref": "Outward"}}},
    }
    stack = deploy(cloud, "rules", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "rules")
    made = outputs(stack)
    [ingress] = rules(cloud, made["Group"], egress=False)
    assert ingress["UserIdGroupPairs"][0]["GroupId"] == made["Group"]
    assert {one["FromPort"] for one in rules(cloud, made["Group"], egress=True)} == {252, 443}

    outward["Properties"]["Description"] = "TLS to endpoints"
    stack = deploy(cloud, "rules", template, update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, "rules")
    assert outputs(stack)["Rule"] == made["Rule"], "a description changes in place"
    described = [
        one["IpRanges"][0] for one in rules(cloud, made["Group"], egress=True) if one["FromPort"] == 443
    ]
    assert described == [{"CidrIp": "10.9.0.0/22", "Description": "TLS to endpoints"}]

    outward["Properties"]["CidrIp"] = "10.9.1.0/24"
    stack = deploy(cloud, "rules", template, update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, "rules")
    ranges = [
        one["IpRanges"][0]["CidrIp"]
        for one in rules(cloud, made["Group"], egress=True)
        if one["FromPort"] == 443
    ]
    assert ranges == ["10.9.1.0/24"], "anything else replaces the rule, and the old one is gone"

    template["Resources"]["Twice"] = dict(outward)
    stack = deploy(cloud, "rules", template, update=True)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "InvalidPermission.Duplicate" in reasons(cloud, "rules")
    assert len(rules(cloud, made["Group"], egress=True)) == 2, "the rollback took nothing with it"

    del template["Resources"]["Twice"], template["Resources"]["Inward"]
    assert deploy(cloud, "rules", template, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert rules(cloud, made["Group"], egress=False) == []
    delete(cloud, "rules")


def test_flow_log_needs_a_role_that_trusts_the_service(cloud) -> None:
    def template(service: str) -> dict[str, Any]:
        log = {
            "ResourceId": {"Ref": "Vpc"},
            "ResourceType": "VPC",
            "TrafficType": "ALL",
            "LogDestinationType": "cloud-watch-logs",
            "LogGroupName": {"Ref": "Logs"},
            "DeliverLogsPermissionArn": {"Fn::GetAtt": ["Role", "Arn"]},
            "MaxAggregationInterval": 60,
            "Tags": [{"Key": "for", "Value": "test"}],
        }
        return {
            "Resources": {
                "Vpc": VPC,
                "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 30}},
                "Role": role(service),
                "Flow": {"Type": "AWS::EC2::FlowLog", "Properties": log},
            },
            "Outputs": {"Flow": {"Value": {"Ref": "Flow"}}},
        }

    ec2 = cloud.client("ec2")
    stack = deploy(cloud, "untrusted-flow", template("lambda.amazonaws.com"))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "does not allow sts:AssumeRole by vpc-flow-logs" in reasons(cloud, "untrusted-flow")

    stack = deploy(cloud, "flow", template("vpc-flow-logs.amazonaws.com"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "flow")
    name = outputs(stack)["Flow"]
    # Other tests of this cloud have networks too.
    [described] = [one for one in ec2.describe_flow_logs()["FlowLogs"] if one["FlowLogId"] == name]
    assert (described["FlowLogId"], described["TrafficType"]) == (name, "ALL")
    assert {"Key": "for", "Value": "test"} in described["Tags"]
    delete(cloud, "flow")
    assert name not in [one["FlowLogId"] for one in ec2.describe_flow_logs()["FlowLogs"]]


def test_endpoint_of_a_service_updates_in_place_or_is_replaced(cloud) -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
    endpoint = {
        "Type": "AWS::EC2::VPCEndpoint",
        "Properties": {
            "VpcId": {"Ref": "Vpc"},
            "ServiceName": "com.amazonaws.us-east-1.sqs",
            "VpcEndpointType": "Interface",
            "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        },
    }
    template = {
        "Resources": {"Vpc": VPC, "Endpoint": endpoint},
        "Outputs": {"Endpoint": {"Value": {"Ref": "Endpoint"}}},
    }
    first = outputs(deploy(cloud, "endpoint", template))["Endpoint"]
    statement["Action"] = "s3:PutObject"
    second = outputs(deploy(cloud, "endpoint", template, update=True))["Endpoint"]
    assert second == first
    endpoint["Properties"]["ServiceName"] = "com.amazonaws.us-east-1.sns"
    stack = deploy(cloud, "endpoint", template, update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", reasons(cloud, "endpoint")
    assert outputs(stack)["Endpoint"] != first
    left = {
        one["VpcEndpointId"]: one["ServiceName"]
        for one in cloud.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    }
    assert left[outputs(stack)["Endpoint"]].endswith(".sns")
    assert first not in left
    delete(cloud, "endpoint")


def test_a_property_that_the_registry_does_not_know_is_refused(cloud) -> None:
    vpc = {**VPC, "Properties": {**VPC["Properties"], "EnableDnsSuport": True}}
    stack = deploy(cloud, "misspelt", {"Resources": {"Vpc": vpc}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "AWS::EC2::VPC: #/: extraneous key 'EnableDnsSuport'" in reasons(cloud, "misspelt")


CLOSE = """
import json, urllib.request
import boto3

def handler(event, context):
    ec2 = boto3.client("ec2")
    status, reason = "SUCCESS", ""
    try:
        if event["RequestType"] != "Delete":
            group = event["ResourceProperties"]["Group"]
            [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
            if found["IpPermissionsEgress"]:
                ec2.revoke_security_group_egress(GroupId=group, IpPermissions=found["IpPermissionsEgress"])
            if found["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=found["IpPermissions"])
    except Exception as error:
        status, reason = "FAILED", str(error)
    answer = {
        "Status": status, "Reason": reason, "PhysicalResourceId": "closed", "Data": {"Kind": "default"},
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), method="PUT")
    request.add_header("content-type", "")
    urllib.request.urlopen(request, timeout=10).read()
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_custom_resource_closes_the_default_group(cloud, allowed: bool) -> None:
    group = {
        "Fn::Sub": "arn:aws:ec2:${AWS::Region}:${AWS::AccountId}:security-group/${Vpc.DefaultSecurityGroup}"
    }
    actions = ["ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress"][: 2 if allowed else 0]
    describing = {"Effect": "Allow", "Action": "ec2:DescribeSecurityGroups", "Resource": "*"}
    revoking = [{"Effect": "Allow", "Action": actions, "Resource": group}] if actions else []
    template = {
        "Resources": {
            "Vpc": VPC,
            "Role": role("lambda.amazonaws.com", describing, *revoking),
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.11",
                    "Handler": "index.handler",
                    "Timeout": 30,
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"ZipFile": CLOSE},
                },
            },
            "Closed": {
                "Type": "Custom::ClosedDefaultGroup",
                "Properties": {
                    "ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]},
                    "ServiceTimeout": 60,
                    "Group": {"Fn::GetAtt": ["Vpc", "DefaultSecurityGroup"]},
                },
            },
        },
        "Outputs": {
            "Group": {"Value": {"Fn::GetAtt": ["Vpc", "DefaultSecurityGroup"]}},
            "Kind": {"Value": {"Fn::GetAtt": ["Closed", "Kind"]}},
        },
    }
    name = f"closing-{'allowed' if allowed else 'denied'}"
    stack = deploy(cloud, name, template)
    if not allowed:
        assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
        assert "ec2:RevokeSecurityGroupEgress" in reasons(cloud, name)
        return
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, name)
    made = outputs(stack)
    assert made["Kind"] == "default"
    assert rules(cloud, made["Group"], egress=True) == []
    delete(cloud, name)


def test_budget(cloud) -> None:
    budgets = cloud.client("budgets")
    budget: dict[str, Any] = {
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": "100", "Unit": "USD"},
    }
    notice = {
        "Notification": {
            "NotificationType": "FORECASTED",
            "ComparisonOperator": "GREATER_THAN",
            "Threshold": 100,
        },
        "Subscribers": [{"SubscriptionType": "EMAIL", "Address": "finance@example.org"}],
    }
    template = {
        "Resources": {
            "Budget": {
                "Type": "AWS::Budgets::Budget",
                "Properties": {"Budget": budget, "NotificationsWithSubscribers": [notice]},
            }
        },
        "Outputs": {"Name": {"Value": {"Ref": "Budget"}}},
    }
    stack = deploy(cloud, "budget", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "budget")
    name = outputs(stack)["Name"]

    def limit() -> str:
        found = budgets.describe_budget(AccountId=cloud.account_id, BudgetName=name)["Budget"]
        return str(found["BudgetLimit"]["Amount"])

    assert limit() == "100.0"
    budget["BudgetLimit"]["Amount"] = 250
    stack = deploy(cloud, "budget", template, update=True)
    assert (outputs(stack)["Name"], limit()) == (name, "250"), reasons(cloud, "budget")
    notice["Notification"]["Threshold"] = 80
    stack = deploy(cloud, "budget", template, update=True)
    assert outputs(stack)["Name"] != name, "notifications are create-only"
    delete(cloud, "budget")
    left = budgets.describe_budgets(AccountId=cloud.account_id).get("Budgets", [])
    assert not {name, outputs(stack)["Name"]} & {one["BudgetName"] for one in left}
