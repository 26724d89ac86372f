"""Policies: actions exist, each has a resource that it can be about, conditions are known, nobody else is let
in.

Actions, resource types and ARN formats come from AWS's service reference, as cfn-lint brings it. It has no
condition keys of actions, so those in use are listed here, from each service's page of
https://docs.aws.amazon.com/service-authorization/latest/reference/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from template_values import ACCOUNT, service_authorization

Statement = dict[str, Any]

_OPERATORS = {
    *("StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"),
    *("StringLike", "StringNotLike", "Bool", "Null", "IpAddress", "NotIpAddress", "BinaryEquals"),
    *("ArnEquals", "ArnNotEquals", "ArnLike", "ArnNotLike"),
    *(f"Numeric{name}" for name in ("Equals", "NotEquals", "LessThan", "LessThanEquals")),
    *(f"Numeric{name}" for name in ("GreaterThan", "GreaterThanEquals")),
    *(f"Date{name}" for name in ("Equals", "NotEquals", "LessThan", "GreaterThan")),
}

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
_GLOBAL_KEYS = {
    *("aws:PrincipalArn", "aws:PrincipalAccount", "aws:PrincipalOrgID", "aws:PrincipalOrgPaths"),
    *("aws:PrincipalTag/*", "aws:PrincipalIsAWSService", "aws:PrincipalServiceName", "aws:PrincipalType"),
    *("aws:ResourceAccount", "aws:ResourceOrgID", "aws:ResourceTag/*", "aws:RequestTag/*", "aws:TagKeys"),
    *("aws:RequestedRegion", "aws:SecureTransport", "aws:SourceAccount", "aws:SourceArn", "aws:SourceIp"),
    *("aws:SourceOrgID", "aws:SourceVpc", "aws:SourceVpce", "aws:SourceIdentity", "aws:ViaAWSService"),
    *("aws:CalledVia", "aws:CalledViaFirst", "aws:CalledViaLast", "aws:MultiFactorAuthPresent"),
    *("aws:VpcSourceIp", "aws:Ec2InstanceSourceVpc", "aws:userid", "aws:username", "aws:CurrentTime"),
}

_SERVICE_KEYS = {
    "cloudformation": {
        "cloudformation:RoleArn",
        "cloudformation:ChangeSetName",
        "cloudformation:StackPolicyUrl",
    },
    "cloudwatch": {"cloudwatch:namespace"},
    "events": {"events:source", "events:detail-type"},
    "ec2": {"ec2:Vpc", "ec2:Subnet", "ec2:AuthorizedService", "ec2:Permission", "ec2:CreateAction"},
    "iam": {"iam:PassedToService", "iam:AssociatedResourceArn", "iam:PermissionsBoundary"},
    "kms": {
        *("kms:ViaService", "kms:CallerAccount", "kms:GrantIsForAWSResource", "kms:GrantConstraintType"),
        *("kms:EncryptionContext:*", "kms:EncryptionContextKeys", "kms:GrantOperations", "kms:KeyOrigin"),
    },
    "lambda": {"lambda:SourceFunctionArn", "lambda:FunctionArn", "lambda:VpcIds", "lambda:SubnetIds"},
    "medical-imaging": {"medical-imaging:StudyInstanceUID", "medical-imaging:SeriesInstanceUID"},
    "s3": {
        *("s3:prefix", "s3:delimiter", "s3:x-amz-acl", "s3:x-amz-server-side-encryption", "s3:TlsVersion"),
        *("s3:if-none-match", "s3:ObjectCreationOperation"),
    },
    "sagemaker": {
        *("sagemaker:OwnerUserProfileArn", "sagemaker:SpaceSharingType", "sagemaker:TaggingAction"),
        *("sagemaker:InstanceTypes", "sagemaker:VpcSubnets", "sagemaker:VpcSecurityGroupIds"),
        *("sagemaker:VolumeKmsKey", "sagemaker:OutputKmsKey", "sagemaker:NetworkIsolation"),
        *("sagemaker:InterContainerTrafficEncryption", "sagemaker:ModelApprovalStatus", "sagemaker:RoleArn"),
    },
    "sns": {"sns:Protocol", "sns:Endpoint"},
    "sts": {"sts:ExternalId", "sts:RoleSessionName", "sts:SourceIdentity"},
    "token.actions.githubusercontent.com": {
        f"token.actions.githubusercontent.com:{claim}"
        for claim in ("aud", "sub", "repository", "environment", "ref", "job_workflow_ref")
    },
}

_FORM = {
    "s3": {"bucket": "arn:aws:s3:::[^/]*", "object": "arn:aws:s3:::[^/]*/.*"},
    # The reference shortens these formats; in full: datastore/ID and datastore/ID/imageset/ID.
    "medical-imaging": {
        "datastore": "arn:aws:medical-imaging:[^:]*:[^:]*:datastore/[^/]*",
        "imageset": "arn:aws:medical-imaging:[^:]*:[^:]*:datastore/[^/]*/imageset/.*",
    },
}

_UNCONFUSED = {
    *("lambda.amazonaws.com", "glue.amazonaws.com", "codebuild.amazonaws.com"),
    "codepipeline.amazonaws.com",
}
"""Services that do not say for whom they act when they assume a role, so no condition can ask; and that of
the pipeline, whose role the CDK makes.
"""


def identity_policy(policy: Any) -> Iterator[str]:
    """Problems of a policy that belongs to a role."""
    yield from generated_policy(policy)
    for statement in policy["Statement"]:
        yield from _resources(statement)
        if statement["Effect"] == "Allow":
            for action in _list(statement["Action"]):
                if "*" in action:
                    yield f"{action}: name the actions"


def generated_policy(policy: Any) -> Iterator[str]:
    """Problems of a policy that the CDK writes for its pipeline. Where it is wider than need be, that is
    acknowledged wildcard by wildcard.
    """
    for statement in _statements(policy):
        yield from _about(statement)
        if "Principal" in statement:
            yield "a principal in a policy of a role"


def resource_policy(service: str) -> Callable[[Any], Iterator[str]]:
    """Problems of a policy that belongs to a resource of a service."""

    def problems(policy: Any) -> Iterator[str]:
        for statement in _statements(policy):
            yield from _about(statement)
            yield from _lets_in(statement)
            for action in _list(statement["Action"]):
                if action.split(":")[0] not in (service, "*"):
                    yield f"{action}: not an action on what the policy belongs to"

    return problems


def tls_only(service: str) -> Callable[[Any], Iterator[str]]:
    """As `resource_policy`, of a resource that is reached over HTTP."""

    def problems(policy: Any) -> Iterator[str]:
        yield from resource_policy(service)(policy)
        if not any(_refuses_plain_http(statement) for statement in policy["Statement"]):
            yield "does not refuse plain HTTP"

    return problems


def trust_policy(policy: Any) -> Iterator[str]:
    """Problems of the policy that says who may assume a role."""
    for statement in _statements(policy):
        yield from _about(statement)
        for action in _list(statement["Action"]):
            if not action.startswith("sts:"):
                yield f"{action}: not an action on a role"
        principal = statement.get("Principal")
        services = set(_list(principal.get("Service", []))) if isinstance(principal, dict) else set()
        if not services or not services <= _UNCONFUSED:
            yield from _lets_in(statement)


def endpoint_policy(policy: Any) -> Iterator[str]:
    """Problems of the policy of a VPC endpoint: what may pass, whoever the role lets it."""
    for statement in _statements(policy):
        yield from _about(statement)
        if statement["Effect"] == "Allow" and _list(statement["Action"]) == ["*"]:
            keys = {key for _, key, _ in _conditions(statement)}
            if not {"aws:PrincipalAccount", "aws:ResourceAccount"} <= keys:
                yield "everything may pass to everywhere"
        elif statement["Effect"] == "Allow" and _list(statement["Resource"]) == ["*"]:
            if {key for _, key, _ in _conditions(statement)} & {"aws:ResourceAccount", "aws:ResourceOrgID"}:
                continue
            yield f"{statement['Action']}: on every resource of everybody"


def _statements(policy: Any) -> Iterator[Statement]:
    if policy.get("Version") != "2012-10-17":
        raise AssertionError(f"policy of version {policy.get('Version')}")
    assert policy["Statement"], "no statement"
    yield from policy["Statement"]


def _about(statement: Statement) -> Iterator[str]:
    """What holds for statements of all policies."""
    unknown = set(statement) - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    if unknown:
        yield f"keys {sorted(unknown)}: say it with Action, Resource and Principal"
    if statement.get("Effect") not in ("Allow", "Deny"):
        yield f"effect {statement.get('Effect')}"
    services = set()
    for action in _list(statement["Action"]):
        if action == "*":
            continue
        service, _, name = action.partition(":")
        services.add(service)
        known = service_authorization().get(service, {}).get("Actions", {})
        if not any(fnmatchcase(candidate, name.lower()) for candidate in known):
            yield f"{action}: no such action"
    for operator, key, value in _conditions(statement):
        plain = re.sub(r"^(ForAllValues|ForAnyValue):", "", operator).removesuffix("IfExists")
        if plain not in _OPERATORS:
            yield f"{operator}: no such operator"
        if not any(fnmatchcase(key, pattern) for pattern in _known_keys(key)):
            yield f"{key}: no such condition key"
        if not _list(value):
            yield f"{key}: compared with nothing"
        if plain.startswith("Arn") and not all(str(v).startswith("arn:") for v in _list(value)):
            yield f"{key}: {value} is no ARN"


def _known_keys(key: str) -> set[str]:
    service = key.split(":")[0]
    if service == "aws":
        return _GLOBAL_KEYS
    of_resources = {
        re.sub(r"\$\{\w+\}", "*", known)
        for kind in service_authorization().get(service, {}).get("Resources", {}).values()
        for known in kind.get("ConditionKeys", [])
    }
    return of_resources | _SERVICE_KEYS.get(service, set())


_ALSO_ABOUT = {"sagemaker:createmodelpackage": ["model-package-group"]}
"""Resource types that the service's page names and cfn-lint's copy of the reference lacks."""


def _resources(statement: Statement) -> Iterator[str]:
    """Each action has a resource in the statement that it can be about, and no resource is in vain."""
    resources = _list(statement["Resource"])
    used = set()
    for action in _list(statement["Action"]):
        service, _, name = action.partition(":")
        reference = service_authorization().get(service, {})
        for candidate, details in reference.get("Actions", {}).items():
            if not fnmatchcase(candidate, name.lower()):
                continue
            kinds = [*details.get("Resources", []), *_ALSO_ABOUT.get(f"{service}:{candidate}", [])]
            formats = [_format(service, kind) for kind in kinds]
            fitting = {
                resource
                for resource in resources
                if resource == "*" or any(_fits(resource, format) for format in formats)
            }
            used |= fitting
            if formats and not fitting:
                yield f"{action}: none of {resources} is what it is about"
            if not formats and "*" not in resources:
                yield f"{action}: knows no resources, so it is allowed on * or not at all"
    for resource in sorted(set(resources) - used):
        yield f"{resource}: no action of the statement is about it"


def _format(service: str, kind: str) -> list[str]:
    if kind in _FORM.get(service, {}):
        return [_FORM[service][kind]]
    known = service_authorization()[service]["Resources"]
    # The reference calls the resource of Secrets Manager `Secret`, cfn-lint's copy of its ARN `secret`.
    formats = known.get(kind, known.get(kind.lower(), {})).get("ARNFormats", [])
    return [re.sub(r"\$\{\w+\}", "[^:]*", format.replace("${Partition}", "aws")) for format in formats]


def _fits(resource: str, formats: list[str]) -> bool:
    """Whether the resource, which may have wildcards, stands for something of one of the formats."""
    return any(_meet(resource, _tokens(format)) for format in formats)


def _tokens(format: str) -> tuple[str, ...]:
    """Characters of a format, and `*` with the characters that it does not stand for."""
    return tuple(re.findall(r"\[\^.\]\*|\.\*|.", format))


def _meet(glob: str, format: tuple[str, ...]) -> bool:
    """Whether some text matches both."""

    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(glob) and j == len(format):
            return True
        if i < len(glob) and glob[i] == "*":
            return meet(i + 1, j) or (j < len(format) and meet(i, j + 1))
        if j < len(format) and len(format[j]) > 1:
            excluded = format[j][2] if format[j].startswith("[") else ""
            return meet(i, j + 1) or (i < len(glob) and glob[i] != excluded and meet(i + 1, j))
        return i < len(glob) and j < len(format) and glob[i] == format[j] and meet(i + 1, j + 1)

    return meet(0, 0)


def _lets_in(statement: Statement) -> Iterator[str]:
    """Who is let in from outside the account, or by a service on behalf of anybody."""
    principal = statement.get("Principal")
    if principal is None:
        yield "no principal"
        return
    if statement["Effect"] != "Allow":
        return
    values = [str(v) for _, _, value in _conditions(statement) for v in _list(value)]
    keys = {key for _, key, _ in _conditions(statement)}
    if not isinstance(principal, dict):
        yield "everybody"
        return
    for kind, names in principal.items():
        for name in _list(names):
            if kind == "AWS" and name == "*":
                if not {"aws:PrincipalAccount", "aws:PrincipalArn", "aws:PrincipalOrgID"} & keys:
                    yield "everybody"
            elif kind == "AWS" and f":{ACCOUNT}:" not in name:
                # Another account of the platform: one role of it, or events that only AWS itself can send.
                if not {"aws:PrincipalArn", "events:source"} & keys and not re.search(r":role/[^*]+$", name):
                    yield f"{name}: all of another account"
            elif kind == "Service":
                # The account is named: by itself, or within the ARN that the service acts for.
                if not any(
                    re.search(r"\d{12}", value) or value.startswith("arn:aws:s3:::") for value in values
                ):
                    yield f"{name}: on behalf of any account"
            elif kind == "Federated" and not {k for k in keys if k.endswith(":sub")}:
                yield f"{name}: any identity of the provider"


def _refuses_plain_http(statement: Statement) -> bool:
    return (
        statement["Effect"] == "Deny"
        and statement["Principal"] in ("*", {"AWS": "*"})
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    )


def _conditions(statement: Statement) -> Iterator[tuple[str, str, Any]]:
    for operator, comparisons in statement.get("Condition", {}).items():
        for key, value in comparisons.items():
            yield operator, key, value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
