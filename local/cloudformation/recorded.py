"""Types that are only recorded: validated, remembered in the stack, referable; nothing else comes of them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.cloudformation.resource import Resource, generated_name
from local.cloudformation.schema import registry_schema

RECORDED_TYPES = (
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudTrail::Trail",
    "AWS::ECS::Cluster",
    "AWS::ECS::Service",
    "AWS::ECS::TaskDefinition",
    "AWS::ElasticLoadBalancingV2::Listener",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
    "AWS::SageMaker::Domain",
    "AWS::SageMaker::StudioLifecycleConfig",
    "AWS::SageMaker::UserProfile",
)
"""Accepted so that the templates of a real deployment deploy unchanged. ECS and load balancers take the place
of MiniStack's own: those would start a container of the service where a Docker daemon happens to run, from a
registry that it cannot reach.
"""

INERT_TYPES = (
    "AWS::Budgets::Budget",
    "AWS::EC2::FlowLog",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCEndpoint",
    "AWS::Glue::Crawler",
    "AWS::Glue::SecurityConfiguration",
    "AWS::Logs::MetricFilter",
)
"""Types whose calls MiniStack answers but nothing comes of: a crawl ends at once, nothing is encrypted, no
packet passes a network, nothing costs anything, no log event is matched."""

_FORMS = {
    "CanonicalHostedZoneID": "Z{:.13}",
    "DNSName": "{:.16}.elb.invalid",
    "DomainId": "d-{:.12}",
    "HomeEfsFileSystemId": "fs-{:.17}",
    "SecurityGroupIdForDomainBoundary": "sg-{:.17}",
    "Url": "https://{:.12}.studio.invalid",
}
"""Identifiers that a service makes, from a hexadecimal number; the addresses name no host."""


@dataclass(frozen=True, kw_only=True)
class RecordedType:
    """Answers `Ref` and `Fn::GetAtt` from the registry schema of the type."""

    type_name: str
    account_id: str
    region: str

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        schema = registry_schema(self.type_name)
        name = next(
            (
                str(properties[key])
                for key in schema.primary_identifier
                if key.endswith("Name") and key in properties
            ),
            generated_name(stack, logical_id),
        )
        identifier = [
            str(properties.get(key) or self._attribute(key, name)) for key in schema.primary_identifier
        ]
        physical_id = "|".join(identifier)
        return Resource(physical_id=physical_id, attributes=self._attributes(physical_id))

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return self._attributes(physical_id)

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        """Nothing exists beside the record, which the engine drops."""

    def _attributes(self, physical_id: str) -> dict[str, str]:
        """The parts of the primary identifier and the read-only properties, the same whenever they are
        asked for."""
        schema = registry_schema(self.type_name)
        identifier = dict(zip(schema.primary_identifier, physical_id.split("|"), strict=True))
        name = physical_id.split("|")[0].rsplit("/", 1)[-1]
        if "UserProfileName" in identifier:
            name = f"{identifier['DomainId']}/{name}"
        return {key: self._attribute(key, name) for key in schema.read_only if "/" not in key} | identifier

    def _attribute(self, key: str, name: str) -> str:
        """A value of the form that the property's name promises."""
        if key.endswith("Arn"):
            _, service, kind = self.type_name.split("::")
            # ARNs of these two part the words of a type: user-profile, task-definition.
            words = re.sub(r"(?<!^)(?=[A-Z])", "-", kind) if service in ("ECS", "SageMaker") else kind
            owner = f"{service.lower().removesuffix('v2')}:{self.region}:{self.account_id}"
            return f"arn:aws:{owner}:{words.lower()}/{name}"
        number = uuid.uuid5(uuid.NAMESPACE_URL, name)
        if key in _FORMS:
            return _FORMS[key].format(number.hex)
        return str(number) if key.endswith("Id") else name
