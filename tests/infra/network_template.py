"""How tests look at the template of the network."""

from __future__ import annotations

from typing import Any

from infra_assembly import Resource

TLS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
"""TLS, as a rule of a security group says it."""


def of_type(template: Resource, type: str) -> dict[str, Resource]:
    """Properties of the resources of a type, by logical id."""
    return {
        logical_id: resource["Properties"]
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == type
    }


def only_id(template: Resource, type: str) -> str:
    (logical_id,) = of_type(template, type)
    return logical_id


def endpoints(template: Resource, kind: str) -> dict[str, Resource]:
    """Endpoints of a kind by the names of their services."""
    return {
        properties["ServiceName"]: properties
        for properties in of_type(template, "AWS::EC2::VPCEndpoint").values()
        if properties["VpcEndpointType"] == kind
    }


def group_id(template: Resource, beginning: str) -> Resource:
    """How the template refers to the one security group whose id begins so."""
    (found,) = (one for one in of_type(template, "AWS::EC2::SecurityGroup") if one.startswith(beginning))
    return {"Fn::GetAtt": [found, "GroupId"]}


def group_properties(template: Resource, beginning: str) -> Resource:
    properties: Resource = template["Resources"][group_id(template, beginning)["Fn::GetAtt"][0]]["Properties"]
    return properties


def without_description(rule: Resource) -> Resource:
    return {name: value for name, value in rule.items() if name != "Description"}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
