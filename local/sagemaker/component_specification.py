"""What an inference component runs, as a request says it and as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import validation
from local.sagemaker.foundation import refuse
from local.sagemaker.models import Models
from local.sagemaker.multi_model import MULTI_MODEL
from local.sagemaker.s3 import split
from local.sagemaker.store import now

_REFUSED = ("BaseInferenceComponentName", "Container.ContainerMetricsConfig", "InstanceType")


def container_of(specification: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """The container of each copy, as `Models` keeps one: Image, Environment, ModelDataUrl."""
    refuse(specification, _REFUSED)
    if ("ModelName" in specification) == ("Container" in specification):
        raise validation("Exactly one of Specification.ModelName and Specification.Container is needed.")
    if "ComputeResourceRequirements" not in specification:
        raise validation("Specification.ComputeResourceRequirements is required.")
    if "ModelName" in specification:
        container: dict[str, Any] = models.model(specification["ModelName"])["_Container"]
        if container.get("Mode") == MULTI_MODEL:
            raise validation("An inference component cannot run a multi-model container.")
        return container
    given = specification["Container"]
    if "Image" not in given:
        raise validation("Specification.Container.Image is required.")
    container = {"Image": given["Image"], "Environment": given.get("Environment", {})}
    if "ArtifactUrl" in given:
        split(given["ArtifactUrl"])
        container["ModelDataUrl"] = given["ArtifactUrl"]
    return container


def described(specification: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """The specification as DescribeInferenceComponent answers it; `digest` is the running image's, or ""."""
    if "Container" not in specification:
        return dict(specification)
    given = specification["Container"]
    image = {"SpecifiedImage": given["Image"]}
    if digest:
        image |= {"ResolvedImage": digest, "ResolutionTime": now()}
    container = {member: value for member, value in given.items() if member != "Image"}
    return {**specification, "Container": container | {"DeployedImage": image}}
