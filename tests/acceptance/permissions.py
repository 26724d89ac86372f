"""Takes one permission away from a deployed role, and gives it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def withheld(iam: Any, *, role_arn: str, action: str) -> Iterator[None]:
    """The role's policies without `action`, for as long as the block lasts.

    Each policy that grants it gets a new default version, as a person would change it in the console.
    """
    role = role_arn.rpartition("/")[2]
    changed: list[tuple[str, dict[str, Any]]] = []
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        arn = attached["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        if isinstance(document, str):
            document = json.loads(document)
        lesser = _without(document, action)
        if lesser != document:
            _replace(iam, arn, lesser)
            changed.append((arn, document))
    assert changed, f"no policy of {role} grants {action}: nothing would be shown"
    try:
        yield
    finally:
        for arn, document in changed:
            _replace(iam, arn, document)


def _replace(iam: Any, arn: str, document: dict[str, Any]) -> None:
    """Make `document` the policy's only version: a managed policy may have five."""
    before = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)
    iam.delete_policy_version(PolicyArn=arn, VersionId=before)


def _without(document: dict[str, Any], action: str) -> dict[str, Any]:
    statements = []
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        left = [one for one in actions if one != action]
        if left:
            statements.append({**statement, "Action": left if left != actions else statement["Action"]})
    return {**document, "Statement": statements}
