"""What every part of the service stands on, and the role that a job works as."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from local.containers.engine import Engine
from local.containers.image import Image
from local.containers.registry import RegistryName, pull
from local.containers.store import ImageStore
from local.sagemaker.errors import unsupported
from local.sagemaker.names import Names
from local.sagemaker.store import Store
from local.service import Call, Cloud, Credentials

logger = logging.getLogger(__name__)

PRINCIPAL = "sagemaker.amazonaws.com"


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """Shared by training, processing, transform, endpoints and pipelines."""

    cloud: Cloud
    store: Store
    names: Names
    images: ImageStore
    engine: Engine
    root: Path
    """Folder of this service below the state root."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the cloud goes down."""

    def take_role(self, call: Call, role_arn: str) -> None:
        """Check that the caller may pass this role (iam:PassRole) and that it trusts SageMaker."""
        self.cloud.authorize(
            caller=call.caller,
            action="iam:PassRole",
            resources=[role_arn],
            context={"iam:PassedToService": PRINCIPAL},
        )
        self.cloud.assume(role_arn=role_arn, principal=PRINCIPAL, session_name="SageMaker")

    def may_tag(self, call: Call, arn: str) -> None:
        """Check that the caller may give the Tags of a Create call (sagemaker:AddTags); before it makes
        anything."""
        if call.params.get("Tags"):
            self.cloud.authorize(caller=call.caller, action="sagemaker:AddTags", resources=[arn])

    def tag(self, call: Call, arn: str) -> None:
        """Keep the Tags of a Create call."""
        tags = call.params.get("Tags")
        if tags:
            self.store.add("tags", arn, {"Tags": {tag["Key"]: tag["Value"] for tag in tags}})

    def untag(self, arn: str) -> None:
        """The resource is gone, so are its tags."""
        self.store.delete("tags", arn)

    def publish(self, detail_type: str, arn: str, detail: Mapping[str, Any]) -> None:
        """An event of aws.sagemaker about one resource. A bus that fails does not fail the resource."""
        try:
            self.cloud.publish(
                source="aws.sagemaker",
                detail_type=detail_type,
                detail=json.loads(json.dumps(detail, default=_event_value)),
                resources=[arn],
            )
        except (RuntimeError, TimeoutError):
            logger.exception("the event %r of %s was lost", detail_type, arn)


class RoleSession:
    """SageMaker at work as a job's role: clients and environment variables with that role's credentials."""

    def __init__(self, foundation: Foundation, *, role_arn: str, name: str) -> None:
        self._cloud = foundation.cloud
        self._images = foundation.images
        self._credentials: Credentials = foundation.cloud.assume(
            role_arn=role_arn, principal=PRINCIPAL, session_name=name[:64]
        )
        self._clients: dict[str, Any] = {}

    @property
    def expiration(self) -> datetime:
        """When the credentials end."""
        return self._credentials.expiration

    def client(self, service: str) -> Any:
        """A boto3 client as the role."""
        if service not in self._clients:
            self._clients[service] = self._cloud.client(service, credentials=self._credentials)
        return self._clients[service]

    def image(self, name: str) -> Image:
        """Pull an image from ECR as the role."""
        RegistryName.parse(name)
        return self._images.find(pull(client=self.client("ecr"), name=name))

    def environment(self) -> dict[str, str]:
        """The AWS variables of a container."""
        return {
            "AWS_ENDPOINT_URL": self._cloud.endpoint_url,
            "AWS_REGION": self._cloud.region,
            "AWS_DEFAULT_REGION": self._cloud.region,
            "AWS_ACCESS_KEY_ID": self._credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._credentials.secret_access_key,
            "AWS_SESSION_TOKEN": self._credentials.session_token,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        }


def refuse(params: Mapping[str, Any], members: Iterable[str]) -> None:
    """Refuse members ("Outer.Inner") of a request that this machine cannot honour, if they are set."""
    for member in members:
        value: Any = params
        for part in member.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            raise unsupported(member)


def without_tags(params: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a Create call that its Describe answers too."""
    return {member: value for member, value in params.items() if member != "Tags"}


def shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as Describe answers it: members of our own begin with an underscore."""
    return {member: value for member, value in document.items() if not member.startswith("_")}


def _event_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)  # events give times in milliseconds
    raise TypeError(f"no event holds a {type(value).__name__}")
