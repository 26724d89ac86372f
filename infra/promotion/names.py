"""Names by which the accounts of the delivery know each other.

Accounts name each other's roles and event buses in their policies, so these have fixed names. That is safe:
only name and path of a role, and the name of a bus, are create-only, so no change of a template can replace
one and meet its own name. No import of the CDK: the programs of the delivery use these names, too.
"""

from __future__ import annotations

TOOLING_CHECKS_ROLE = "monai-toolchain-checks"
"""The role as which the delivery pipeline checks environments."""


def promotion_role_name(environment: str) -> str:
    """The role of the function that takes candidates into `environment`."""
    return f"monai-{environment}-promotion"


def verification_role_name(environment: str) -> str:
    """The role that looks whether `environment` works after a deployment."""
    return f"monai-{environment}-verification"


def github_role_name(environment: str) -> str:
    """The role as which GitHub Actions deploys `environment`."""
    return f"monai-{environment}-github"


def candidate_bus_name(environment: str) -> str:
    """The event bus on which `environment` hears of approved packages of the environment before it."""
    return f"monai-{environment}-candidates"


def role_arn(account: str, name: str) -> str:
    return f"arn:aws:iam::{account}:role/{name}"
