"""AWS::Athena::NamedQuery and AWS::Glue::SecurityConfiguration, of which MiniStack has only the calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from local.cloudformation.resource import Resource, UnsupportedChange, generated_name
from local.service import Cloud


class NamedQuery:
    """A saved query. Every property is create-only."""

    type_name = "AWS::Athena::NamedQuery"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        params = {"Name": generated_name(stack, logical_id, longest=128), **properties}
        query_id = self._cloud.client("athena").create_named_query(**params)["NamedQueryId"]
        return Resource(physical_id=query_id, attributes={"NamedQueryId": query_id})

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        raise UnsupportedChange(f"every property of query {physical_id} is create-only")

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        _delete(
            lambda: self._cloud.client("athena").delete_named_query(NamedQueryId=physical_id),
            gone=("InvalidRequestException",),
        )


class SecurityConfiguration:
    """How Glue encrypts what it writes. Kept and answered by Glue; the crawler that would use it writes
    nothing."""

    type_name = "AWS::Glue::SecurityConfiguration"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        self._create(properties)
        return Resource(physical_id=properties["Name"])

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        # Glue has no call to update one; CloudFormation replaces it under the same name.
        self.delete(physical_id=physical_id, properties=old)
        self._create(new)
        return {}

    def _create(self, properties: Mapping[str, Any]) -> None:
        # The template's S3Encryptions is the call's S3Encryption.
        encryption = {
            {"S3Encryptions": "S3Encryption"}.get(name, name): value
            for name, value in properties["EncryptionConfiguration"].items()
        }
        self._cloud.client("glue").create_security_configuration(
            Name=properties["Name"], EncryptionConfiguration=encryption
        )

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        _delete(
            lambda: self._cloud.client("glue").delete_security_configuration(Name=physical_id),
            gone=("EntityNotFoundException",),
        )


def _delete(call: Any, *, gone: tuple[str, ...]) -> None:
    """Delete; it is not an error when it was deleted by other means."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in gone:
            raise
