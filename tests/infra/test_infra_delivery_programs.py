"""The programs that stop a delivery: the scan of images before it, the check of an environment after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import get_session
from botocore.validate import validate_parameters

from infra.environment import load_environment
from infra.toolchain import environment_check, image_scan, stack_parameters
from infra.toolchain.environment_check import CheckError, check
from infra.toolchain.image_scan import Accepted, Image, ScanError, Vulnerability, findings, unaccepted

IMAGE = Image(account="111122223333", region="us-east-1", repository="images", tag="0" * 64)


def checked(service: str, operation: str, request: dict[str, Any]) -> None:
    """A request that the service's API model refuses must not pass a test."""
    shape = get_session().get_service_model(service).operation_model(operation).input_shape
    validate_parameters(request, shape)


class NotScannedError(Exception):
    pass


class Registry:
    """Amazon ECR with recorded answers, one a call; the last one stays."""

    class exceptions:
        ScanNotFoundException = NotScannedError

    def __init__(self, *answers: dict[str, Any] | type[Exception]) -> None:
        self.answers = list(answers)

    def describe_image_scan_findings(self, **request: Any) -> dict[str, Any]:
        checked("ecr", "DescribeImageScanFindings", request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, type):
            raise answer
        return answer

    def get_paginator(self, name: str) -> Registry:
        assert name == "describe_image_scan_findings"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        return [self.describe_image_scan_findings(**request)]


def scanned(status: str, *severities: str) -> dict[str, Any]:
    return {
        "imageScanStatus": {"status": status},
        "imageScanFindings": {
            "findings": [
                {
                    "name": f"CVE-2026-{number}",
                    "severity": severity,
                    "attributes": [{"key": "package_name", "value": "openssl"}],
                }
                for number, severity in enumerate(severities)
            ]
        },
    }


def test_the_scan_is_waited_for() -> None:
    slept: list[float] = []
    registry = Registry(NotScannedError, scanned("IN_PROGRESS"), scanned("COMPLETE", "HIGH"))
    found = list(findings(registry, IMAGE, sleep=slept.append))
    assert [(one.id, one.severity, one.package) for one in found] == [("CVE-2026-0", "HIGH", "openssl")]
    assert len(slept) == 2


def test_findings_of_amazon_inspector_count_too() -> None:
    enhanced = {
        "severity": "CRITICAL",
        "findingArn": "arn",
        "packageVulnerabilityDetails": {
            "vulnerabilityId": "CVE-2026-9",
            "vulnerablePackages": [{"name": "pillow"}, {"name": "numpy"}],
        },
    }
    answer = {
        "imageScanStatus": {"status": "ACTIVE"},
        "imageScanFindings": {"enhancedFindings": [enhanced]},
    }
    (found,) = findings(Registry(answer), IMAGE)
    assert (found.id, found.severity, found.package) == ("CVE-2026-9", "CRITICAL", "numpy, pillow")


def test_an_image_that_nobody_scans_stops_the_delivery() -> None:
    with pytest.raises(ScanError, match=r"Switch scanning on push on in account 111122223333"):
        list(findings(Registry(NotScannedError), IMAGE, wait_seconds=0))


@pytest.mark.parametrize("status", ["FAILED", "UNSUPPORTED_IMAGE", "SCAN_ELIGIBILITY_EXPIRED"])
def test_a_scan_that_failed_stops_the_delivery(status: str) -> None:
    with pytest.raises(ScanError, match=f"ended as {status}"):
        list(findings(Registry(scanned(status)), IMAGE))


def vulnerability(id: str, severity: str) -> Vulnerability:
    return Vulnerability(id=id, severity=severity, package="p", image="i")


def test_only_severe_findings_stop_and_an_exception_ends() -> None:
    found = [
        vulnerability("CVE-1", "CRITICAL"),
        vulnerability("CVE-2", "HIGH"),
        vulnerability("CVE-3", "MEDIUM"),
        vulnerability("CVE-4", "HIGH"),
    ]
    accepted = [Accepted(id="CVE-2", reason="r", until=date(2026, 6, 30))]
    before = unaccepted(found, accepted=accepted, today=date(2026, 6, 30))
    after = unaccepted(found, accepted=accepted, today=date(2026, 7, 1))
    assert [one.id for one in before] == ["CVE-1", "CVE-4"]
    assert [one.id for one in after] == ["CVE-1", "CVE-2", "CVE-4"]


