"""What references in templates lead to: plausible values, so that documents can be read as services will."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import cfnlint.data.AdditionalSpecs

ACCOUNT = "999988887777"
"""The account that a template is for, whatever the environment calls it."""

_PSEUDO = {
    "AWS::Region": "us-east-1",
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "monai",
    "AWS::StackId": f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/monai/1234",
    "AWS::NoValue": None,
}

_SERVICES = {"healthimaging": "medical-imaging", "elasticloadbalancingv2": "elasticloadbalancing"}
"""IAM's name of a service, where CloudFormation has another."""

_RESOURCES = {
    ("cloudwatch", "alarm"): "alarm",
    ("iam", "managed-policy"): "policy",
    ("athena", "work-group"): "workgroup",
    ("ec2", "vpc"): "vpc",
    ("kms", "key"): "key",
}
"""IAM's name of a resource type, where CloudFormation has another."""


@cache
def service_authorization() -> dict[str, Any]:
    """Actions, resource types and ARN formats of all services, as cfn-lint brings them. Source:
    https://servicereference.us-east-1.amazonaws.com.
    """
    text = (resources.files(cfnlint.data.AdditionalSpecs) / "Policies.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def arn_of(type: str, name: str) -> str:
    """An ARN of the form that resources of a CloudFormation type have."""
    _, service, last = type.lower().split("::")
    service = _SERVICES.get(service, service)
    kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type.split("::")[2]).lower()
    kinds = service_authorization().get(service, {}).get("Resources", {})
    kind = next((k for k in (_RESOURCES.get((service, kebab)), kebab, last) if k in kinds), None)
    if kind is None:
        return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{kebab}/{name}"
    arn: str = kinds[kind]["ARNFormats"][0]
    for variable, value in {"Partition": "aws", "Region": "us-east-1", "Account": ACCOUNT}.items():
        arn = arn.replace(f"${{{variable}}}", value)
    return arn.replace(".*", name)


class Values:
    """The references of one environment's templates."""

    def __init__(self, templates: Mapping[str, Mapping[str, Any]]) -> None:
        self._templates = templates
        self._exports = {
            json.dumps(output["Export"]["Name"]): (stack, output["Value"])
            for stack, template in templates.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def resolve(self, stack: str, value: Any) -> Any:
        """The value with every reference replaced."""
        if isinstance(value, list):
            return [self.resolve(stack, item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self._ref(stack, argument)
            if function.startswith("Fn::"):
                return self._function(stack, function, argument)
        return {key: self.resolve(stack, item) for key, item in value.items()}

    def _ref(self, stack: str, name: str) -> Any:
        if name in _PSEUDO:
            return _PSEUDO[name]
        template = self._templates[stack]
        if name in template["Resources"]:
            type = template["Resources"][name]["Type"]
            # These answer with their ARN.
            of_arn = ("AWS::IAM::ManagedPolicy", "AWS::SNS::Topic")
            return arn_of(type, name) if type in of_arn else name.lower()
        return template["Parameters"][name].get("Default") or name

    def _function(self, stack: str, function: str, argument: Any) -> Any:
        match function:
            case "Fn::GetAtt":
                logical_id, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
                type = self._templates[stack]["Resources"][logical_id]["Type"]
                is_arn = attribute.endswith(("Arn", "ARN")) or type == "AWS::SecretsManager::Secret"
                return arn_of(type, logical_id.lower()) if is_arn else logical_id.lower()
            case "Fn::ImportValue":
                producer, value = self._exports[json.dumps(argument)]
                return self.resolve(producer, value)
            case "Fn::Join":
                separator, parts = argument
                resolved = self.resolve(stack, parts)
                return separator.join(str(part) for part in resolved)
            case "Fn::Sub":
                text, more = (argument, {}) if isinstance(argument, str) else argument
                return re.sub(
                    r"\$\{([A-Za-z0-9:.]+)\}", lambda match: self._substitute(stack, match[1], more), text
                )
            case "Fn::If":
                return self.resolve(stack, argument[1])
            case "Fn::Select":
                index, items = argument
                chosen = self.resolve(stack, items)
                return chosen[int(index)] if len(chosen) > int(index) else str(chosen)
            case "Fn::Split":
                separator, text = argument
                return str(self.resolve(stack, text)).split(separator)
            case "Fn::Base64":
                return self.resolve(stack, argument)
            case _:
                raise ValueError(
                    f"{stack}: {function} is not read yet: add it to tests/infra/template_values.py"
                )

    def _substitute(self, stack: str, name: str, more: Mapping[str, Any]) -> str:
        if name in more:
            return str(self.resolve(stack, more[name]))
        if "." in name and not name.startswith("AWS::"):
            return str(self._function(stack, "Fn::GetAtt", name))
        return str(self._ref(stack, name))
