"""Each stack's template as a whole. `pytest tests/infra --snapshot-update` accepts a change; the diff is
what gets reviewed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from infra_assembly import ENVIRONMENTS, PROMOTION, STACKS, Assembly
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

_ASSET_HASH = re.compile(r"[0-9a-f]{64}")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("stack", STACKS)
def test_template(
    environment: str, stack: str, synthesize: Callable[[str], Assembly], snapshot: SnapshotAssertion
) -> None:
    # An edit of a container's code must not change a snapshot: hashes of assets are masked.
    template = json.loads(_ASSET_HASH.sub("<asset>", json.dumps(synthesize(environment).template(stack))))
    assert template == snapshot(extension_class=JSONSnapshotExtension)


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name != "local"])
def test_template_of_the_promotion(
    environment: str, synthesize: Callable[[str], Assembly], snapshot: SnapshotAssertion
) -> None:
    template = json.loads(_ASSET_HASH.sub("<asset>", json.dumps(synthesize(environment).template(PROMOTION))))
    assert template == snapshot(extension_class=JSONSnapshotExtension)
