"""MiniStack's own resource types, made to refuse what CloudFormation refuses.

MiniStack's handlers take what they know of a resource's properties and overlook the rest: a misspelt property
would pass here and fail on AWS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.cloudformation.schema import registry_schema

_REPLACED = ("AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::VPCEndpoint")
"""Types that MiniStack changes in place, or makes a second time, whatever changed."""


def install(*, but: frozenset[str]) -> None:
    """Check the properties of all types `but` these against the registry's schemas before anything is
    made."""
    from ministack.services.cloudformation import provisioners

    for type_name, handlers in provisioners._RESOURCE_HANDLERS.items():
        # What CloudFormation answers itself (custom resources, wait handles) has properties of its user's.
        if type_name in but or type_name.startswith(("AWS::CloudFormation::", "AWS::CDK::")):
            continue
        provisioners._RESOURCE_HANDLERS[type_name] = {
            **handlers,
            "create": _checking(type_name, handlers["create"], properties_at=1),
            **(
                {"update": _checking(type_name, handlers["update"], properties_at=2)}
                if "update" in handlers
                else {}
            ),
        }
    for type_name in _REPLACED:
        provisioners._REPLACING_PROPERTIES[type_name] = registry_schema(type_name).create_only


def _checking(type_name: str, handler: Callable[..., Any], *, properties_at: int) -> Callable[..., Any]:
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            schema = registry_schema(type_name)
        except KeyError:
            # MiniStack knows types that this region's registry has not.
            return handler(*arguments, **named)
        # An empty list parameter is [""] to MiniStack, also where a condition on it should have left it out.
        schema.checked({name: value for name, value in arguments[properties_at].items() if value != [""]})
        return handler(*arguments, **named)

    return checked
