"""CloudFormation types that MiniStack lacks: real ones of our services, and ones that are only recorded."""

from __future__ import annotations

from local.cloudformation.interrupted import settle_interrupted
from local.cloudformation.registry import install_resource_types, recorded_only
from local.cloudformation.unrecorded import Unrecorded

__all__ = ["Unrecorded", "install_resource_types", "recorded_only", "settle_interrupted"]
