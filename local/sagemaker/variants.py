"""What DescribeEndpoint says of a production variant that serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import unsupported
from local.sagemaker.hosting import ModelServer
from local.sagemaker.store import now


def production_variant(variant: Mapping[str, Any], server: ModelServer) -> dict[str, Any]:
    """A variant's ProductionVariantSummary, of its configuration and its container."""
    weight = variant.get("InitialVariantWeight", 1.0)
    count = variant.get("InitialInstanceCount", 1)
    image = {
        "SpecifiedImage": server.image_name,
        "ResolvedImage": server.image_digest,
        "ResolutionTime": now(),
    }
    return {
        "VariantName": variant["VariantName"],
        "DeployedImages": [image],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": count,
        **{
            member: variant[member]
            for member in ("ManagedInstanceScaling", "RoutingConfig")
            if member in variant
        },
    }


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
