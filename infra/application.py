"""The CDK app: one environment, one Stage, and the rule packs that every synthesis has to pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks

from infra.acknowledgements import acknowledge
from infra.environment import load_environment
from infra.platform import Platform
from infra.repository import ROOT


def build_app(*, context: Mapping[str, Any] | None = None, outdir: Path | None = None) -> cdk.App:
    """The app for the environment that context `env` names (default `local`).

    Only the CDK command line reads `cdk.json`; an App made in a test would run with other feature flags than
    the one that is deployed. So the flags are loaded here, for both. What the command line passes (`-c`) wins
    over them.
    """
    flags = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=flags | dict(context or {}), outdir=str(outdir) if outdir else None)
    environment = load_environment(app.node.try_get_context("env") or "local")
    platform = Platform(app, environment=environment)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), HIPAASecurityChecks(app))
    acknowledge(platform)
    return app
