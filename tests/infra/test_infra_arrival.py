"""The stack `arrival`: who can reach the receiver, what its container may do, and that its settings fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infra_assembly import ENVIRONMENTS, Assembly, Resource
from network_template import group_id, of_type, without_description
from template_values import Values

from arrival.receiving.metrics import NAMESPACE, UNITS
from arrival.settings import Settings
from infra.environment import FOLDER, RECEIVER_PORT, EnvironmentFileError, Receiver, load_environment
from infra.environment.arrival import FARGATE_MEMORY_MIB
from infra.observability.receiver import RECEIVER_METRICS
from infra.repository import ROOT

SECRET = "arn:aws:secretsmanager:us-east-1:111122223333:secret:receiver/tls-AbCdEf"


def receiver_of(environment: str) -> Receiver:
    found = load_environment(environment).arrival.receiver
    assert found is not None
    return found


def container(assembly: Assembly) -> Resource:
    """The one container, with references as text."""
    values = Values({name: stack["template"] for name, stack in assembly.stacks.items()})
    task = values.resolve("arrival", assembly.only("AWS::ECS::TaskDefinition")["Properties"])
    (found,) = task["ContainerDefinitions"]
    return dict(found)


def variables(assembly: Assembly) -> dict[str, str]:
    return {one["Name"]: one["Value"] for one in container(assembly)["Environment"]}


# Who can reach it.


def test_devices_are_admitted_from_their_addresses_and_nobody_else(assembly: Assembly) -> None:
    receiver, template = receiver_of(assembly.environment), assembly.template("arrival")
    (balancer_group,) = of_type(template, "AWS::EC2::SecurityGroup").values()
    assert [without_description(rule) for rule in balancer_group["SecurityGroupIngress"]] == [
        {"IpProtocol": "tcp", "FromPort": receiver.port, "ToPort": receiver.port, "CidrIp": cidr}
        for cidr in sorted({caller.cidr for caller in receiver.allowed})
    ]
    balancer = assembly.only("AWS::ElasticLoadBalancingV2::LoadBalancer")["Properties"]
    assert (balancer["Scheme"], balancer["Type"]) == ("internal", "network")
    assert balancer["SecurityGroups"] == [group_id(template, "Address")]


def test_only_the_load_balancer_reaches_the_container(assembly: Assembly) -> None:
    template, network = assembly.template("arrival"), assembly.template("network")
    (incoming,) = of_type(template, "AWS::EC2::SecurityGroupIngress").values()
    port = {"IpProtocol": "tcp", "FromPort": RECEIVER_PORT, "ToPort": RECEIVER_PORT}
    group = incoming["GroupId"]
    assert without_description(incoming) == {
        **port,
        "GroupId": group,
        "SourceSecurityGroupId": group_id(template, "Address"),
    }
    (balancer_group,) = of_type(template, "AWS::EC2::SecurityGroup").values()
    assert [without_description(rule) for rule in balancer_group["SecurityGroupEgress"]] == [
        {**port, "DestinationSecurityGroupId": group}
    ]
    exported = {
        output["Export"]["Name"]: output["Value"]
        for output in network["Outputs"].values()
        if "Export" in output
    }
    assert exported[group["Fn::ImportValue"]] == group_id(network, "Receiver")
    placed = assembly.only("AWS::ECS::Service")["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert (placed["SecurityGroups"], placed["AssignPublicIp"]) == ([group], "DISABLED")


def test_the_load_balancer_shows_the_devices_own_address(assembly: Assembly) -> None:
    # Who may send is decided by title and address: with its own address in place of the device's, the load
    # balancer would be the only caller there is.
    targets = assembly.only("AWS::ElasticLoadBalancingV2::TargetGroup")["Properties"]
    attributes = {one["Key"]: one["Value"] for one in targets["TargetGroupAttributes"]}
    assert attributes["preserve_client_ip.enabled"] == "true"
    assert (targets["TargetType"], targets["Protocol"], targets["Port"]) == ("ip", "TCP", RECEIVER_PORT)
    # An association that is open may end before its task is gone.
    assert int(attributes["deregistration_delay.timeout_seconds"]) <= container(assembly)["StopTimeout"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_address_is_kept_where_data_are(environment: str, synthesize: Callable[[str], Assembly]) -> None:
    balancer = synthesize(environment).only("AWS::ElasticLoadBalancingV2::LoadBalancer")["Properties"]
    attributes = {one["Key"]: one["Value"] for one in balancer["LoadBalancerAttributes"]}
    protected = load_environment(environment).protection.termination_protection
    assert attributes["deletion_protection.enabled"] == str(protected).lower()


# What the container may do. Exactly which actions is in test_infra_permissions, that they suffice in
# tests/acceptance.


def test_the_container_is_nobody_on_a_disk_that_it_cannot_write(assembly: Assembly) -> None:
    found = container(assembly)
    assert found["User"].split(":")[0] not in ("0", "root", "")
    assert found["ReadonlyRootFilesystem"] is True
    assert found["Privileged"] is False
    assert found["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert "MountPoints" not in found
    service = assembly.only("AWS::ECS::Service")["Properties"]
    assert service["EnableExecuteCommand"] is False
    assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {
        "Enable": True,
        "Rollback": True,
    }


def test_its_log_is_encrypted_and_ends(assembly: Assembly) -> None:
    log = assembly.only("AWS::Logs::LogGroup", stack="arrival")
    assert "EncryptionKey" in json.dumps(log["Properties"]["KmsKeyId"])
    environment = load_environment(assembly.environment)
    assert log["Properties"]["RetentionInDays"] == environment.logs.retention_days
    assert container(assembly)["LogConfiguration"]["LogDriver"] == "awslogs"


def test_who_deidentifies_may_read_the_key_and_nobody_else(assembly: Assembly) -> None:
    deidentifies = load_environment(assembly.environment).arrival.deidentify
    readers = {
        name.rpartition("Policy")[0]
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if "secretsmanager:GetSecretValue" in json.dumps(policy["Properties"]["PolicyDocument"])
    }
    assert readers == ({"arrival/Receiver", "studio/ClinicalIntegrator"} if deidentifies else set())
    secret = assembly.only("AWS::SecretsManager::Secret", stack="data")
    assert secret["DeletionPolicy"] == (
        "Retain" if load_environment(assembly.environment).protection.retain_data else "Delete"
    )
    assert secret["Properties"]["GenerateSecretString"] == {"PasswordLength": 64, "ExcludePunctuation": True}
    named = "ARRIVAL_DEIDENTIFICATION_KEY_SECRET_ARN" in variables(assembly)
    assert named is deidentifies


def test_whatever_keeps_a_study_from_arriving_is_an_alarm(assembly: Assembly) -> None:
    """Every number of the receiver that is not a success: what it says only in its log, nobody hears."""
    told = {
        alarm["Properties"]["MetricName"]
        for name, alarm in assembly.resources("AWS::CloudWatch::Alarm")
        if name.startswith("observability/") and alarm["Properties"].get("Namespace") == NAMESPACE
    }
    successes = {"Received", "ReceivedBytes", "Imported", "ImportSeconds"}
    assert told == set(UNITS) - successes


def test_what_waits_for_a_person_is_never_imported_nor_deleted(assembly: Assembly) -> None:
    """Of quarantine/ and failed/ the receiver can only add, and the import role sees nothing."""
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        if not name.startswith(("data/Importer", "arrival/Receiver")):
            continue
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            resources = json.dumps(statement["Resource"])
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if {"s3:GetObject", "s3:DeleteObject"} & set(actions):
                assert "quarantine/" not in resources, name
                assert "failed/" not in resources, name
                assert 'Arn"]}, "/*"' not in resources, name


# Settings.


def test_the_container_is_told_what_the_receiver_reads(assembly: Assembly) -> None:
    receiver, told = receiver_of(assembly.environment), variables(assembly)
    settings = Settings.from_variables(told)
    assert (settings.access.ae_title, settings.port) == (receiver.ae_title, RECEIVER_PORT)
    assert settings.quiet_seconds == receiver.quiet_seconds
    callers = {(caller.ae_title, str(caller.network)) for caller in settings.access.callers}
    assert callers == {(caller.ae_title, caller.cidr) for caller in receiver.allowed}
    deidentifies = load_environment(assembly.environment).arrival.deidentify
    assert (settings.deidentification_key_secret_arn is not None) is deidentifies
    # And nothing that it does not read.
    source = (ROOT / "arrival" / "settings.py").read_text(encoding="utf-8")
    assert not [name for name in told if f'"{name}"' not in source]


def test_what_is_watched_is_what_the_receiver_emits() -> None:
    assert {metric.name for metric in RECEIVER_METRICS} == set(UNITS)
    assert {metric.namespace for metric in RECEIVER_METRICS} == {NAMESPACE}


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    text = (FOLDER / "dev.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "dev.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('ae_title = "TEST_PACS"', 'ae_title = "SEVENTEEN_LETTERS"', "arrival.receiver.allowed.0.ae_title"),
        ('ae_title = "TEST_PACS"', r'ae_title = "BACK\\SLASH"', "arrival.receiver.allowed.0.ae_title"),
        ('ae_title = "MONAI_DEV"', 'ae_title = " MONAI"', "arrival.receiver.ae_title"),
        ("10.20.0.0/16", "0.0.0.0/0", "arrival.receiver.allowed.0.cidr: '0.0.0.0/0' is wider than a /8"),
        ("10.20.0.0/16", "10.20.0.1/16", "arrival.receiver.allowed.0.cidr: 10.20.0.1/16 has host bits set"),
        (
            "memory_mib = 4096",
            "memory_mib = 1024",
            "memory_mib: 1024 does not go with 1024 CPU units; from 2048",
        ),
        ("cpu = 1024", "cpu = 1000", "arrival.receiver.cpu: 1000 is none of 256, 512"),
        ("port = 11112", "port = 0", "arrival.receiver.port"),
        (
            "tasks = 1",
            f'tasks = 1\ntls_secret_arn = "{SECRET.replace("us-east-1", "eu-west-1")}"',
            "tls_secret_arn: not in the environment's account and region",
        ),
        ("deidentify = true\n", "", "arrival.deidentify: missing"),
    ],
)
def test_what_is_wrong_with_a_receiver_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment("dev", folder=changed(tmp_path, (old, new)))
    assert problem in str(caught.value)


def test_sizes_are_those_that_fargate_offers() -> None:
    """By the schema of cfn-lint, which knows Fargate's pairs."""
    from cfnlint.api import ManualArgs, lint

    def accepted(cpu: int, memory: int) -> bool:
        template = {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Resources": {
                "Task": {
                    "Type": "AWS::ECS::TaskDefinition",
                    "Properties": {
                        "RequiresCompatibilities": ["FARGATE"],
                        "NetworkMode": "awsvpc",
                        "Cpu": str(cpu),
                        "Memory": str(memory),
                        "ContainerDefinitions": [{"Name": "one", "Image": "one"}],
                    },
                }
            },
        }
        return not lint(json.dumps(template), config=ManualArgs(regions=["us-east-1"]))

    for cpu, sizes in FARGATE_MEMORY_MIB.items():
        assert accepted(cpu, sizes[0]), cpu
        assert accepted(cpu, sizes[-1]), cpu
        assert not accepted(cpu, sizes[-1] + sizes.step), cpu


