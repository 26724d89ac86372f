"""The model registry: model package groups, their versions, and their approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import botocore.exceptions

from local.containers.errors import ContainerError
from local.containers.registry import pull
from local.sagemaker.errors import in_use, not_found, unsupported, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.listing import page, select
from local.sagemaker.model_card import check_model_card
from local.sagemaker.names import last
from local.sagemaker.s3 import split
from local.sagemaker.store import Document, now
from local.service import Call, Handler, ServiceError

GROUP = "model-package-group"
PACKAGE = "model-package"

_REFUSED = (
    "CertifyForMarketplace",
    "ManagedStorageType",
    "SourceAlgorithmSpecification",
    "ValidationSpecification",
)
_EVENT = "SageMaker Model Package State Change"
_EVENT_MEMBERS = (
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "LastModifiedTime",
    "InferenceSpecification",
    "ModelPackageStatus",
    "ModelPackageStatusDetails",
    "CertifyForMarketplace",
    "ModelApprovalStatus",
    "ApprovalDescription",
    "MetadataProperties",
    "CustomerMetadataProperties",
    "ModelMetrics",
)
_SUMMARY = (
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelLifeCycle",
    "ModelPackageRegistrationType",
)


class Registry:
    """Model package groups and model packages."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateModelPackageGroup": self.create_group,
            "DescribeModelPackageGroup": self.describe_group,
            "ListModelPackageGroups": self.list_groups,
            "DeleteModelPackageGroup": self.delete_group,
            "CreateModelPackage": self.create,
            "DescribeModelPackage": self.describe,
            "UpdateModelPackage": self.update,
            "ListModelPackages": self.list_packages,
            "DeleteModelPackage": self.delete,
        }

    def next_version(self, group: str) -> int:
        """The version that a new package of this group would get."""
        document = self._foundation.store.get(GROUP, group)
        return int((document or {}).get("_LastVersion", 0)) + 1

    def find(self, arn_or_name: str) -> Document:
        """A model package by its ARN or its name ("group/version" or a name without a group)."""
        key = last(arn_or_name)
        document = self._foundation.store.get(PACKAGE, key)
        if document is None:
            raise validation(f"ModelPackage {self._foundation.names.arn(PACKAGE, key)} does not exist.")
        return document

    def create_group(self, call: Call) -> Mapping[str, Any]:
        """A new, empty group."""
        refuse(call.params, ("ManagedConfiguration",))
        name = call.params["ModelPackageGroupName"]
        arn = self._foundation.names.arn(GROUP, name)
        self._foundation.may_tag(call, arn)
        document = {
            **without_tags(call.params),
            "ModelPackageGroupArn": arn,
            "ModelPackageGroupStatus": "Completed",
            "CreationTime": now(),
            "CreatedBy": _by(call),
            "_LastVersion": 0,
        }
        if not self._foundation.store.add(GROUP, name, document):
            raise validation(f"Model Package Group already exists: {arn}")
        self._foundation.tag(call, arn)
        return {"ModelPackageGroupArn": arn}

    def describe_group(self, call: Call) -> Mapping[str, Any]:
        """The group as it stands."""
        return shown(self._group(call.params["ModelPackageGroupName"]))

    def list_groups(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        refuse(call.params, ("CrossAccountFilterOption",))
        chosen = select(self._foundation.store.all(GROUP), call.params, name="ModelPackageGroupName")
        return page(
            chosen,
            call.params,
            into="ModelPackageGroupSummaryList",
            members=(
                "ModelPackageGroupName",
                "ModelPackageGroupArn",
                "ModelPackageGroupDescription",
                "CreationTime",
                "ModelPackageGroupStatus",
            ),
        )

    def delete_group(self, call: Call) -> Mapping[str, Any]:
        """Only an empty group can go."""
        document = self._group(call.params["ModelPackageGroupName"])
        name = document["ModelPackageGroupName"]
        if any(
            package.get("ModelPackageGroupName") == name for package in self._foundation.store.all(PACKAGE)
        ):
            raise ServiceError(
                "ConflictException", f"Model Package Group {name} has model packages; delete them first."
            )
        self._foundation.store.delete(GROUP, name)
        self._foundation.untag(document["ModelPackageGroupArn"])
        return {}

    def create(self, call: Call) -> Mapping[str, Any]:
        """A new version in a group, or a package without a group."""
        params = call.params
        refuse(params, _REFUSED)
        if ("ModelPackageGroupName" in params) == ("ModelPackageName" in params):
            raise validation("Exactly one of ModelPackageGroupName and ModelPackageName must be given.")
        self._check_containers(params.get("InferenceSpecification", {}).get("Containers", []))
        if "ModelCard" in params:
            check_model_card(params["ModelCard"])
        moment = now()
        document: Document = {
            **{member: value for member, value in without_tags(params).items() if member != "ClientToken"},
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "CreatedBy": _by(call),
            "LastModifiedBy": _by(call),
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CertifyForMarketplace": False,
        }
        with self._foundation.store.transaction():
            if repeated := self._repeated(params.get("ClientToken")):
                return {"ModelPackageArn": repeated}
            if "ModelPackageGroupName" in params:
                key = self._new_version(document, last(params["ModelPackageGroupName"]))
            else:
                key = params["ModelPackageName"]
            document["ModelPackageArn"] = self._foundation.names.arn(PACKAGE, key)
            document["_ClientToken"] = params.get("ClientToken")
            self._foundation.may_tag(call, document["ModelPackageArn"])
            if not self._foundation.store.add(PACKAGE, key, document):
                raise in_use(f"Model package already exists: {document['ModelPackageArn']}")
        self._foundation.tag(call, document["ModelPackageArn"])
        self._publish(document)
        return {"ModelPackageArn": document["ModelPackageArn"]}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The package as it stands."""
        if call.params.get("IncludedData") == "MetadataOnly":
            raise unsupported("IncludedData MetadataOnly")
        return shown(self.find(call.params["ModelPackageName"]))

    def update(self, call: Call) -> Mapping[str, Any]:
        """Approve, reject, describe."""
        params = call.params
        if "ModelCard" in params:
            check_model_card(params["ModelCard"])
        key = last(params["ModelPackageArn"])
        self.find(params["ModelPackageArn"])
        if "InferenceSpecification" in params:
            self._check_containers(params["InferenceSpecification"]["Containers"])

        def change(document: Document) -> None:
            for member in (
                "ModelApprovalStatus",
                "ModelPackageRegistrationType",
                "ApprovalDescription",
                "InferenceSpecification",
                "SourceUri",
                "ModelLifeCycle",
            ):
                if member in params:
                    document[member] = params[member]
            properties = document.get("CustomerMetadataProperties", {}) | params.get(
                "CustomerMetadataProperties", {}
            )
            for name in params.get("CustomerMetadataPropertiesToRemove", []):
                properties.pop(name, None)
            if properties or "CustomerMetadataProperties" in document:
                document["CustomerMetadataProperties"] = properties
            if "ModelCard" in params:
                document["ModelCard"] = document.get("ModelCard", {}) | params["ModelCard"]
            if added := params.get("AdditionalInferenceSpecificationsToAdd"):
                document.setdefault("AdditionalInferenceSpecifications", []).extend(added)
            document.update(LastModifiedTime=now(), LastModifiedBy=_by(call))

        document = self._foundation.store.change(PACKAGE, key, change)
        if document is None:
            raise not_found("model package", params["ModelPackageArn"])
        self._publish(document)
        return {"ModelPackageArn": document["ModelPackageArn"]}

    def list_packages(self, call: Call) -> Mapping[str, Any]:
        """Filtered by group, approval and kind, sorted, paged."""
        params = call.params
        group = params.get("ModelPackageGroupName")
        # API_ListModelPackages: without a group, ModelPackageType decides, and its default is Unversioned.
        kind = params.get("ModelPackageType", "Versioned" if group else "Unversioned")
        documents = [
            document
            for document in self._foundation.store.all(PACKAGE)
            if (not group or document.get("ModelPackageGroupName") == last(group))
            and (kind == "Both" or ("ModelPackageVersion" in document) == (kind == "Versioned"))
            and params.get("ModelApprovalStatus") in (None, document.get("ModelApprovalStatus"))
        ]
        for document in documents:
            document.setdefault("ModelPackageName", document.get("ModelPackageGroupName", ""))
        chosen = select(documents, params, name="ModelPackageName")
        return page(chosen, params, into="ModelPackageSummaryList", members=_SUMMARY)

    def delete(self, call: Call) -> Mapping[str, Any]:
        """The package is gone; its version number is not given again."""
        document = self.find(call.params["ModelPackageName"])
        self._foundation.store.delete(PACKAGE, last(document["ModelPackageArn"]))
        self._foundation.untag(document["ModelPackageArn"])
        return {}

    def _group(self, arn_or_name: str) -> Document:
        name = last(arn_or_name)
        document = self._foundation.store.get(GROUP, name)
        if document is None:
            raise validation(f"ModelPackageGroup {self._foundation.names.arn(GROUP, name)} does not exist.")
        return document

    def _new_version(self, document: Document, group: str) -> str:
        self._group(group)

        def count(stored: Document) -> None:
            stored["_LastVersion"] += 1

        changed = self._foundation.store.change(GROUP, group, count) or {}
        version = changed["_LastVersion"]
        document.update(ModelPackageGroupName=group, ModelPackageVersion=version, ModelPackageName=group)
        document.setdefault("ModelApprovalStatus", "PendingManualApproval")
        return f"{group}/{version}"

    def _repeated(self, token: str | None) -> str | None:
        if not token:
            return None
        for document in self._foundation.store.all(PACKAGE):
            if document.get("_ClientToken") == token:
                return str(document["ModelPackageArn"])
        return None

    def _check_containers(self, containers: list[dict[str, Any]]) -> None:
        """As SageMaker does: the image and the model data must exist when they are registered."""
        if len(containers) > 1:
            raise unsupported("more than one container in an InferenceSpecification")
        for container in containers:
            refuse(
                container,
                ("AdditionalModelDataSources", "AdditionalS3DataSource", "BaseModel", "ModelDataSource"),
            )
            if "Image" in container:
                try:
                    pull(client=self._foundation.cloud.client("ecr"), name=container["Image"])
                except (ContainerError, botocore.exceptions.ClientError) as error:
                    raise validation(f"Invalid image {container['Image']}: {error}") from error
            if uri := container.get("ModelDataUrl"):
                bucket, key = split(uri)
                try:
                    self._foundation.cloud.client("s3").head_object(Bucket=bucket, Key=key)
                except botocore.exceptions.ClientError as error:
                    raise validation(f"Could not find model data at {uri}.") from error

    def _publish(self, document: Document) -> None:
        detail = {member: document[member] for member in _EVENT_MEMBERS if member in document}
        self._foundation.publish(_EVENT, document["ModelPackageArn"], detail)


def _by(call: Call) -> dict[str, Any]:
    return {"IamIdentity": {"Arn": call.caller.arn}}
