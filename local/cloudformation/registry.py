"""Puts our resource types into MiniStack's CloudFormation engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from local.alarms import ON_EXPRESSIONS
from local.cloudformation import stricter
from local.cloudformation.analytics import NamedQuery, SecurityConfiguration
from local.cloudformation.budgets import Budget
from local.cloudformation.calls import ServiceCalls
from local.cloudformation.healthimaging import Datastore
from local.cloudformation.network import FlowLog, SecurityGroupRule
from local.cloudformation.recorded import INERT_TYPES, RECORDED_TYPES, RecordedType
from local.cloudformation.resource import ResourceType
from local.cloudformation.sagemaker import (
    Endpoint,
    EndpointConfig,
    InferenceComponent,
    Model,
    ModelPackageGroup,
    Pipeline,
)
from local.cloudformation.schema import RegistrySchema, registry_schema
from local.cloudformation.unrecorded import Unrecorded
from local.service import Cloud, Service

Handlers = dict[str, Callable[..., Any]]

_SAGEMAKER = (Pipeline, ModelPackageGroup, Model, EndpointConfig, Endpoint, InferenceComponent)


def install_resource_types(
    cloud: Cloud, services: Mapping[str, Service], unrecorded: Unrecorded
) -> Mapping[str, ResourceType]:
    """Make every type known to the engine: its handlers, and which properties replace the resource.

    `unrecorded` keeps what is made until its record is on disk. Returns the types by their names.
    """
    from ministack.services.cloudformation import provisioners, stacks

    types = _types(cloud, services, unrecorded)
    for name, resource_type in types.items():
        schema = registry_schema(name)
        provisioners._RESOURCE_HANDLERS[name] = _handlers(resource_type, schema)
        provisioners._REPLACING_PROPERTIES[name] = schema.create_only
        named = f"{name.rpartition('::')[2]}Name"
        if named in schema.create_only and named in schema.document["properties"]:
            # Two resources of one name cannot exist at a time, so a replacement needs a new name.
            provisioners._CUSTOM_NAME_REPLACEMENT[name] = {
                "name": named,
                "requires_replacement": _replacement_test(schema),
            }
    stricter.install(but=frozenset(types))
    in_thread = stacks._runs_on_worker_thread
    # They wait and call back into this server, which must not stand still meanwhile.
    stacks._runs_on_worker_thread = lambda name: name in types or in_thread(name)
    return types


def _types(cloud: Cloud, services: Mapping[str, Service], unrecorded: Unrecorded) -> dict[str, ResourceType]:
    def calls(service: str) -> ServiceCalls:
        return ServiceCalls(
            service=services[service],
            account_id=cloud.account_id,
            region=cloud.region,
            unrecorded=unrecorded,
        )

    sagemaker = calls("sagemaker")
    real: list[ResourceType] = [
        Datastore(calls("medical-imaging")),
        *(kind(calls=sagemaker) for kind in _SAGEMAKER),
        NamedQuery(cloud),
        SecurityConfiguration(cloud),
        FlowLog(cloud=cloud),
        *(SecurityGroupRule(cloud=cloud, direction=direction) for direction in ("Ingress", "Egress")),
        Budget(cloud=cloud),
    ]
    recorded: list[ResourceType] = [
        RecordedType(type_name=name, account_id=cloud.account_id, region=cloud.region)
        for name in RECORDED_TYPES
    ]
    return {resource_type.type_name: resource_type for resource_type in (*real, *recorded)}


def _handlers(resource_type: ResourceType, schema: RegistrySchema) -> Handlers:
    """The functions that MiniStack's engine calls, with its argument orders."""

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        made = resource_type.create(stack=stack, logical_id=logical_id, properties=schema.checked(properties))
        return made.physical_id, dict(made.attributes)

    def update(
        physical_id: str, old: dict[str, Any], new: dict[str, Any], stack: str
    ) -> tuple[str, dict[str, Any]]:
        attributes = resource_type.update(
            physical_id=physical_id, old=schema.checked(old), new=schema.checked(new)
        )
        return physical_id, dict(attributes)

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        resource_type.delete(physical_id=physical_id, properties=properties)

    return {"create": create, "update": update, "delete": delete}


def _replacement_test(schema: RegistrySchema) -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    return lambda old, new: any(old.get(name) != new.get(name) for name in schema.create_only)


def recorded_only() -> list[str]:
    """The types in stacks that exist now which are only recorded."""
    from ministack.services import cloudformation

    return sorted(
        {
            shown
            # Copies: a worker thread may be adding to them.
            for stack in list(cloudformation._stacks._data.values())
            if stack.get("StackStatus") != "DELETE_COMPLETE"
            for record in list(stack.get("_resources", {}).values())
            if (shown := _shown(record))
        }
    )


def _shown(record: Mapping[str, Any]) -> str:
    """The type of a resource that is only recorded, as `status` lists it; "" for any other resource."""
    name = str(record.get("ResourceType", ""))
    if name == "AWS::CloudWatch::Alarm" and record.get("Properties", {}).get("Metrics"):
        return ON_EXPRESSIONS
    return name if name in (*RECORDED_TYPES, *INERT_TYPES) else ""
