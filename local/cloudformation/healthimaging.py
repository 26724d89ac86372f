"""AWS::HealthImaging::Datastore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.cloudformation.calls import ServiceCalls, wait_until
from local.cloudformation.resource import Resource, UnsupportedChange, generated_name
from local.service import ServiceError


class Datastore:
    """`Ref` is the datastore's id. Name, key and tags are create-only: a change replaces the datastore."""

    type_name = "AWS::HealthImaging::Datastore"

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        params: dict[str, Any] = {
            "datastoreName": properties.get("DatastoreName") or generated_name(stack, logical_id)
        }
        if "KmsKeyArn" in properties:
            params["kmsKeyArn"] = properties["KmsKeyArn"]
        if properties.get("Tags"):
            params["tags"] = dict(properties["Tags"])
        datastore_id = str(self._calls.invoke("CreateDatastore", params)["datastoreId"])
        wait_until(lambda: self._status(datastore_id) != "CREATING", what=f"datastore {datastore_id}")
        described = self._describe(datastore_id)
        if described["datastoreStatus"] != "ACTIVE":
            raise RuntimeError(f"Datastore {datastore_id} is {described['datastoreStatus']}")
        return Resource(
            physical_id=datastore_id,
            attributes={
                "DatastoreId": datastore_id,
                "DatastoreArn": described["datastoreArn"],
                "DatastoreName": described["datastoreName"],
                "DatastoreStatus": described["datastoreStatus"],
                "CreatedAt": str(described["createdAt"]),
                "UpdatedAt": str(described["updatedAt"]),
            },
        )

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        raise UnsupportedChange(f"every property of datastore {physical_id} is create-only")

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        if self._status(physical_id) in ("", "DELETED"):
            return
        self._calls.invoke("DeleteDatastore", {"datastoreId": physical_id})
        wait_until(lambda: self._status(physical_id) in ("", "DELETED"), what=f"datastore {physical_id}")

    def _describe(self, datastore_id: str) -> Mapping[str, Any]:
        described: Mapping[str, Any] = self._calls.invoke("GetDatastore", {"datastoreId": datastore_id})[
            "datastoreProperties"
        ]
        return described

    def _status(self, datastore_id: str) -> str:
        """The datastore's status; "" if there is none."""
        try:
            return str(self._describe(datastore_id)["datastoreStatus"])
        except ServiceError as error:
            if error.code == "ResourceNotFoundException":
                return ""
            raise
