"""The rule packs, CloudFormation's own rules, and that nothing is acknowledged in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from cfnlint.api import ManualArgs, lint
from infra_assembly import ENVIRONMENTS, STACKS, Assembly

from infra.environment import HealthImagingRegion

REGIONS = list(get_args(HealthImagingRegion))

HARMLESS = [
    "W3005",  # A dependency that a reference already implies; the CDK's function always adds it.
    "W6001",  # The catalog stack states the name of its bucket although the bucket is made by the data stack.
]


def findings(report: Path) -> set[tuple[str, str]]:
    """(construct path, id) of every finding in a validation report."""
    found = set()
    for plugin in json.loads(report.read_text())["pluginReports"]:
        prefix = f"{plugin['pluginName']}::"
        for violation in plugin["violations"]:
            for construct in violation["violatingConstructs"]:
                found.add((construct["constructPath"], violation["ruleName"].removeprefix(prefix)))
    return found


def test_a_finding_stops_the_synthesis(tmp_path: Path) -> None:
    from aws_cdk import aws_s3 as s3

    from infra.application import build_app
    from infra.platform import Platform

    app = build_app(outdir=tmp_path)
    platform = app.node.find_child("local")
    assert isinstance(platform, Platform)
    s3.Bucket(platform.data, "Careless")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    rules = {rule for path, rule in findings(tmp_path / "validation-report.json") if "Careless" in path}
    assert {"AwsSolutions-S10", "HIPAA.Security-S3BucketSSLRequestsOnly"} <= rules


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_acknowledgement_answers_a_finding(
    environment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import infra.application
    from infra.acknowledgements import Acknowledgement, acknowledgements

    given: list[Acknowledgement] = []
    monkeypatch.setattr(
        infra.application, "acknowledge", lambda platform: given.extend(acknowledgements(platform))
    )
    app = infra.application.build_app(
        context={"env": environment, "@aws-cdk/core:failSynthOnValidationErrors": False}, outdir=tmp_path
    )
    app.synth()
    wanted = {(f"{environment}/{entry.path}", entry.finding) for entry in given}
    assert len(wanted) == len(given)
    assert wanted == findings(tmp_path / "validation-report.json")


def test_reasons_are_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import infra.application
    from infra.acknowledgements import Acknowledgement, acknowledgements

    given: list[Acknowledgement] = []
    monkeypatch.setattr(
        infra.application, "acknowledge", lambda platform: given.extend(acknowledgements(platform))
    )
    infra.application.build_app(outdir=tmp_path)
    assert all(len(entry.reason.split()) > 15 for entry in given)


@pytest.mark.parametrize("stack", STACKS)
def test_cloudformation_lint(assembly: Assembly, stack: str) -> None:
    template = json.dumps(assembly.template(stack))
    matches = lint(template, config=ManualArgs(regions=REGIONS, ignore_checks=HARMLESS))
    assert not [str(match) for match in matches]
