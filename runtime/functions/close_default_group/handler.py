"""Closes the default security group of a VPC: CloudFormation can neither make nor change that group.

A new VPC's default group lets its members talk to each other and to everywhere, and a resource that is made
without a group gets this one. Without rules it is of no use to anybody, which is the point (CIS AWS
Foundations; HIPAA Security Rule 164.312(e)(1)).

Called by CloudFormation as a custom resource with the property `GroupId`. It always answers, with a reason
when something is wrong: a stack whose custom resource stays silent waits for an hour.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

ROUNDS = 5
"""How often the group is looked at: EC2 may still show rules that are gone."""

PAUSE_SECONDS = 1.0

ANSWER_SECONDS = 5
"""For one attempt to answer. With all attempts and all rounds well below the function's timeout."""

ANSWER_ATTEMPTS = 3

REASON_LENGTH = 1000
"""CloudFormation takes answers of up to 4096 bytes."""


class MalformedRequestError(Exception):
    """The custom resource does not say what to do."""


class GroupStillOpenError(Exception):
    """The group has rules after all rounds: somebody else adds them."""


def handle(event: Mapping[str, Any], context: object) -> None:
    """Do what a custom resource's request says, and answer it.

    Args:
        event: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/crpg-ref-requests.html
        context: Lambda's context; not used.
    """
    group_id = event.get("PhysicalResourceId") or event.get("LogicalResourceId") or "unknown"
    try:
        request = event.get("RequestType")
        if request in ("Create", "Update"):
            group_id = _group_of(event)
            close(group_id)
        elif request != "Delete":
            raise MalformedRequestError(f"RequestType is {request!r}, not Create, Update or Delete")
        # Nothing to do on Delete: the group goes with its VPC, and an open one would be worse than none.
    # Whatever is wrong, CloudFormation has to hear of it.
    except Exception as error:
        logger.exception("the default group %s is not closed", group_id)
        _answer(event, group_id, status="FAILED", reason=f"{type(error).__name__}: {error}"[:REASON_LENGTH])
    else:
        _answer(event, group_id, status="SUCCESS", reason="")


def close(group_id: str) -> None:
    """Remove every rule of the group. One without rules stays as it is.

    Raises:
        GroupStillOpenError: There are rules after several rounds.
    """
    config = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "max_attempts": 2})
    ec2 = boto3.client("ec2", config=config)
    for attempt in range(ROUNDS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        (group,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
        inbound, outbound = group["IpPermissions"], group["IpPermissionsEgress"]
        if not inbound and not outbound:
            return
        try:
            if inbound:
                ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=inbound)
            if outbound:
                ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=outbound)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidPermission.NotFound":
                raise
            logger.info("rules of %s were gone already", group_id)
    raise GroupStillOpenError(
        f"security group {group_id} has rules after they were removed {ROUNDS} times; stop whatever adds "
        "them, then deploy again"
    )


def _group_of(event: Mapping[str, Any]) -> str:
    group_id = (event.get("ResourceProperties") or {}).get("GroupId")
    if not isinstance(group_id, str) or not group_id:
        raise MalformedRequestError("the custom resource has no property GroupId")
    return group_id


def _answer(event: Mapping[str, Any], group_id: str, *, status: str, reason: str) -> None:
    """Put the answer where CloudFormation waits for it. Raises after the last attempt: Lambda then calls the
    function again, and closing a group twice does no harm.
    """
    body = {
        "Status": status,
        "Reason": reason,
        "PhysicalResourceId": group_id,
        **{name: event.get(name) for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        event["ResponseURL"],
        data=json.dumps(body).encode(),
        # The URL is signed for an empty content type.
        headers={"Content-Type": ""},
        method="PUT",
    )
    for attempt in range(1, ANSWER_ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310 - the URL is CloudFormation's
                return
        except OSError:
            if attempt == ANSWER_ATTEMPTS:
                raise
            logger.warning("CloudFormation did not take the answer, attempt %d", attempt)
            time.sleep(PAUSE_SECONDS)
