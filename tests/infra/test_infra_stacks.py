"""The stacks as others see them: names, outputs, order, and that nothing has to be looked up to make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from infra_assembly import ENVIRONMENTS, PROMOTION, STACKS, Assembly

from infra.environment import Inference, Training, load_delivery, load_environment, pascal_case
from infra.repository import ROOT

OUTPUTS = {
    "data": {
        "DatastoreId", "DatastoreArn", "ImportRoleArn", "KeyArn",
        "InboxBucketName", "ImportBucketName", "ModelBucketName", "ResultBucketName",
        "AlarmTopicArn", "AuditBucketName", "AuditLogGroupName", "DeidentificationKeySecretArn",
    },
    "network": {"VpcId", "SubnetIds", "WorkloadSecurityGroupId"},
    "arrival": {
        "ReceiverDnsName", "ReceiverPort", "ReceiverAeTitle",
        "ReceiverLogGroupName", "ReceiverClusterName", "ReceiverServiceName",
    },
    "catalog": {
        "DatabaseName", "WorkgroupName", "CatalogBucketName", "IndexFunctionName", "IndexQueueUrl",
        "IndexDeadLetterQueueUrl", "IndexLogGroupName",
        "CompactFunctionName", "CompactLogGroupName",
        "ReconcileCatalogFunctionName", "ReconcileCatalogLogGroupName",
    },
    "training": {"TrainingRoleArn", "EvaluationRoleArn"},
    "inference": {
        "LungSegmentationEndpointName", "SuccessTopicArn", "FailureTopicArn",
        "DispatchFunctionName", "DispatchQueueUrl", "DispatchDeadLetterQueueUrl",
        "DispatchLogGroupName", "ReconcileFunctionName", "ReconcileLogGroupName",
        "AnnounceFunctionName", "AnnounceQueueUrl", "AnnounceDeadLetterQueueUrl",
        "AnnounceLogGroupName",
    },
    "observability": {
        "ArrivalsDashboardName", "InferenceDashboardName", "OperationsDashboardName", "FailureQueueUrl",
    },
    "studio": {"DomainId", "DomainUrl"},
}  # fmt: skip
"""What the workbench reads from each stack, besides what is there for each task and each persona."""

MODES_OF_LOCAL = ("LungSegmentationNow", "LungSegmentationBatch", "TransformLogs")

OF_LOCAL = {
    "LungSegmentationNowEndpointName", "LungSegmentationBatchModelName", "LungSegmentationBatchTransformJob",
}  # fmt: skip
"""`local` serves its model in more ways than the others."""


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_stacks_of_an_environment(environment: str, synthesize: Callable[[str], Assembly]) -> None:
    aws = load_environment(environment).aws
    stacks = synthesize(environment).stacks
    delivered = {PROMOTION} if environment in load_delivery().environments else set()
    assert set(stacks) == set(STACKS) | delivered
    for name, stack in stacks.items():
        assert stack["properties"]["stackName"] == f"monai-{environment}-{name}"
        assert stack["environment"] == f"aws://{aws.account}/{aws.region}"


@pytest.mark.parametrize("stack", STACKS)
def test_outputs(assembly: Assembly, stack: str) -> None:
    outputs = {name for name in assembly.template(stack)["Outputs"] if not name.startswith("ExportsOutput")}
    environment = load_environment(assembly.environment)
    more = OF_LOCAL if (assembly.environment, stack) == ("local", "inference") else set[str]()
    if stack == "studio":
        more = {f"{pascal_case(user.persona)}RoleArn" for user in environment.studio.users}
    if stack == "training":
        more = {
            f"{task.logical_name}{name}"
            for task in environment.training.tasks
            for name in ("PipelineName", "ModelPackageGroupName")
        }
    assert outputs == OUTPUTS[stack] | more


def test_only_the_data_stack_has_consumers(assembly: Assembly) -> None:
    # So that every other stack can be changed, replaced and deleted on its own. Only what watches them may
    # name what is in them: it holds nothing, and is deleted first.
    watched = json.dumps(assembly.template("observability"))
    for name in ("arrival", "catalog", "training", "inference", "studio"):
        for output, value in assembly.template(name)["Outputs"].items():
            if output.startswith("ExportsOutput"):
                export = json.dumps(value["Export"]["Name"])
                assert export in watched, output
                for other in set(assembly.stacks) - {name, "observability"}:
                    assert export not in json.dumps(assembly.template(other)), output


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_is_looked_up(environment: str, synthesize: Callable[[str], Assembly]) -> None:
    folder = synthesize(environment).folder
    for manifest in (folder / "manifest.json", folder / f"assembly-{environment}" / "manifest.json"):
        assert not json.loads(manifest.read_text()).get("missing")


def test_the_local_stacks_are_those_of_aws(synthesize: Callable[[str], Assembly]) -> None:
    def resources(environment: str, stack: str) -> set[tuple[str, str]]:
        return {
            # The id of an endpoint names its machine.
            (resource["Type"], "" if resource["Type"] == "AWS::SageMaker::Endpoint" else logical_id)
            for logical_id, resource in synthesize(environment).template(stack)["Resources"].items()
            # A laptop has no GPU, and mails nobody.
            if "GpuMemory" not in logical_id
            and resource["Type"] != "AWS::SNS::Subscription"
            # The demo shows the model in more modes than environments on AWS begin with.
            and not any(mode in logical_id for mode in MODES_OF_LOCAL)
        }

    for stack in STACKS:
        assert resources("local", stack) == resources("dev", stack)


def test_removing_the_last_importer_leaves_the_exports_of_the_data_stack(
    synthesize: Callable[[str], Assembly], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The data stack is deployed first: CloudFormation would refuse to remove an export that is still in use.
    from infra import application

    bare = load_environment("dev").model_copy(
        update={"training": Training(tasks=()), "inference": Inference(endpoints=())}
    )
    monkeypatch.setattr(application, "load_environment", lambda name: bare)
    # What is acknowledged of a task has no finding without it.
    monkeypatch.setattr(application, "acknowledge", lambda platform: None)
    application.build_app(
        context={"env": "dev", "@aws-cdk/core:failSynthOnValidationErrors": False}, outdir=tmp_path
    ).synth()
    (path,) = (tmp_path / "assembly-dev").glob("devdata*.template.json")
    before = synthesize("dev").template("data")["Outputs"]
    assert json.loads(path.read_text())["Outputs"] == before


def test_templates_are_what_the_command_line_deploys() -> None:
    settings = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))
    # The command line would add a resource to each stack that no test sees.
    assert settings["versionReporting"] is False
    assert settings["context"]["@aws-cdk/core:validateAgainstDefaultRules"] is True
    assert settings["context"]["@aws-cdk/core:explicitStackTags"] is True
