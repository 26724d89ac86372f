"""AWS::SageMaker::{Pipeline,ModelPackageGroup,Model,EndpointConfig,Endpoint,InferenceComponent}."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from local.cloudformation.calls import ServiceCalls, wait_until
from local.cloudformation.resource import Resource, UnsupportedChange, changed, generated_name
from local.service import ServiceError


@dataclass(frozen=True, kw_only=True)
class SageMakerType:
    """A type whose properties are the parameters of one Create operation.

    `kind` is the noun in the operations' names: CreateModel, DescribeModel, DeleteModel.
    """

    calls: ServiceCalls
    kind: str
    ref_is_name: bool = False
    """`Ref` is the name (pipelines); of the others it is the ARN."""
    update_only: frozenset[str] = frozenset()
    """Properties that say how to update, which the Create operation does not know."""

    @property
    def type_name(self) -> str:
        return f"AWS::SageMaker::{self.kind}"

    def create(self, *, stack: str, logical_id: str, properties: Mapping[str, Any]) -> Resource:
        name = str(properties.get(f"{self.kind}Name") or generated_name(stack, logical_id).lower())
        given = {k: value for k, value in self._parameters(properties).items() if k not in self.update_only}
        params = given | {f"{self.kind}Name": name}
        # Of a name that is taken nothing is noted: the service refuses it, and it is not this stack's.
        unrecorded = self.calls.unrecorded
        noted = nullcontext() if self._exists(name) else unrecorded.keeping(self.type_name, name)
        with noted:
            self.calls.invoke(f"Create{self.kind}", params)
            attributes = self._settled(name, created=True)
        return Resource(
            physical_id=name if self.ref_is_name else attributes[f"{self.kind}Arn"], attributes=attributes
        )

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        name = self._name(physical_id, old)
        attributes = self._attributes(name)
        differing = changed(old, new)
        if "Tags" in differing:
            self._retag(attributes[f"{self.kind}Arn"], old.get("Tags", []), new.get("Tags", []))
        if differing - {"Tags"}:
            self._update(name, self._parameters(new), differing - {"Tags"})
        return self._settled(name, created=False)

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        try:
            self.calls.invoke(f"Delete{self.kind}", {f"{self.kind}Name": self._name(physical_id, properties)})
        except ServiceError as error:
            if not _is_missing(error):
                raise

    def _parameters(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return dict(properties)

    def _update(self, name: str, parameters: dict[str, Any], differing: set[str]) -> None:
        raise UnsupportedChange(
            f"{self.type_name} {name}: {', '.join(sorted(differing))} cannot change in place"
        )

    def _settled(self, name: str, *, created: bool) -> dict[str, Any]:
        """The attributes once the resource is ready."""
        return self._attributes(name)

    def _name(self, physical_id: str, properties: Mapping[str, Any]) -> str:
        """The resource's name. SageMaker's ARNs have it in lower case, so only generated names are read
        from one."""
        return str(properties.get(f"{self.kind}Name") or physical_id.rsplit("/", 1)[-1])

    def _describe(self, name: str) -> dict[str, Any]:
        return self.calls.invoke(f"Describe{self.kind}", {f"{self.kind}Name": name})

    def _exists(self, name: str) -> bool:
        try:
            self._describe(name)
        except ServiceError as error:
            if _is_missing(error):
                return False
            raise
        return True

    def _attributes(self, name: str) -> dict[str, Any]:
        described = self._describe(name)
        wanted = (f"{self.kind}Name", f"{self.kind}Arn", f"{self.kind}Status", "CreationTime")
        return {key: str(described[key]) for key in wanted if key in described}

    def _retag(self, arn: str, old: list[Mapping[str, str]], new: list[Mapping[str, str]]) -> None:
        gone = {tag["Key"] for tag in old} - {tag["Key"] for tag in new}
        if gone:
            self.calls.invoke("DeleteTags", {"ResourceArn": arn, "TagKeys": sorted(gone)})
        if new:
            self.calls.invoke("AddTags", {"ResourceArn": arn, "Tags": list(new)})


@dataclass(frozen=True, kw_only=True)
class Pipeline(SageMakerType):
    """A pipeline definition, given in the template or as an S3 object."""

    kind: str = "Pipeline"
    ref_is_name: bool = True

    def _parameters(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(properties)
        definition = parameters.pop("PipelineDefinition")
        if "PipelineDefinitionBody" in definition:
            parameters["PipelineDefinition"] = definition["PipelineDefinitionBody"]
        else:
            place = definition["PipelineDefinitionS3Location"]
            parameters["PipelineDefinitionS3Location"] = {
                "Bucket": place["Bucket"],
                "ObjectKey": place["Key"],
                **({"VersionId": place["Version"]} if "Version" in place else {}),
            }
        return parameters

    def _update(self, name: str, parameters: dict[str, Any], differing: set[str]) -> None:
        parameters.pop("Tags", None)
        self.calls.invoke("UpdatePipeline", parameters | {"PipelineName": name})


@dataclass(frozen=True, kw_only=True)
class ModelPackageGroup(SageMakerType):
    """A group of model packages; the packages in it are not CloudFormation's."""

    kind: str = "ModelPackageGroup"

    def _parameters(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        if "ModelPackageGroupPolicy" in properties:
            # Refused before anything is made: a group that others may use needs a second account.
            raise UnsupportedChange("the local cloud does not support ModelPackageGroupPolicy")
        return dict(properties)


@dataclass(frozen=True, kw_only=True)
class Model(SageMakerType):
    """Every property but its tags is create-only."""

    kind: str = "Model"


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(SageMakerType):
    """Every property but its tags is create-only."""

    kind: str = "EndpointConfig"


@dataclass(frozen=True, kw_only=True)
class Endpoint(SageMakerType):
    """Created only when it is in service; a failure's reason becomes the reason of the stack event."""

    kind: str = "Endpoint"

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        name = self._name(physical_id, properties)
        SageMakerType.delete(self, physical_id=physical_id, properties=properties)
        wait_until(lambda: self._status(name) == "", what=f"endpoint {name}")

    def _parameters(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in properties.items()
            # How an update treats the variants; CreateEndpoint does not know them.
            if key not in _ENDPOINT_UPDATE_ONLY
        }

    def update(
        self, *, physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        name = self._name(physical_id, old)
        differing = changed(old, new)
        if "Tags" in differing:
            self._retag(self._attributes(name)["EndpointArn"], old.get("Tags", []), new.get("Tags", []))
        if "EndpointConfigName" in differing:
            parameters = {"EndpointName": name, "EndpointConfigName": new["EndpointConfigName"]}
            for key in ("DeploymentConfig", *_ENDPOINT_UPDATE_ONLY):
                if key in new:
                    parameters[_ENDPOINT_UPDATE_ONLY.get(key, key)] = new[key]
            self.calls.invoke("UpdateEndpoint", parameters)
        return self._settled(name, created=False)

    def _settled(self, name: str, *, created: bool) -> dict[str, Any]:
        wait_until(lambda: not self._status(name).endswith("ing"), what=f"endpoint {name}")
        described = self._describe(name)
        failure = described.get("FailureReason")
        if described["EndpointStatus"] != "InService" or (failure and not created):
            if created:
                # A rollback knows nothing of a resource whose creation failed.
                self.delete(physical_id=name, properties={})
            raise RuntimeError(
                f"Endpoint {name} is {described['EndpointStatus']}: {failure or 'no reason given'}"
            )
        return self._attributes(name)

    def _status(self, name: str) -> str:
        """The endpoint's status; "" if there is none."""
        try:
            return str(self._describe(name)["EndpointStatus"])
        except ServiceError as error:
            if _is_missing(error):
                return ""
            raise


@dataclass(frozen=True, kw_only=True)
class InferenceComponent(SageMakerType):
    """Created only when its copies are in service, as an endpoint."""

    kind: str = "InferenceComponent"
    update_only: frozenset[str] = frozenset({"DeploymentConfig"})

    def delete(self, *, physical_id: str, properties: Mapping[str, Any]) -> None:
        name = self._name(physical_id, properties)
        SageMakerType.delete(self, physical_id=physical_id, properties=properties)
        wait_until(lambda: self._status(name) == "", what=f"inference component {name}")

    def _parameters(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        # EndpointArn, which the schema allows, only says EndpointName again.
        return {key: value for key, value in properties.items() if key != "EndpointArn"}

    def _update(self, name: str, parameters: dict[str, Any], differing: set[str]) -> None:
        fixed = differing - {"Specification", "RuntimeConfig", "DeploymentConfig", "EndpointArn"}
        if fixed:
            SageMakerType._update(self, name, parameters, fixed)
        wanted: dict[str, Any] = {
            key: parameters[key] for key in ("Specification", "RuntimeConfig") if key in differing
        }
        if wanted:
            if "DeploymentConfig" in parameters:
                wanted["DeploymentConfig"] = parameters["DeploymentConfig"]
            self.calls.invoke("UpdateInferenceComponent", {f"{self.kind}Name": name, **wanted})

    def _settled(self, name: str, *, created: bool) -> dict[str, Any]:
        wait_until(lambda: not self._status(name).endswith("ing"), what=f"inference component {name}")
        described = self._describe(name)
        status, failure = described[f"{self.kind}Status"], described.get("FailureReason")
        if status != "InService" or failure:
            if created:
                self.delete(physical_id=name, properties={})
            raise RuntimeError(f"Inference component {name} is {status}: {failure or 'no reason given'}")
        return self._attributes(name)

    def _attributes(self, name: str) -> dict[str, Any]:
        described = self._describe(name)
        counts = {f"RuntimeConfig.{member}": value for member, value in described["RuntimeConfig"].items()}
        return SageMakerType._attributes(self, name) | {
            "EndpointArn": described["EndpointArn"],
            "LastModifiedTime": str(described["LastModifiedTime"]),
            **counts,
        }

    def _status(self, name: str) -> str:
        """The component's status; "" if there is none."""
        return str(self._describe(name)[f"{self.kind}Status"]) if self._exists(name) else ""


_ENDPOINT_UPDATE_ONLY = {
    "RetainAllVariantProperties": "RetainAllVariantProperties",
    "ExcludeRetainedVariantProperties": "ExcludeRetainedVariantProperties",
    "RetainDeploymentConfig": "RetainDeploymentConfig",
}


def _is_missing(error: ServiceError) -> bool:
    """SageMaker says that a described or deleted resource is missing in three ways, by the age of the
    operation."""
    return (
        error.code in ("ResourceNotFound", "ResourceNotFoundException")
        or "Could not find" in error.message
        or error.message.endswith("does not exist.")
    )
