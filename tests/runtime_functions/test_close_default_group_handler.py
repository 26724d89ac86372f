"""The function that closes a default security group: what it removes, and that it always answers."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from cloudformation_listener import listening

from runtime.functions.close_default_group import handler

GROUP = "sg-0123456789abcdef0"
INBOUND = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": GROUP}]}]
OUTBOUND = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


class Ec2:
    """A security group. `stubborn` lists how often rules stay although they were removed."""

    def __init__(self, *, inbound: list[Any], outbound: list[Any], error: Exception | None = None) -> None:
        self.rules = {"IpPermissions": list(inbound), "IpPermissionsEgress": list(outbound)}
        self.error = error
        self.stubborn = 0
        self.removed: list[str] = []

    def describe_security_groups(self, *, GroupIds: list[str]) -> dict[str, Any]:
        if self.error:
            raise self.error
        assert GroupIds == [GROUP]
        return {"SecurityGroups": [{name: list(rules) for name, rules in self.rules.items()}]}

    def _revoke(self, name: str, group: str, permissions: list[Any]) -> None:
        assert group == GROUP
        assert permissions == self.rules[name]
        self.removed.append(name)
        if self.stubborn:
            self.stubborn -= 1
        else:
            self.rules[name] = []

    def revoke_security_group_ingress(self, *, GroupId: str, IpPermissions: list[Any]) -> None:
        self._revoke("IpPermissions", GroupId, IpPermissions)

    def revoke_security_group_egress(self, *, GroupId: str, IpPermissions: list[Any]) -> None:
        self._revoke("IpPermissionsEgress", GroupId, IpPermissions)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "PAUSE_SECONDS", 0.0)


def ask(monkeypatch: pytest.MonkeyPatch, ec2: Ec2, *, refused: int = 0, **event: Any) -> dict[str, Any]:
    """What CloudFormation is told."""
    monkeypatch.setattr(boto3, "client", lambda service, config: {"ec2": ec2}[service])
    request = {
        "RequestType": "Create",
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Closed",
        "ResourceProperties": {"GroupId": GROUP},
        **event,
    }
    with listening(refused=refused) as listener:
        handler.handle({"ResponseURL": listener.url, **request}, None)
    (answer,) = listener.answers
    # CloudFormation signs its URL for an empty content type; with another one S3 refuses the answer.
    assert listener.content_types == [""]
    assert {
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Closed",
    }.items() <= answer.items()
    return answer


def test_every_rule_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=INBOUND, outbound=OUTBOUND)
    answer = ask(monkeypatch, ec2)
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", GROUP)
    assert ec2.rules == {"IpPermissions": [], "IpPermissionsEgress": []}


def test_a_closed_group_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=[], outbound=[])
    assert ask(monkeypatch, ec2, RequestType="Update", PhysicalResourceId=GROUP)["Status"] == "SUCCESS"
    assert ec2.removed == []


def test_rules_on_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=[], outbound=OUTBOUND)
    assert ask(monkeypatch, ec2)["Status"] == "SUCCESS"
    assert ec2.removed == ["IpPermissionsEgress"]


def test_a_group_that_still_shows_its_rules_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=[], outbound=OUTBOUND)
    ec2.stubborn = 2
    assert ask(monkeypatch, ec2)["Status"] == "SUCCESS"


def test_a_group_that_stays_open_fails_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=INBOUND, outbound=[])
    ec2.stubborn = 99
    answer = ask(monkeypatch, ec2)
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(f"GroupStillOpenError: security group {GROUP} has rules after")
    assert len(ec2.removed) == handler.ROUNDS


def test_a_rule_that_somebody_else_removed_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=INBOUND, outbound=[])

    def gone(**_: Any) -> None:
        ec2.rules["IpPermissions"] = []
        raise ClientError({"Error": {"Code": "InvalidPermission.NotFound"}}, "RevokeSecurityGroupIngress")

    monkeypatch.setattr(ec2, "revoke_security_group_ingress", gone)
    assert ask(monkeypatch, ec2)["Status"] == "SUCCESS"


def test_a_deletion_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=INBOUND, outbound=OUTBOUND, error=AssertionError("asked"))
    answer = ask(monkeypatch, ec2, RequestType="Delete", PhysicalResourceId=GROUP)
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", GROUP)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"RequestType": None}, "MalformedRequestError: RequestType is None"),
        ({"RequestType": "Read"}, "MalformedRequestError: RequestType is 'Read'"),
        ({"ResourceProperties": {}}, "MalformedRequestError: the custom resource has no property GroupId"),
        ({"ResourceProperties": None}, "MalformedRequestError: the custom resource has no property GroupId"),
    ],
)
def test_a_request_that_says_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, event: dict[str, Any], reason: str
) -> None:
    answer = ask(monkeypatch, Ec2(inbound=[], outbound=[]), **event)
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "D"),
            "UnauthorizedOperation",
        ),
        (ConnectTimeoutError(endpoint_url="https://ec2"), "ConnectTimeoutError"),
        (MemoryError("x" * 5000), "MemoryError"),
    ],
)
def test_whatever_goes_wrong_is_answered(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    answer = ask(monkeypatch, Ec2(inbound=[], outbound=[], error=error))
    assert answer["Status"] == "FAILED"
    assert reason in answer["Reason"]
    assert len(answer["Reason"]) <= handler.REASON_LENGTH


def test_an_answer_that_is_not_taken_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = Ec2(inbound=[], outbound=OUTBOUND)
    assert ask(monkeypatch, ec2, refused=handler.ANSWER_ATTEMPTS - 1)["Status"] == "SUCCESS"


def test_lambda_hears_of_an_answer_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "client", lambda service, config: Ec2(inbound=[], outbound=[]))
    with listening(refused=99) as listener, pytest.raises(OSError, match="503"):
        handler.handle(
            {
                "RequestType": "Create",
                "ResponseURL": listener.url,
                "ResourceProperties": {"GroupId": GROUP},
            },
            None,
        )


def test_all_rounds_fit_into_the_functions_time() -> None:
    # A call that hangs takes its connection and read timeouts, twice (botocore's second attempt).
    slowest_call = 2 * (3 + 5)
    looking = handler.ROUNDS * handler.PAUSE_SECONDS + slowest_call
    answering = handler.ANSWER_ATTEMPTS * (handler.ANSWER_SECONDS + handler.PAUSE_SECONDS)
    assert looking + answering < 90