@pytest.fixture
def with_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[dict[str, Resource], list[Any]]]:
    """`with_file(changes...)`: the templates of a changed `dev`, and its findings."""

    def made(*changes: tuple[str, str]) -> tuple[dict[str, Resource], list[Any]]:
        from infra import application

        environment = load_environment("dev", folder=changed(tmp_path, *changes))
        monkeypatch.setattr(application, "load_environment", lambda name: environment)
        app = application.build_app(
            context={"env": "dev", "@aws-cdk/core:failSynthOnValidationErrors": False},
            outdir=tmp_path / "out",
        )
        app.synth()
        templates = {
            path.name.removeprefix("dev").partition(".")[0].rstrip("0123456789ABCDEF"): json.loads(
                path.read_text()
            )
            for path in (tmp_path / "out" / "assembly-dev").glob("*.template.json")
        }
        report = json.loads((tmp_path / "out" / "validation-report.json").read_text())
        return templates, [one for plugin in report["pluginReports"] for one in plugin["violations"]]

    return made


def test_an_environment_can_do_without_a_receiver(
    with_file: Callable[..., tuple[dict[str, Resource], list[Any]]],
) -> None:
    text = (FOLDER / "dev.toml").read_text(encoding="utf-8")
    section = text[text.index("[arrival.receiver]") : text.index("# CUDA")]
    templates, findings = with_file((section, ""))
    assert not findings
    assert "arrival" not in templates
    assert "network" in templates


def test_with_tls_the_receiver_reads_its_certificate_and_nothing_more(
    with_file: Callable[..., tuple[dict[str, Resource], list[Any]]],
) -> None:
    templates, findings = with_file(
        ("deidentify = true", "deidentify = false"), ("tasks = 1", f'tasks = 1\ntls_secret_arn = "{SECRET}"')
    )
    assert not findings
    (task,) = of_type(templates["arrival"], "AWS::ECS::TaskDefinition").values()
    told = {one["Name"]: one["Value"] for one in task["ContainerDefinitions"][0]["Environment"]}
    assert told["ARRIVAL_TLS_SECRET_ARN"] == SECRET
    (resource,) = [
        statement["Resource"]
        for policy in of_type(templates["arrival"], "AWS::IAM::ManagedPolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "secretsmanager:GetSecretValue"
    ]
    assert resource == SECRET
