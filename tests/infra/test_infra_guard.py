"""Own rules: each one is broken on purpose, stops the synthesis and says by its name why."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from guard_rows import ABSENT, ROWS, SAMPLES, Resource, Row, row
from infra_assembly import Assembly

from infra.guard import rule_files, template_rules

_RULE = re.compile(r"^rule (\w+)", re.MULTILINE)
_MESSAGE = re.compile(r"<<(.*?)>>", re.DOTALL)
_CITATION = re.compile(r"HIPAA 164\.\d+\([a-z]\)")

RULES = [name for path in rule_files() for name in _RULE.findall(path.read_text(encoding="utf-8"))]

Violations = dict[str, list[tuple[str, str, str]]]
"""By stack: (rule, severity, description) of each violation of an own rule."""

SEEN_BY_THE_PACKS = (
    row("HIPAA.Security-LambdaInsideVPC", "AWS::Lambda::Function", "Properties.VpcConfig"),
    row("HIPAA.Security-CloudWatchLogGroupEncrypted", "AWS::Logs::LogGroup", "Properties.KmsKeyId"),
    row(
        "HIPAA.Security-CloudWatchLogGroupRetentionPeriod",
        "AWS::Logs::LogGroup",
        "Properties.RetentionInDays",
    ),
    row(
        "HIPAA.Security-SageMakerEndpointConfigurationKMSKeyConfigured",
        "AWS::SageMaker::EndpointConfig",
        "Properties.KmsKeyId",
    ),
    row(
        "HIPAA.Security-CloudTrailLogFileValidationEnabled",
        "AWS::CloudTrail::Trail",
        "Properties.EnableLogFileValidation",
    ),
    row("HIPAA.Security-CloudTrailEncryptionEnabled", "AWS::CloudTrail::Trail", "Properties.KMSKeyId"),
    row(
        "HIPAA.Security-CloudTrailCloudWatchLogsEnabled",
        "AWS::CloudTrail::Trail",
        "Properties.CloudWatchLogsLogGroupArn",
    ),
    row("AwsSolutions-KMS5", "AWS::KMS::Key", "Properties.EnableKeyRotation"),
    row("AwsSolutions-CB4", "AWS::CodeBuild::Project", "Properties.EncryptionKey"),
    row("AwsSolutions-GL1", "AWS::Glue::Crawler", "Properties.CrawlerSecurityConfiguration"),
)
"""Controls for which there is no own rule, because one of the packs has one."""


def valid(type: str, synthesize: Callable[[str], Assembly]) -> Resource:
    """A resource that passes: the one that is deployed, where there is one."""
    # In `local` before `dev`, because nothing of it may be left out.
    for environment in ("local", "dev"):
        for _, resource in synthesize(environment).resources(type):
            return {key: deepcopy(resource[key]) for key in resource if key not in ("Condition", "DependsOn")}
    return deepcopy(SAMPLES[type])


def own_violations(stacks: dict[str, Resource], folder: Path) -> tuple[str | None, Violations]:
    """What one synthesis of a stack for each of these resources ends with: its error, and what it reports."""
    import aws_cdk as cdk

    app = cdk.App(outdir=str(folder), context={"@aws-cdk/core:validateAgainstDefaultRules": True})
    for name, resource in stacks.items():
        made = cdk.CfnResource(
            cdk.Stack(app, name), "Resource", type=resource["Type"], properties=resource["Properties"]
        )
        for attribute in ("DeletionPolicy", "UpdateReplacePolicy"):
            if attribute in resource:
                made.add_override(attribute, resource[attribute])
    cdk.Validations.of(app).add_plugins(template_rules())
    error = None
    try:
        app.synth()
    except RuntimeError as raised:
        error = str(raised)
    violations: Violations = defaultdict(list)
    for plugin in json.loads((folder / "validation-report.json").read_text())["pluginReports"]:
        for violation in plugin["violations"]:
            rule = violation["ruleName"].removeprefix(f"{plugin['pluginName']}::")
            for construct in violation["violatingConstructs"]:
                if rule in RULES:
                    stack = construct["constructPath"].split("/")[0]
                    violations[stack].append((rule, violation["severity"], violation["description"]))
    return error, violations


@pytest.fixture(scope="module")
def outcome(
    synthesize: Callable[[str], Assembly], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str | None, Violations]:
    stacks = {f"Row{n}": row.broken(valid(row.type, synthesize)) for n, row in enumerate(ROWS)}
    return own_violations(stacks, tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize(
    ("number", "row"),
    list(enumerate(ROWS)),
    ids=[f"{row.rule}-{'.'.join(map(str, path[-1:]))}" for row in ROWS for path in row.changes],
)
def test_a_broken_property_is_named(
    outcome: tuple[str | None, Violations], number: int, row: Row, synthesize: Callable[[str], Assembly]
) -> None:
    assert row.broken(valid(row.type, synthesize)) != valid(row.type, synthesize)
    _, violations = outcome
    assert {rule for rule, _, _ in violations[f"Row{number}"]} == {row.rule}
    assert {severity for _, severity, _ in violations[f"Row{number}"]} == {"error"}
    assert all(_CITATION.search(description) for _, _, description in violations[f"Row{number}"])


def test_a_broken_rule_stops_the_synthesis(outcome: tuple[str | None, Violations]) -> None:
    error, _ = outcome
    assert error is not None
    assert "ValidationFailed" in error


def test_what_is_not_broken_passes(synthesize: Callable[[str], Assembly], tmp_path: Path) -> None:
    types = sorted({row.type for row in ROWS})
    stacks = {f"Type{n}": valid(type, synthesize) for n, type in enumerate(types)}
    stacks |= {f"Sample{n}": sample for n, sample in enumerate(SAMPLES.values())}
    _, violations = own_violations(stacks, tmp_path)
    assert not violations


def test_every_rule_is_broken_once() -> None:
    assert len(RULES) == len(set(RULES))
    assert {row.rule for row in ROWS} == set(RULES)


@pytest.mark.parametrize("path", rule_files(), ids=lambda path: path.name)
def test_every_clause_says_what_to_do_and_who_asks_for_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    messages = _MESSAGE.findall(text)
    assert len(messages) >= len(_RULE.findall(text))
    for message in messages:
        assert _CITATION.search(message), message
        assert len(message.split()) >= 8, message


def test_the_rules_hold_in_what_is_deployed(tmp_path: Path) -> None:
    from infra.application import build_app
    from infra.platform import Platform

    app = build_app(outdir=tmp_path)
    platform = app.node.find_child("local")
    assert isinstance(platform, Platform)
    (datastore,) = [c for c in platform.data.archive.node.find_all() if c.node.id == "Datastore"]
    datastore.add_override("DeletionPolicy", "Delete")  # type: ignore[attr-defined]  # every L1 resource has it
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = (tmp_path / "validation-report.json").read_text()
    assert "DATASTORE_RETAINED" in report


def test_an_exception_is_an_acknowledgement_of_one_resource(tmp_path: Path) -> None:
    import aws_cdk as cdk

    app = cdk.App(outdir=str(tmp_path), context={"@aws-cdk/core:validateAgainstDefaultRules": True})
    sample = SAMPLES["AWS::ECR::Repository"]
    broken = row("", sample["Type"], "Properties.ImageTagMutability").broken(sample)["Properties"]
    for name in ("Accepted", "Forgotten"):
        cdk.CfnResource(cdk.Stack(app, name), "Images", type=sample["Type"], properties=broken)
    accepted = app.node.find_child("Accepted").node.find_child("Images")
    cdk.Validations.of(accepted).acknowledge(
        cdk.Acknowledgment(
            id="CloudFormation-Validate::REPOSITORY_IMMUTABLE_TAGS", reason="To see that it can be"
        )
    )
    cdk.Validations.of(app).add_plugins(template_rules())
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    found = {
        construct["constructPath"]
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        if "REPOSITORY_IMMUTABLE_TAGS" in violation["ruleName"]
        for construct in violation["violatingConstructs"]
    }
    assert found == {"Forgotten/Images"}


@pytest.fixture(scope="module")
def seen_by_the_packs(
    synthesize: Callable[[str], Assembly], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    import aws_cdk as cdk
    from aws_cdk import cloudformation_include as include
    from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks

    folder = tmp_path_factory.mktemp("packs")
    app = cdk.App(outdir=str(folder / "out"), context={"@aws-cdk/core:failSynthOnValidationErrors": False})
    for number, broken in enumerate(SEEN_BY_THE_PACKS):
        template = folder / f"{number}.json"
        resource = broken.broken(literal(valid(broken.type, synthesize)))
        template.write_text(json.dumps({"Resources": {"Broken": resource}}))
        # As constructs of its type: the packs do not look at others.
        include.CfnInclude(cdk.Stack(app, f"Row{number}"), "Template", template_file=str(template))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), HIPAASecurityChecks(app))
    app.synth()
    seen: dict[str, set[str]] = defaultdict(set)
    report = json.loads((folder / "out" / "validation-report.json").read_text())
    for plugin in report["pluginReports"]:
        for violation in plugin["violations"]:
            for construct in violation["violatingConstructs"]:
                seen[construct["constructPath"].split("/")[0]].add(
                    violation["ruleName"].removeprefix(f"{plugin['pluginName']}::")
                )
    return seen


def literal(value: Any) -> Any:
    """The value with something in the place of references: the resource stands alone."""
    if isinstance(value, list):
        return [literal(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(("Fn::", "Ref")):
        return "arn:aws:service:us-east-1:111122223333:resource"
    return {key: literal(item) for key, item in value.items()}


@pytest.mark.parametrize(
    ("number", "row"), list(enumerate(SEEN_BY_THE_PACKS)), ids=[row.rule for row in SEEN_BY_THE_PACKS]
)
def test_what_has_no_own_rule_is_seen_by_a_pack(
    seen_by_the_packs: dict[str, set[str]], number: int, row: Row
) -> None:
    assert row.rule in seen_by_the_packs[f"Row{number}"]
    assert set(row.changes.values()) == {ABSENT}
