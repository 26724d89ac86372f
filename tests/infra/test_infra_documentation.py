"""The documents of the infrastructure say what is there: tests, files, commands, keys, counts, sums."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import botocore.session
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator
from infra_assembly import ENVIRONMENTS, PROMOTION, STACKS, Assembly
from pydantic import BaseModel
from test_infra_permissions import allowed

from infra.environment import Delivery, Environment
from infra.repository import ROOT

DEPLOY, SECURITY, README = (ROOT / name for name in ("docs/deploy.md", "docs/security.md", "README.md"))
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
CDK = ROOT / "node_modules" / ".bin" / "cdk"

PARAGRAPHS = {
    "164.312(a)(1)", "164.312(a)(2)(i)", "164.312(a)(2)(ii)", "164.312(a)(2)(iii)", "164.312(a)(2)(iv)",
    "164.312(b)", "164.312(c)(1)", "164.312(d)", "164.312(e)(1)", "164.312(e)(2)(i)",
    "164.308(a)(1)(ii)(D)", "164.308(a)(3)(i)", "164.308(a)(4)(i)", "164.308(a)(7)(i)", "164.316(b)(2)(i)",
}  # fmt: skip
"""What has to be answered: the technical safeguards, and those of 164.308 that the rule packs cite."""

_NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TIMES = "\N{MULTIPLICATION SIGN}"
_GLOBAL_OPTIONS = {"--query", "--output", "--cli-input-json"}
_OWN_COMMANDS = ["sso login"]
"""Of the AWS CLI: what no operation of a service is behind."""


def section(page: Path, title: str) -> str:
    """The text below a heading, to the next one of the same level."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    assert rest, f"{page.name} has no section {title!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of every table, without headings."""
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        else:
            yield from table[2:]
            table = []


def commands(page: Path) -> Iterator[list[str]]:
    """Every command in blocks of shell and between backticks, as words."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        if re.match(r" *(make|aws|cdk|monai-aws|\.venv/bin/monai-aws) ", line):
            yield shlex.split(line, comments=True)


def of_program(program: str) -> list[tuple[str, list[str]]]:
    """(page, words after the program) of each command, with the values of options."""
    return [
        (page.name, words[1:])
        for page in PAGES
        for words in commands(page)
        if words[0].removeprefix(".venv/bin/") == program
    ]


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("-")}