def test_every_accepted_vulnerability_has_a_reason_and_an_end(tmp_path: Path) -> None:
    for entry in image_scan.load_accepted():
        assert len(entry.reason.split()) > 5
    entry_file = tmp_path / "accepted.toml"
    entry_file.write_text('[[vulnerabilities]]\nid = "CVE-1"\nreason = "r"\nuntil = 2027-06-30\n')
    assert image_scan.load_accepted(entry_file) == [Accepted(id="CVE-1", reason="r", until=date(2027, 6, 30))]


def assembly(folder: Path) -> Path:
    stage = folder / "assembly-dev"
    stage.mkdir()
    images = {
        name: {
            "destinations": {
                "here": {
                    "repositoryName": "cdk-hnb659fds-container-assets-111122223333-us-east-1",
                    "imageTag": name,
                    "region": "us-east-1",
                }
            }
        }
        for name in ("train", "serve")
    }
    for manifest in ("training", "inference"):  # the same images in two manifests are scanned once
        (stage / f"{manifest}.assets.json").write_text(json.dumps({"dockerImages": images}))
    return folder


@pytest.mark.parametrize(("severity", "code"), [("HIGH", 1), ("MEDIUM", 0)])
def test_the_program_says_what_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], severity: str, code: int
) -> None:
    arguments = ["dev", "--assembly", str(assembly(tmp_path))]
    clients = {"111122223333": Registry(scanned("COMPLETE", severity))}
    assert image_scan.main(arguments, clients=clients) == code
    captured = capsys.readouterr()
    assert captured.out.startswith("2 images, 2 findings")
    assert ("HIGH CVE-2026-0 in openssl" in captured.err) == (code == 1)


def test_an_assembly_without_images_is_a_mistake(tmp_path: Path) -> None:
    assert image_scan.main(["dev", "--assembly", str(tmp_path)], clients={}) == 1


class Services:
    """A deployed dev, in which one thing can be wrong."""

    def __init__(self) -> None:
        self.stack, self.datastore, self.pipeline, self.query = (
            "UPDATE_COMPLETE",
            "ACTIVE",
            "Active",
            "SUCCEEDED",
        )
        self.endpoint: str | None = "InService"
        self.unprotected: str | None = None
        self.asked: set[str] = set()

    def __call__(self, service: str) -> Services:
        return self

    def describe_stacks(self, **request: Any) -> Any:
        checked("cloudformation", "DescribeStacks", request)
        self.asked.add(request["StackName"])
        outputs = [{"OutputKey": "DatastoreId", "OutputValue": "0" * 32}]
        protected = request["StackName"] in ("monai-dev-data", "monai-dev-studio")
        stack = {
            "StackStatus": self.stack,
            "Outputs": outputs,
            "EnableTerminationProtection": protected and request["StackName"] != self.unprotected,
        }
        return {"Stacks": [stack]}

    def get_datastore(self, **request: Any) -> Any:
        checked("medical-imaging", "GetDatastore", request)
        return {"datastoreProperties": {"datastoreStatus": self.datastore}}

    def describe_pipeline(self, **request: Any) -> Any:
        checked("sagemaker", "DescribePipeline", request)
        self.asked.add(request["PipelineName"])
        return {"PipelineStatus": self.pipeline}

    def describe_endpoint(self, **request: Any) -> Any:
        checked("sagemaker", "DescribeEndpoint", request)
        if self.endpoint is None:
            error = {"Error": {"Code": "ValidationException", "Message": "Could not find endpoint"}}
            raise ClientError(error, "DescribeEndpoint")
        return {"EndpointStatus": self.endpoint}

    def start_query_execution(self, **request: Any) -> Any:
        checked("athena", "StartQueryExecution", request)
        self.asked.add(request["WorkGroup"])
        return {"QueryExecutionId": "q"}

    def get_query_execution(self, **request: Any) -> Any:
        return {"QueryExecution": {"Status": {"State": self.query, "StateChangeReason": "why"}}}


