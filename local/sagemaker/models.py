"""Models and endpoint configurations: what is checked when they are made, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import not_found, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.listing import page, select
from local.sagemaker.multi_model import MULTI_MODEL
from local.sagemaker.packages import Registry
from local.sagemaker.s3 import split
from local.sagemaker.store import Document, now
from local.sagemaker.variants import check_variants
from local.service import Call, Handler

MODEL = "model"
CONFIG = "endpoint-config"

_REFUSED_IN_MODEL = ("Containers", "InferenceExecutionConfig", "EnableNetworkIsolation")
_REFUSED_IN_CONTAINER = (
    "AdditionalModelDataSources",
    "ContainerMetricsConfig",
    "ImageConfig",
    "InferenceSpecificationName",
    "ModelDataSource",
    "MultiModelConfig",
)
_REFUSED_IN_CONFIG = (
    "DataCaptureConfig.EnableCapture",
    "EnableNetworkIsolation",
    "ExplainerConfig",
    "ShadowProductionVariants",
)


class Models:
    """CreateModel, CreateEndpointConfig and their kin."""

    def __init__(self, foundation: Foundation, registry: Registry) -> None:
        self._foundation = foundation
        self._registry = registry

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateModel": self.create_model,
            "DescribeModel": lambda call: shown(self.model(call.params["ModelName"])),
            "ListModels": self.list_models,
            "DeleteModel": self.delete_model,
            "CreateEndpointConfig": self.create_config,
            "DescribeEndpointConfig": lambda call: shown(self.config(call.params["EndpointConfigName"])),
            "ListEndpointConfigs": self.list_configs,
            "DeleteEndpointConfig": self.delete_config,
        }

    def model(self, name: str) -> Document:
        """A model; what it runs is in "_Container" (Image, ModelDataUrl, Environment, Mode)."""
        document = self._foundation.store.get(MODEL, name)
        if document is None:
            raise not_found("model", self._foundation.names.arn(MODEL, name))
        return document

    def config(self, name: str) -> Document:
        """An endpoint configuration."""
        document = self._foundation.store.get(CONFIG, name)
        if document is None:
            raise not_found("endpoint configuration", self._foundation.names.arn(CONFIG, name))
        return document

    def create_model(self, call: Call) -> Mapping[str, Any]:
        """A model of one container: an image with model data, or a version of the registry."""
        params = dict(call.params)
        containers = params.get("Containers", [])
        if len(containers) == 1 and "PrimaryContainer" not in params:
            params["PrimaryContainer"] = params.pop("Containers")[0]
        refuse(params, _REFUSED_IN_MODEL)
        if "PrimaryContainer" not in params or "ExecutionRoleArn" not in params:
            raise validation("PrimaryContainer and ExecutionRoleArn are required.")
        container = params["PrimaryContainer"]
        refuse(container, _REFUSED_IN_CONTAINER)
        if container.get("Mode") == MULTI_MODEL and (
            "ModelPackageName" in container or "ModelDataUrl" not in container
        ):
            raise validation(
                "A container of mode MultiModel needs an Image and the prefix of its models in ModelDataUrl."
            )
        self._foundation.take_role(call, params["ExecutionRoleArn"])
        name = params["ModelName"]
        arn = self._foundation.names.arn(MODEL, name)
        self._foundation.may_tag(call, arn)
        document = {
            **without_tags(params),
            "ModelArn": arn,
            "CreationTime": now(),
            "EnableNetworkIsolation": False,
            "_Container": self._resolve(container),
        }
        if not self._foundation.store.add(MODEL, name, document):
            raise validation(f'Cannot create already existing model "{arn}".')
        self._foundation.tag(call, arn)
        return {"ModelArn": arn}

    def list_models(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        chosen = select(self._foundation.store.all(MODEL), call.params, name="ModelName")
        return page(chosen, call.params, into="Models", members=("ModelName", "ModelArn", "CreationTime"))

    def delete_model(self, call: Call) -> Mapping[str, Any]:
        """Gone; endpoints that run it keep running."""
        document = self.model(call.params["ModelName"])
        self._foundation.store.delete(MODEL, document["ModelName"])
        self._foundation.untag(document["ModelArn"])
        return {}

    def create_config(self, call: Call) -> Mapping[str, Any]:
        """Which models an endpoint runs, and how it answers."""
        params = call.params
        refuse(params, _REFUSED_IN_CONFIG)
        check_variants(params, self.model)
        if "ExecutionRoleArn" in params:
            self._foundation.take_role(call, params["ExecutionRoleArn"])
        if asynchronous := params.get("AsyncInferenceConfig"):
            output = asynchronous["OutputConfig"]
            for member in ("S3OutputPath", "S3FailurePath"):
                if member in output:
                    split(output[member])
            if "S3OutputPath" not in output:
                raise validation("AsyncInferenceConfig.OutputConfig.S3OutputPath is required.")
        name = params["EndpointConfigName"]
        arn = self._foundation.names.arn(CONFIG, name)
        self._foundation.may_tag(call, arn)
        document = {**without_tags(params), "EndpointConfigArn": arn, "CreationTime": now()}
        if not self._foundation.store.add(CONFIG, name, document):
            raise validation(f'Cannot create already existing endpoint configuration "{arn}".')
        self._foundation.tag(call, arn)
        return {"EndpointConfigArn": arn}

    def list_configs(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        chosen = select(self._foundation.store.all(CONFIG), call.params, name="EndpointConfigName")
        members = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return page(chosen, call.params, into="EndpointConfigs", members=members)

    def delete_config(self, call: Call) -> Mapping[str, Any]:
        """Gone; endpoints keep what they started with."""
        document = self.config(call.params["EndpointConfigName"])
        self._foundation.store.delete(CONFIG, document["EndpointConfigName"])
        self._foundation.untag(document["EndpointConfigArn"])
        return {}

    def _resolve(self, container: Mapping[str, Any]) -> dict[str, Any]:
        environment = container.get("Environment", {})
        if "ModelPackageName" in container:
            if "Image" in container or "ModelDataUrl" in container:
                raise validation("ModelPackageName cannot be given together with Image or ModelDataUrl.")
            package = self._registry.find(container["ModelPackageName"])
            if package.get("ModelApprovalStatus") == "Rejected":
                raise validation(f"Model package {package['ModelPackageArn']} is rejected.")
            containers = package.get("InferenceSpecification", {}).get("Containers", [])
            if not containers:
                raise validation(f"Model package {package['ModelPackageArn']} has no InferenceSpecification.")
            container = containers[0]
            environment = {**container.get("Environment", {}), **environment}
        if "Image" not in container:
            raise validation("A container needs an Image or a ModelPackageName.")
        if "ModelDataUrl" in container:
            split(container["ModelDataUrl"])
        resolved = {"Image": container["Image"], "Environment": environment}
        if "ModelDataUrl" in container:
            resolved["ModelDataUrl"] = container["ModelDataUrl"]
        if container.get("Mode") == MULTI_MODEL:
            resolved["Mode"] = MULTI_MODEL
        return resolved
