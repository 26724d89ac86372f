"""Each stack's template as a whole. `pytest tests/infra --snapshot-update` accepts a change; the diff is
what gets reviewed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from infra_assembly import ENVIRONMENTS, PROMOTION, STACKS, Assembly
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

_ASSET_HASH = re.compile(r"[0-9a-f]{64}")
_TOOLKIT_VERSION = re.compile(r"(?m)^version='[0-9a-f]{16}'$")
_SCRIPT = "StudioLifecycleConfigContent"


def masked(template: Any) -> Any:
    """A template in which an edit of a container's code, or of the workbench, changes nothing: hashes of
    assets are masked, in the script that starts a notebook server too.
    """
    template = json.loads(_ASSET_HASH.sub("<asset>", json.dumps(template)))
    for resource in template["Resources"].values():
        script = resource.get("Properties", {}).get(_SCRIPT)
        if isinstance(script, str):
            text = _ASSET_HASH.sub("<asset>", base64.b64decode(script).decode())
            resource["Properties"][_SCRIPT] = _TOOLKIT_VERSION.sub("version='<version>'", text).splitlines()
    return template


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("stack", STACKS)
def test_template(
    environment: str, stack: str, synthesize: Callable[[str], Assembly], snapshot: SnapshotAssertion
) -> None:
    template = masked(synthesize(environment).template(stack))
    assert template == snapshot(extension_class=JSONSnapshotExtension)


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name != "local"])
def test_template_of_the_promotion(
    environment: str, synthesize: Callable[[str], Assembly], snapshot: SnapshotAssertion
) -> None:
    template = masked(synthesize(environment).template(PROMOTION))
    assert template == snapshot(extension_class=JSONSnapshotExtension)
