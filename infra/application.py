"""The CDK app: one environment, one Stage, and the rule packs that every synthesis has to pass. Or what
delivers the environments: the pipeline (`toolchain`), or the access of GitHub Actions (`github`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks

from infra.acknowledgements import acknowledge, acknowledge_toolchain
from infra.environment import load_delivery, load_environment
from infra.guard import template_rules
from infra.platform import Platform
from infra.repository import ROOT
from infra.toolchain.github import GithubAccess
from infra.toolchain.stack import ToolchainStack

TOOLCHAIN = "toolchain"
GITHUB = "github"
"""Values of context `env` that are no environments."""


def build_app(*, context: Mapping[str, Any] | None = None, outdir: Path | None = None) -> cdk.App:
    """The app for the environment that context `env` names (default `local`).

    Only the CDK command line reads `cdk.json`; an App made in a test would run with other feature flags than
    the one that is deployed. So the flags are loaded here, for both. What the command line passes (`-c`) wins
    over them.
    """
    flags = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=flags | dict(context or {}), outdir=str(outdir) if outdir else None)
    name = app.node.try_get_context("env") or "local"
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), HIPAASecurityChecks(app), template_rules())
    if name == TOOLCHAIN:
        _deliver(app)
    elif name == GITHUB:
        delivery = load_delivery()
        for environment in delivery.environments:
            GithubAccess(app, delivery=delivery, environment=load_environment(environment))
    else:
        platform = Platform(app, environment=load_environment(name))
        acknowledge(platform)
    return app


def _deliver(app: cdk.App) -> None:
    """The pipeline and every environment that it deploys, in one assembly."""
    delivery = load_delivery()
    platforms = [
        Platform(app, environment=load_environment(environment)) for environment in delivery.environments
    ]
    for platform in platforms:
        # Before the pipeline: it synthesizes each stage when it takes it.
        acknowledge(platform)
    acknowledge_toolchain(ToolchainStack(app, delivery=delivery, platforms=platforms))
