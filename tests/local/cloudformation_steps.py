"""Steps of the CloudFormation tests: deploy a template and see how it ended."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest


def deploy(
    cloud: Any, name: str, template: dict[str, Any] | None, *, update: bool = False, **options: Any
) -> dict[str, Any]:
    """Create or update a stack and wait for its end; the stack as described then."""
    client = cloud.client("cloudformation")
    body = {"TemplateBody": json.dumps(template)} if template else {"UsePreviousTemplate": True}
    (client.update_stack if update else client.create_stack)(
        StackName=name, Capabilities=["CAPABILITY_IAM"], **body, **options
    )
    return settled(cloud, name)


def settled(cloud: Any, name: str) -> dict[str, Any]:
    client = cloud.client("cloudformation")
    for _ in range(600):
        stack: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
        if not stack["StackStatus"].endswith("_IN_PROGRESS"):
            return stack
        time.sleep(0.1)
    pytest.fail(f"stack {name} did not settle")


def reasons(cloud: Any, name: str) -> str:
    events = cloud.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return "\n".join(event.get("ResourceStatusReason", "") for event in events)


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
