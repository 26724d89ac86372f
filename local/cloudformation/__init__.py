"""CloudFormation types that MiniStack lacks: real ones of our services, and ones that are only recorded."""

from __future__ import annotations

from local.cloudformation.interrupted import settle_interrupted
from local.cloudformation.registry import install_resource_types, recorded_only

__all__ = ["install_resource_types", "recorded_only", "settle_interrupted"]
