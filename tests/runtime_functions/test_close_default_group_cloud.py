"""The function that closes a default security group, against the EC2 of the local cloud."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from cloudformation_listener import listening

from runtime.functions.close_default_group import handler


def test_the_default_group_of_a_vpc_has_no_rules_any_more(
    cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in cloud.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/24")["Vpc"]["VpcId"]

    def groups() -> dict[str, Any]:
        found = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        return {group["GroupName"]: group for group in found["SecurityGroups"]}

    group_id = groups()["default"]["GroupId"]
    # As on AWS, where members of the group may talk to each other.
    member = {"GroupId": group_id, "UserId": cloud.account_id}
    ec2.authorize_security_group_ingress(
        GroupId=group_id, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [member]}]
    )
    other = ec2.create_security_group(GroupName="other", Description="left alone", VpcId=vpc)["GroupId"]
    assert groups()["default"]["IpPermissions"]
    assert groups()["default"]["IpPermissionsEgress"]

    for _ in range(2):
        with listening() as listener:
            handler.handle(
                {
                    "RequestType": "Create",
                    "ResponseURL": listener.url,
                    "ResourceProperties": {"GroupId": group_id},
                },
                None,
            )
        assert [answer["Status"] for answer in listener.answers] == ["SUCCESS"], listener.answers
        closed = groups()["default"]
        assert (closed["IpPermissions"], closed["IpPermissionsEgress"]) == ([], [])
    assert groups()["other"]["GroupId"] == other
    assert groups()["other"]["IpPermissionsEgress"]
