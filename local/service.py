"""What a service of the local cloud is, and what it may ask of the cloud around it.

A service names its operations as botocore does and answers each with a plain synchronous function.
Everything on the wire (parsing, validation, authorisation, serialisation) is done once, by
`local.protocol`, from botocore's model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who signed the request: the account, region and access key of the credential scope, and the caller's
    ARN."""

    account_id: str
    region: str
    access_key_id: str
    arn: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request: the operation, its parameters as boto3 spells them, and who asks.

    Timestamps in `params` are aware `datetime`s, blobs (streaming ones too) are `bytes`.
    """

    operation: str
    params: dict[str, Any]
    caller: Caller
    request_id: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Temporary credentials of a role."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: datetime


class ServiceError(Exception):
    """An error that the caller sees, with the code of the service's model ("ResourceNotFoundException").

    The HTTP status is the one of the model's error shape unless it is given, else 400.
    `fields` are the further members of the error shape.
    """

    def __init__(self, code: str, message: str, *, status: int | None = None, **fields: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields


Handler = Callable[[Call], Mapping[str, Any]]
"""Answers one operation. Runs in a worker thread, so it may block and may call back into the cloud with
boto3."""

Prompt = Callable[[Call], bool]
"""Whether the handler of a call that has been admitted neither waits for anything nor calls back into the
cloud nor works for long: then it may run on the event loop. A thread of its own for each request costs more
than reading a frame does. Runs on the event loop itself, and raises nothing."""


ConditionKeys = Mapping[str, str | list[str]]
"""IAM condition keys with their values, as text; a list where a key has several."""


class Cloud(Protocol):
    """The cloud around a service."""

    root: Path
    """Folder of all state; a service keeps its own below it."""
    endpoint_url: str
    account_id: str
    region: str

    def client(self, service: str, *, credentials: Credentials | None = None) -> Any:
        """A boto3 client on this cloud, with the given credentials or as the account's root."""

    def assume(
        self, *, role_arn: str, principal: str, session_name: str, source_arn: str | None = None
    ) -> Credentials:
        """Credentials of a role for a service principal, "sagemaker.amazonaws.com".

        `source_arn` is what a trust policy sees as aws:SourceArn: the job, the endpoint, the datastore.
        Raises `ServiceError` where the role does not exist or its trust policy does not allow the principal.
        """

    def authorize(
        self,
        *,
        caller: Caller,
        action: str,
        resources: Sequence[str],
        context: ConditionKeys | None = None,
    ) -> None:
        """Raise `ServiceError("AccessDeniedException")` unless the caller may do `action` on every
        resource."""

    def publish(
        self, *, source: str, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str]
    ) -> None:
        """Put an event of a service ("aws.medical-imaging") on the account's default event bus."""


class Service(Protocol):
    """One AWS service."""

    name: str
    """botocore's name of it: "medical-imaging", "sagemaker", "sagemaker-runtime"."""

    def handlers(self) -> Mapping[str, Handler]:
        """The operations that are supported. Any other operation of the model answers
        UnsupportedOperation."""

    def prompt(self) -> Mapping[str, Prompt]:
        """Operations that can be answered on the event loop, without a thread, each with when."""

    def resources(self, operation: str, params: Mapping[str, Any], caller: Caller) -> Sequence[str]:
        """ARNs that a call is authorised against; "*" where AWS has no resource for the operation."""

    def condition_keys(self, operation: str, params: Mapping[str, Any]) -> ConditionKeys:
        """What a call says of itself to the conditions of policies, beside the keys of every request."""

    def start(self) -> None:
        """Resume what a restart interrupted. Called when the cloud answers requests."""

    def stop(self) -> None:
        """Stop threads and processes of the service. Called before the cloud goes down."""
