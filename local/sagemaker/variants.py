"""Production variants: which are taken, what serves them, and what DescribeEndpoint says of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from local.sagemaker.errors import in_use, unsupported, validation
from local.sagemaker.foundation import Foundation, refuse
from local.sagemaker.hosting import DEFAULT_STARTUP_SECONDS, ModelServer
from local.sagemaker.multi_model import MULTI_MODEL, MultiModelServer
from local.sagemaker.store import Document, now

_REFUSED = (
    "AcceleratorType",
    "CapacityReservationConfig",
    "CoreDumpConfig",
    "EnableSSMAccess",
    "InstancePools",
    "ServerlessConfig.ProvisionedConcurrency",
)


def hosts_components(config: Mapping[str, Any]) -> bool:
    """Whether an endpoint of this configuration runs inference components, not models of its own."""
    return any("ModelName" not in variant for variant in config["ProductionVariants"])


def check_variants(params: Mapping[str, Any], model: Callable[[str], Document]) -> None:
    """Refuse what a configuration's variants cannot be; `model` finds a model by its name."""
    variants = params["ProductionVariants"]
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) != len(names):
        raise in_use(f"Production variant names must be unique: {', '.join(names)}")
    asynchronous = "AsyncInferenceConfig" in params
    if asynchronous and len(variants) > 1:
        raise unsupported("more than one production variant of an asynchronous endpoint")
    if hosts_components(params):
        _check_for_components(params)
    for variant in variants:
        refuse(variant, _REFUSED)
        label = f"(variant {variant['VariantName']!r})"
        if variant.get("InitialInstanceCount", 1) > 1:
            raise unsupported(f"InitialInstanceCount > 1 {label[:-1]}, several hosts)")
        if "ModelName" not in variant:
            continue
        if variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED":
            raise validation("ManagedInstanceScaling is only supported for inference component endpoints.")
        found = model(variant["ModelName"])
        many = found["_Container"].get("Mode") == MULTI_MODEL
        if many and asynchronous:
            raise validation(f"An asynchronous endpoint cannot serve a multi-model container {label}.")
        if "ServerlessConfig" in variant:
            _check_serverless(variant, found, many=many, asynchronous=asynchronous)


def _check_for_components(params: Mapping[str, Any]) -> None:
    if any("ModelName" in variant for variant in params["ProductionVariants"]):
        raise validation("Either all production variants have a ModelName, or none has.")
    if "ExecutionRoleArn" not in params:
        raise validation("ExecutionRoleArn is required for production variants without a ModelName.")
    if "AsyncInferenceConfig" in params:
        raise unsupported("an asynchronous endpoint of inference components")


def _check_serverless(variant: Mapping[str, Any], model: Document, *, many: bool, asynchronous: bool) -> None:
    """Source: docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html, "Feature exclusions"."""
    label = f"(variant {variant['VariantName']!r})"
    for is_there, what in (
        ("InstanceType" in variant or "InitialInstanceCount" in variant, "InstanceType"),
        (asynchronous, "AsyncInferenceConfig"),
        (many, "a multi-model container"),
        ("VpcConfig" in model, "the VpcConfig of its model"),
    ):
        if is_there:
            raise validation(f"ServerlessConfig cannot be combined with {what} {label}.")
    if variant["ServerlessConfig"]["MemorySizeInMB"] % 1024:
        raise validation(f"ServerlessConfig.MemorySizeInMB must be 1024 to 6144 by 1024 {label}.")


def server_of(
    foundation: Foundation, endpoint: str, variant: Mapping[str, Any], model: Document
) -> ModelServer:
    """A container for a variant, not yet started."""
    label = variant["VariantName"]
    container = model["_Container"]
    instance = f"i-{uuid.uuid4().hex[:17]}"
    kind = MultiModelServer if container.get("Mode") == MULTI_MODEL else ModelServer
    return kind(
        foundation,
        name=f"endpoint {endpoint}, variant {label}",
        variant=label,
        role_arn=model["ExecutionRoleArn"],
        container=container,
        folder=foundation.root / "endpoint" / endpoint / instance,
        log_group=f"/aws/sagemaker/Endpoints/{endpoint}",
        log_stream=f"{label}/{instance}",
        startup_seconds=float(
            variant.get("ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_SECONDS)
        ),
    )


def production_variant(variant: Mapping[str, Any], server: ModelServer | None) -> dict[str, Any]:
    """A variant's ProductionVariantSummary, of its configuration and its container; None where inference
    components run."""
    weight = variant.get("InitialVariantWeight", 1.0)
    count = variant.get("InitialInstanceCount", 1)
    summary: dict[str, Any] = {
        "VariantName": variant["VariantName"],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        **{
            member: variant[member]
            for member in ("ManagedInstanceScaling", "RoutingConfig")
            if member in variant
        },
    }
    if server is not None:
        image = {
            "SpecifiedImage": server.image_name,
            "ResolvedImage": server.image_digest,
            "ResolutionTime": now(),
        }
        summary["DeployedImages"] = [image]
    if serverless := variant.get("ServerlessConfig"):
        return summary | {"CurrentServerlessConfig": serverless, "DesiredServerlessConfig": serverless}
    return summary | {"CurrentInstanceCount": count, "DesiredInstanceCount": count}


def refuse_another_scale(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse an update that is to keep the scale of the variants where the configurations differ in it.

    The scale here is always that of the configuration, so it is kept where both say the same.
    """

    def scale(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {
            variant["VariantName"]: (
                variant.get("InitialInstanceCount", 1),
                variant.get("InitialVariantWeight", 1.0),
            )
            for variant in config["ProductionVariants"]
        }

    if scale(before) != scale(after):
        raise unsupported("RetainAllVariantProperties with other instance counts or weights")
