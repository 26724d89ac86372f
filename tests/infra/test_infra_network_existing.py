"""The platform in a VPC that is there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infra_assembly import Resource
from network_template import endpoints, group_id, of_type

from infra.environment import FOLDER, Environment, EnvironmentFileError, load_environment
from infra.network.endpoints import ENDPOINT_SERVICES
from infra.network.security_groups import S3_PREFIX_LISTS

EXISTING = """[network.existing]
vpc_id = "vpc-0123456789abcdef0"
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
"""
MAKES_ENDPOINTS = 'route_table_ids = ["rtb-0123456789abcdef0"]\nmake_endpoints = true\n'
HAS_ENDPOINTS = 'make_endpoints = false\nendpoint_cidrs = ["10.1.0.0/24", "10.2.0.0/24"]\n'


def with_network(folder: Path, network: str) -> Environment:
    """The environment `dev` with another network."""
    text = (FOLDER / "dev.toml").read_text(encoding="utf-8")
    before, rest = text.split("[network]\n")
    (folder / "dev.toml").write_text(f"{before}{network}{rest[rest.index('[notices]') :]}", encoding="utf-8")
    return load_environment("dev", folder=folder)


@pytest.fixture
def in_existing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], tuple[Resource, list[Any]]]:
    """`in_existing(rest of the section)`: the network stack in a VPC that is there, and its findings."""

    def made(rest: str) -> tuple[Resource, list[Any]]:
        from infra import application

        environment = with_network(tmp_path, f"{EXISTING}{rest}\n")
        monkeypatch.setattr(application, "load_environment", lambda name: environment)
        app = application.build_app(
            context={"env": "dev", "@aws-cdk/core:failSynthOnValidationErrors": False},
            outdir=tmp_path / "out",
        )
        app.synth()
        (path,) = (tmp_path / "out" / "assembly-dev").glob("devnetwork*.template.json")
        report = json.loads((tmp_path / "out" / "validation-report.json").read_text())
        findings = [
            (violation["ruleName"], construct["constructPath"])
            for plugin in report["pluginReports"]
            for violation in plugin["violations"]
            for construct in violation["violatingConstructs"]
            if "/network/" in construct["constructPath"]
        ]
        return json.loads(path.read_text()), findings

    return made


def test_in_an_existing_vpc_with_endpoints_of_its_own(
    in_existing: Callable[[str], tuple[Resource, list[Any]]],
) -> None:
    template, findings = in_existing(HAS_ENDPOINTS)
    assert not findings
    assert {resource["Type"] for resource in template["Resources"].values()} == {
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
    }
    groups = of_type(template, "AWS::EC2::SecurityGroup")
    assert len(groups) == 3
    for group in groups.values():
        assert group["VpcId"] == "vpc-0123456789abcdef0"
        assert [
            rule.get("CidrIp") or rule["DestinationPrefixListId"] for rule in group["SecurityGroupEgress"]
        ] == [S3_PREFIX_LISTS["us-east-1"], "10.1.0.0/24", "10.2.0.0/24"]
    outputs = {name: output["Value"] for name, output in template["Outputs"].items()}
    assert outputs["VpcId"] == "vpc-0123456789abcdef0"
    assert outputs["SubnetIds"] == "subnet-0123456789abcdef0,subnet-0123456789abcdef1"


def test_in_an_existing_vpc_that_gets_endpoints(
    in_existing: Callable[[str], tuple[Resource, list[Any]]],
) -> None:
    template, findings = in_existing(MAKES_ENDPOINTS)
    assert not findings
    assert not of_type(template, "AWS::EC2::VPC")
    assert not of_type(template, "AWS::Lambda::Function")
    (gateway,) = endpoints(template, "Gateway").values()
    assert gateway["RouteTableIds"] == ["rtb-0123456789abcdef0"]
    found = endpoints(template, "Interface")
    assert len(found) == len(ENDPOINT_SERVICES)
    for endpoint in found.values():
        assert endpoint["VpcId"] == "vpc-0123456789abcdef0"
        assert endpoint["SubnetIds"] == ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
        assert endpoint["SecurityGroupIds"] == [group_id(template, "Endpoints")]
        assert endpoint["PrivateDnsEnabled"] is True


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("make_endpoints = false\n", "network.existing.endpoint_cidrs: missing"),
        (
            f'{MAKES_ENDPOINTS}endpoint_cidrs = ["10.1.0.0/24"]\n',
            "network.existing.endpoint_cidrs: only without make_endpoints",
        ),
        (
            'make_endpoints = false\nendpoint_cidrs = ["0.0.0.0/0"]\n',
            "network.existing.endpoint_cidrs: '0.0.0.0/0' is not a block of private addresses",
        ),
        (
            'make_endpoints = false\nendpoint_cidrs = ["10.1.0.1/24"]\n',
            "network.existing.endpoint_cidrs: 10.1.0.1/24 has host bits set",
        ),
    ],
)
def test_an_existing_vpc_says_where_its_endpoints_are(tmp_path: Path, rest: str, problem: str) -> None:
    with pytest.raises(EnvironmentFileError) as caught:
        with_network(tmp_path, f"{EXISTING}{rest}\n")
    assert problem in str(caught.value)
    assert "1 problem(s)" in str(caught.value)