def test_an_environment_that_works_passes() -> None:
    services, environment = Services(), load_environment("dev")
    lines = list(check(environment, client=services))
    # The stacks; the data store, two pipelines, the endpoint and a query.
    assert len(lines) == len(environment_check.stacks_of(environment)) + 5
    assert {"monai-dev", "monai-dev-lung-segmentation", "monai-dev-promotion"} <= services.asked


def test_an_endpoint_without_a_model_is_no_fault() -> None:
    services = Services()
    services.endpoint = None
    assert any(
        "waits for an approved model" in line for line in check(load_environment("dev"), client=services)
    )


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("stack", "UPDATE_ROLLBACK_COMPLETE", "stack monai-dev-data is UPDATE_ROLLBACK_COMPLETE"),
        ("unprotected", "monai-dev-data", "stack monai-dev-data can be deleted"),
        ("unprotected", "monai-dev-studio", "--enable-termination-protection --stack-name monai-dev-studio"),
        ("datastore", "CREATING", "is CREATING"),
        ("pipeline", "Deleting", "pipeline monai-dev-lung-segmentation is Deleting"),
        ("endpoint", "Failed", "is Failed"),
        ("query", "FAILED", "the query is FAILED: why"),
    ],
)
def test_what_does_not_work_is_named(part: str, value: str, said: str) -> None:
    services = Services()
    setattr(services, part, value)
    with pytest.raises(CheckError, match=said):
        list(check(load_environment("dev"), client=services))


def test_the_program_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = Services()
    client: Callable[[Any], Any] = lambda environment: services  # noqa: E731 - typed, and short
    monkeypatch.setattr(environment_check, "_client", client)
    assert environment_check.main(["dev"]) == 0
    services.datastore = "DELETED"
    assert environment_check.main(["dev"]) == 1
    assert "dev: data store" in capsys.readouterr().err


class Stacks:
    """CloudFormation with one stack, or none."""

    def __init__(self, parameters: dict[str, str] | None) -> None:
        self.parameters = parameters

    def describe_stacks(self, **request: Any) -> dict[str, Any]:
        checked("cloudformation", "DescribeStacks", request)
        if self.parameters is None:
            message = f"Stack with id {request['StackName']} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        parameters = [{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()]
        return {"Stacks": [{"StackName": request["StackName"], "Parameters": parameters}]}


@pytest.fixture
def small_assembly(tmp_path: Path) -> Path:
    folder = tmp_path / "assembly-dev"
    folder.mkdir()
    stack = {
        "type": "aws:cloudformation:stack",
        "properties": {"templateFile": "inference.template.json", "stackName": "monai-dev-inference"},
    }
    (folder / "manifest.json").write_text(json.dumps({"artifacts": {"stack": stack}}))
    parameters = {
        "LungModelPackageArn": {"Type": "String", "Default": ""},
        "NewModelPackageArn": {"Type": "String", "Default": ""},
        "BootstrapVersion": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk-bootstrap/x"},
    }
    (folder / "inference.template.json").write_text(json.dumps({"Parameters": parameters}))
    return tmp_path


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        # A parameter that went, one that comes, and one that CloudFormation looks up itself.
        (
            {"LungModelPackageArn": "arn:of:a:package", "GoneEnabled": "true", "BootstrapVersion": "/x"},
            {"LungModelPackageArn": "arn:of:a:package"},
        ),
        ({"LungModelPackageArn": ""}, {"LungModelPackageArn": ""}),
        (None, {}),
    ],
)
def test_a_delivery_keeps_what_the_stack_says_now(
    small_assembly: Path, tmp_path: Path, now: dict[str, str] | None, kept: dict[str, str]
) -> None:
    output = tmp_path / "output"
    arguments = ["dev", "--assembly", str(small_assembly), "--output", str(output)]
    assert stack_parameters.main(arguments, client=Stacks(now)) == 0
    assert json.loads((output / "inference.json").read_text()) == {"Parameters": kept}


def test_a_stack_that_cannot_be_read_stops_the_delivery(small_assembly: Path, tmp_path: Path) -> None:
    class Denied:
        def describe_stacks(self, **_: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeStacks")

    with pytest.raises(ClientError, match="AccessDenied"):
        stack_parameters.main(
            ["dev", "--assembly", str(small_assembly), "--output", str(tmp_path)], client=Denied()
        )