def test_every_test_that_is_named_exists() -> None:
    named = [found for page in PAGES for found in _NAMED_TEST.findall(page.read_text(encoding="utf-8"))]
    assert len(named) > 50

    @cache
    def functions(file: str) -> set[str]:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    assert not [f"{file}::{name}" for file, name in named if name not in functions(file)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_module_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`([\w./]+\.\w+)`", page.read_text(encoding="utf-8"))
    packages = "benchmarks|healthimaging|infra|local|notebooks|runtime|tests|training|workbench"
    for name in named:
        if re.match(rf"({packages})/", name):
            # The page on security names files of the infrastructure from there.
            assert (ROOT / name).exists() or (ROOT / "infra" / name).exists(), name
        elif re.match(r"(healthimaging|workbench)\.", name) and not (ROOT / name).exists():
            assert pkgutil.resolve_name(name), name


def test_every_control_names_what_proves_it() -> None:
    controls = [row for row in rows(section(SECURITY, "The controls")) if row[0].startswith("164.")]
    for row in controls:
        assert _NAMED_TEST.search(row[3]), row[0]
    assert {row[0].partition(",")[0].partition(" ")[0] for row in controls} >= PARAGRAPHS


def test_every_file_of_a_control_exists() -> None:
    text = section(SECURITY, "The controls")
    files = {name for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", text) if not name.startswith("tests/")}
    assert len(files) > 15
    assert not [name for name in files if not (ROOT / "infra" / name).exists()]


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in _LINK.findall(text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def test_every_stack_has_its_costs_and_they_add_up() -> None:
    table = {row[0]: row for row in rows(section(DEPLOY, "Costs"))}
    assert {*STACKS, PROMOTION} <= set(table)
    for column in (1, 2):
        total = sum(float(table[stack][column]) for stack in (*STACKS, PROMOTION))
        assert f"**{total:.2f}**" == table["**sum**"][column]
    for stack in (*STACKS, PROMOTION):
        assert float(table[stack][1]) <= float(table[stack][2]), stack


def test_the_costs_count_what_is_deployed(dev: Assembly) -> None:
    def count(stack: str, type: str, **properties: Any) -> int:
        return sum(
            one["Type"] == type and properties.items() <= one["Properties"].items()
            for one in dev.template(stack)["Resources"].values()
        )

    alarms = [
        one["Properties"]
        for one in dev.template("observability")["Resources"].values()
        if one["Type"] == "AWS::CloudWatch::Alarm"
    ]
    bands = sum("ThresholdMetricId" in alarm for alarm in alarms)
    queries = sum("Metrics" in alarm for alarm in alarms) - bands
    said = {row[0]: row[3].replace(_TIMES, "x") for row in rows(section(DEPLOY, "Costs")) if len(row) == 4}
    endpoints = count("network", "AWS::EC2::VPCEndpoint", VpcEndpointType="Interface")
    assert said["data"].startswith(f"{count('data', 'AWS::KMS::Key')} keys x 1.00")
    assert said["network"].startswith(f"{endpoints} interface endpoints x 2 zones x 730 h")
    assert said["inference"].startswith(f"{count('inference', 'AWS::CloudWatch::Alarm')} alarms x 0.10")
    assert said["observability"].startswith(
        f"{len(alarms) - bands - queries} alarms x 0.10 + {bands} anomaly bands x 0.30 + "
        f"{queries} query alarm x 0.10, {count('observability', 'AWS::CloudWatch::Dashboard')} dashboards"
    )


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a file, sections in sections included."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models(field.annotation):
            yield from keys(inner)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from models(argument)


def test_every_key_of_the_files_is_explained() -> None:
    text = section(DEPLOY, "The environment file") + section(DEPLOY, "An existing VPC")
    wanted = {*keys(Environment), *keys(Delivery)}
    assert {"endpoint_cidrs", "invocations_per_copy", "sso_user", "connection_arn"} <= wanted
    words = set(re.findall(r"\w+", text))
    assert not wanted - words


def test_every_mode_of_an_endpoint_is_explained() -> None:
    from infra.environment import Inference

    modes = {
        get_args(model.model_fields["mode"].annotation)[0]
        for model in models(Inference.model_fields["endpoints"].annotation)
    }
    explained = {row[0].strip("`") for row in rows(section(DEPLOY, "The environment file"))}
    assert modes <= explained


def test_every_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    used = of_program("make")
    assert used
    assert not [words for _, words in used if words[0] not in targets]


def test_every_command_of_monai_aws_exists() -> None:
    import typer

    from workbench.main import app

    group: Any = typer.main.get_command(app)
    used = of_program("monai-aws")
    assert len(used) > 10
    for page, words in used:
        command: Any = group
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, (page, words)
            command, words = command.commands[words[0]], words[1:]
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert options(words) <= known, (page, command.name, words)


def test_every_command_of_the_aws_cli_exists() -> None:
    session = botocore.session.get_session()
    used = [(page, words) for page, words in of_program("aws") if not words[0].startswith("-")]
    used = [(page, words) for page, words in used if " ".join(words[:2]) not in _OWN_COMMANDS]
    assert len(used) > 20
    for page, (name, operation, *words) in used:
        model = session.get_service_model({"s3api": "s3"}.get(name, name))
        found = {xform_name(one, "-"): one for one in model.operation_names}
        assert operation in found, (page, name, operation)
        shape = model.operation_model(found[operation]).input_shape
        members = [xform_name(member, "-") for member in shape.members] if shape else []
        known = {f"--{member}" for member in members} | {f"--no-{member}" for member in members}
        assert options(words) <= known | _GLOBAL_OPTIONS, (page, operation, words)


@pytest.mark.skipif(not CDK.exists(), reason="the CDK command line is not installed (npm ci)")
def test_every_command_of_the_cdk_exists() -> None:
    import os

    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"

    @cache
    def help_of(command: str) -> str:
        return subprocess.run(
            [CDK, command, "--help"],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    used = [(page, words) for page, words in of_program("cdk") if words != ["--version"]]
    assert len(used) > 5
    for page, (command, *words) in used:
        text = help_of(command)
        assert f"cdk {command}" in text, (page, command)
        for option in options(words):
            positive = option.replace("--no-", "--", 1)
            assert re.search(rf"(^|[\s,]){re.escape(positive)}(,|\s|$)", text, re.MULTILINE), (page, option)


def test_the_roles_are_those_that_are_deployed() -> None:
    deployed: dict[str, set[str]] = {}
    for environment in ENVIRONMENTS:
        for role, actions in allowed(environment).items():
            deployed[role] = deployed.get(role, set()) | actions
    services = {
        role: ", ".join(sorted({action.partition(":")[0] for action in actions}))
        for role, actions in deployed.items()
    }
    assert {row[0].strip("`"): row[3] for row in rows(section(SECURITY, "Roles"))} == services


def test_the_acknowledgements_are_counted() -> None:
    import aws_cdk as cdk

    from infra.acknowledgements import acknowledgements
    from infra.environment import load_environment
    from infra.platform import Platform

    flags = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    platform = Platform(cdk.App(context=flags), environment=load_environment("dev"))
    counted = Counter(entry.finding.partition("[")[0] for entry in acknowledgements(platform))
    text = section(SECURITY, "Acknowledged findings")
    assert {row[0].strip("`"): int(row[1]) for row in rows(text)} == counted
    assert f"`dev` has {counted.total()} findings" in text


class _DataStore:
    """Answers as HealthImaging does, two image sets long."""

    class exceptions:
        class ConflictException(Exception):
            pass

    def __init__(self) -> None:
        self.left, self.called = ["a" * 32, "b" * 32], list[tuple[str, dict[str, Any]]]()
        self.busy = True

    def get_paginator(self, name: str) -> _DataStore:
        assert name == "search_image_sets"
        return self

    def paginate(self, *, PaginationConfig: dict[str, int], **arguments: Any) -> Iterator[dict[str, Any]]:
        self.called.append(("SearchImageSets", arguments))
        yield {"imageSetsMetadataSummaries": [{"imageSetId": one} for one in self.left]}

    def delete_image_set(self, **arguments: Any) -> None:
        self.called.append(("DeleteImageSet", arguments))
        if self.busy:
            self.busy = False
            raise self.exceptions.ConflictException
        self.left.remove(arguments["imageSetId"])

    def delete_datastore(self, **arguments: Any) -> None:
        assert not self.left
        self.called.append(("DeleteDatastore", arguments))


def test_the_program_that_empties_a_data_store(monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", section(DEPLOY, "Teardown"), re.DOTALL)
    store, slept = _DataStore(), list[float]()
    monkeypatch.setattr("boto3.client", lambda service: store)
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("sys.argv", ["empty.py", "0" * 32])
    exec(compile(program, "docs/deploy.md", "exec"), {})  # noqa: S102 - a document of this repository
    assert store.called[-1][0] == "DeleteDatastore"
    deletions = [name for name, _ in store.called if name == "DeleteImageSet"]
    assert len(deletions) == len(slept) == 3
    assert min(slept) >= 1 / 0.25
    model = botocore.session.get_session().get_service_model("medical-imaging")
    for name, arguments in store.called:
        shape = model.operation_model(name).input_shape
        assert shape is not None
        report = ParamValidator().validate(arguments, shape)
        assert not report.has_errors(), (name, report.generate_report())


def test_the_hours_of_emptying_are_those_of_the_quota() -> None:
    told = [row for row in rows(section(DEPLOY, "Teardown")) if len(row) == 2]
    assert len(told) == 3
    for count, hours in told:
        expected = int(count.replace(",", "")) / 0.25 / 3600
        assert float(hours.partition(" ")[0]) == pytest.approx(expected, rel=0.02), count
