"""AWS::EC2::FlowLog and the rules of security groups as resources of their own, of which MiniStack has only
the calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from local.cloudformation.resource import Resource, changed
from local.service import Cloud

_FLOW_LOGS = "vpc-flow-logs.amazonaws.com"


@dataclass(frozen=True, kw_only=True)
class FlowLog:
    """Kept and answered by EC2; no packet passes here, so nothing is ever logged.

    As on AWS, the role that would write the log must trust the service. Every property but its tags is
    create-only.
    """

    cloud: Cloud
    type_name: str = "AWS::EC2::FlowLog"

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        # The template names one resource, the call a list of them.
        given = {name: value for name, value in properties.items() if name not in ("ResourceId", "Tags")}
        made = self._ec2.create_flow_logs(ResourceIds=[properties["ResourceId"]], **given)
        flow_log = str(made["FlowLogIds"][0])
        if role := properties.get("DeliverLogsPermissionArn"):
            try:
                self._assume(str(role), flow_log)
            except Exception:
                self._ec2.delete_flow_logs(FlowLogIds=[flow_log])
                raise
        # MiniStack overlooks the tags of the call itself.
        self.update(physical_id=flow_log, old={}, new=properties)
        return Resource(physical_id=flow_log, attributes={"Id": flow_log})

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        gone = {tag["Key"] for tag in old.get("Tags", [])} - {tag["Key"] for tag in new.get("Tags", [])}
        if gone:
            self._ec2.delete_tags(Resources=[physical_id], Tags=[{"Key": key} for key in sorted(gone)])
        if new.get("Tags"):
            self._ec2.create_tags(Resources=[physical_id], Tags=new["Tags"])
        return {"Id": physical_id}

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        self._ec2.delete_flow_logs(FlowLogIds=[physical_id])

    @property
    def _ec2(self) -> Any:
        return self.cloud.client("ec2")

    def _assume(self, role: str, flow_log: str) -> None:
        source = f"arn:aws:ec2:{self.cloud.region}:{self.cloud.account_id}:vpc-flow-log/{flow_log}"
        self.cloud.assume(
            role_arn=role, principal=_FLOW_LOGS, session_name="flow-log-check", source_arn=source
        )


@dataclass(frozen=True, kw_only=True)
class SecurityGroupRule:
    """One rule of a security group: `direction` is "Ingress" or "Egress".

    Every property but the description is create-only. `Ref` is the rule's id.
    """

    cloud: Cloud
    direction: str

    @property
    def type_name(self) -> str:
        return f"AWS::EC2::SecurityGroup{self.direction}"

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        rule = self._authorize(properties)
        return Resource(physical_id=rule, attributes={"Id": rule})

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if changed(old, new):
            described = {"Description": new.get("Description", ""), **_rule_request(new)}
            self.cloud.client("ec2").modify_security_group_rules(
                GroupId=new["GroupId"],
                SecurityGroupRules=[
                    {"SecurityGroupRuleId": physical_id, "SecurityGroupRule": described},
                ],
            )
        return {"Id": physical_id}

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        revoke = getattr(self.cloud.client("ec2"), f"revoke_security_group_{self.direction.lower()}")
        try:
            revoke(GroupId=properties["GroupId"], SecurityGroupRuleIds=[physical_id])
        except ClientError as error:
            if not error.response["Error"]["Code"].endswith(".NotFound"):
                raise

    def _authorize(self, properties: Mapping[str, Any]) -> str:
        authorize = getattr(self.cloud.client("ec2"), f"authorize_security_group_{self.direction.lower()}")
        # MiniStack takes a rule that is there already; AWS refuses it.
        before = self._rules(properties["GroupId"])
        made = authorize(GroupId=properties["GroupId"], IpPermissions=[_permission(properties)])
        rule = str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])
        if rule in before:
            raise ValueError(
                f"InvalidPermission.Duplicate: the rule exists already in {properties['GroupId']} ({rule})"
            )
        return rule

    def _rules(self, group: str) -> set[str]:
        found = self.cloud.client("ec2").describe_security_group_rules(
            Filters=[{"Name": "group-id", "Values": [group]}]
        )
        return {
            str(rule["SecurityGroupRuleId"])
            for rule in found["SecurityGroupRules"]
            if rule["IsEgress"] == (self.direction == "Egress")
        }


_PEERS = {
    "CidrIp": ("IpRanges", "CidrIp"),
    "CidrIpv6": ("Ipv6Ranges", "CidrIpv6"),
    "SourcePrefixListId": ("PrefixListIds", "PrefixListId"),
    "DestinationPrefixListId": ("PrefixListIds", "PrefixListId"),
    "SourceSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    "DestinationSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
}
"""Whom a rule is about: a property of the template, and its place in the call."""


def _permission(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a template as `AuthorizeSecurityGroup...` takes it."""
    permission: dict[str, Any] = {
        name: properties[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in properties
    }
    described = {"Description": properties["Description"]} if properties.get("Description") else {}
    peers = [
        (place, {member: properties[name], **described})
        for name, (place, member) in _PEERS.items()
        if name in properties
    ]
    if len(peers) != 1:
        raise ValueError("a rule of a security group names exactly one of " + ", ".join(_PEERS))
    place, peer = peers[0]
    return permission | {place: [peer]}


def _rule_request(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a template as `ModifySecurityGroupRules` takes it."""
    members = {
        "IpProtocol": "IpProtocol",
        "FromPort": "FromPort",
        "ToPort": "ToPort",
        "CidrIp": "CidrIpv4",
        "CidrIpv6": "CidrIpv6",
        "SourcePrefixListId": "PrefixListId",
        "DestinationPrefixListId": "PrefixListId",
        "SourceSecurityGroupId": "ReferencedGroupId",
        "DestinationSecurityGroupId": "ReferencedGroupId",
    }
    return {members[name]: value for name, value in properties.items() if name in members}
