"""What DescribeEndpoint says of a production variant that serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
