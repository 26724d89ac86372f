"""The rule packs, CloudFormation's own rules, and that nothing is acknowledged in vain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from cfnlint.api import ManualArgs, lint
from infra_assembly import ENVIRONMENTS, Assembly

from infra.environment import HealthImagingRegion

REGIONS = list(get_args(HealthImagingRegion))

HARMLESS = [
    "W3010",  # Zones are written down: a template must not depend on asking an account for them.
    "W3005",  # A dependency that a reference already implies; the CDK's function always adds it.
    "W6001",  # The catalog stack states the name of its bucket although the bucket is made by the data stack.
]


def findings(report: Path) -> set[tuple[str, str]]:
    """(construct path, id) of every finding in a report, with ids as acknowledgements have them."""
    found = set()
    for plugin in json.loads(report.read_text())["pluginReports"]:
        prefix = f"{plugin['pluginName']}::"
        for violation in plugin["violations"]:
            id = violation["ruleName"].removeprefix(prefix)
            if plugin["pluginName"] == "CloudFormation Validate":
                id = f"CloudFormation-Validate::{id}"
            for construct in violation["violatingConstructs"]:
                found.add((construct["constructPath"], id))
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


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_is_found_that_is_not_acknowledged(
    environment: str, synthesize: Callable[[str], Assembly]
) -> None:
    # Errors stop the synthesis; this is for warnings.
    assert not findings(synthesize(environment).folder / "validation-report.json")


def test_what_cloudformation_would_refuse_stops_the_synthesis(tmp_path: Path) -> None:
    import aws_cdk as cdk

    from infra.application import build_app

    app = build_app(outdir=tmp_path)
    network = app.node.find_child("local").node.find_child("network")
    careless: dict[str, tuple[str, dict[str, object]]] = {
        "F3002": ("AWS::Athena::WorkGroup", {"Name": "a", "ScanLimit": 1}),
        "F3003": ("AWS::Glue::Database", {"DatabaseInput": {"Name": "a"}}),
        "F3006": ("AWS::HealthImaging::DataStore", {"DatastoreName": "a"}),
        "F3012": ("AWS::Logs::LogGroup", {"RetentionInDays": "long"}),
    }
    for rule, (type, properties) in careless.items():
        cdk.CfnResource(network, f"Careless{rule}", type=type, properties=properties)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    errors = {
        (construct["constructPath"], violation["ruleName"])
        for plugin in json.loads((tmp_path / "validation-report.json").read_text())["pluginReports"]
        for violation in plugin["violations"]
        if violation["severity"] == "error"
        for construct in violation["violatingConstructs"]
    }
    assert {(f"local/network/Careless{rule}", rule) for rule in careless} <= errors


def test_cloudformation_lint(assembly: Assembly) -> None:
    # All stacks that there are, whatever they are called, in every region that has HealthImaging.
    settings = ManualArgs(regions=REGIONS, ignore_checks=HARMLESS)
    found = {
        stack: [str(match) for match in lint(json.dumps(assembly.template(stack)), config=settings)]
        for stack in assembly.stacks
    }
    assert found
    assert not {stack: matches for stack, matches in found.items() if matches}
