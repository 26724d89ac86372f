"""The training stack: what its pipelines and jobs may do, where they log, and what it tells of itself."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.model import StringShape
from infra_assembly import Assembly
from training_pipelines import definitions_of, runner_conditions, stand_in, steps_by_name

from infra import instances
from infra.environment import load_environment


@pytest.mark.parametrize(
    ("action", "step"), [("CreateTrainingJob", "Train"), ("CreateProcessingJob", "Evaluate")]
)
def test_a_pipeline_can_start_only_jobs_like_its_own(assembly: Assembly, action: str, step: str) -> None:
    for task in load_environment(assembly.environment).training.tasks:
        conditions = runner_conditions(assembly, task.logical_name, f"sagemaker:{action}")
        lists = conditions["ForAllValues:StringEquals"]
        assert set(lists) == {
            "sagemaker:VpcSubnets",
            "sagemaker:VpcSecurityGroupIds",
            "sagemaker:InstanceTypes",
        }
        # Without this, a request that names no subnet at all would pass.
        assert conditions["Null"] == dict.fromkeys(lists, "false")
        assert conditions["Bool"] == {"sagemaker:InterContainerTrafficEncryption": "true"}
        assert "sagemaker:OutputKmsKey" in conditions["ArnEquals"]
        machines = [task.instance_type, *task.other_instance_types] if step == "Train" else None
        assert lists["sagemaker:InstanceTypes"] == (machines or [task.evaluation_instance_type])
        assert [stand_in(value) for value in lists["sagemaker:VpcSubnets"]] == [
            "subnet-0123456789abcdef0",
            "subnet-0123456789abcdef0",
        ]


def test_the_pipeline_registers_nothing_that_is_approved(assembly: Assembly) -> None:
    for task in load_environment(assembly.environment).training.tasks:
        assert runner_conditions(assembly, task.logical_name, "sagemaker:CreateModelPackage") == {
            "StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}
        }


def test_jobs_run_in_the_network(assembly: Assembly) -> None:
    network = {
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
        "Subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef0"],
    }
    for definition in definitions_of(assembly).values():
        steps = steps_by_name(definition)
        assert steps["Train"]["Arguments"]["VpcConfig"] == network
        assert steps["Evaluate"]["Arguments"]["NetworkConfig"]["VpcConfig"] == network


def test_jobs_are_encrypted_wherever_sagemaker_lets_them_be(dev: Assembly, synthesize: Any) -> None:
    for assembly, keyed in ((dev, False), (synthesize("local"), True)):
        for task in load_environment(assembly.environment).training.tasks:
            steps = steps_by_name(definitions_of(assembly)[task.name])
            train, evaluate = steps["Train"]["Arguments"], steps["Evaluate"]["Arguments"]
            # ml.g5 has local disks, for which a job that names a volume key is refused; ml.m5 has none.
            assert ("VolumeKmsKeyId" in train["ResourceConfig"]) is keyed
            assert ("VolumeKmsKeyId" in evaluate["ProcessingResources"]["ClusterConfig"]) is keyed
            assert train["OutputDataConfig"]["KmsKeyId"]
            assert evaluate["ProcessingOutputConfig"]["KmsKeyId"]
            assert train["EnableInterContainerTrafficEncryption"] is True
            assert evaluate["NetworkConfig"]["EnableInterContainerTrafficEncryption"] is True
            # What the pipeline's role demands of the job is exactly what the job has.
            for action in ("CreateTrainingJob", "CreateProcessingJob"):
                demanded = runner_conditions(assembly, task.logical_name, f"sagemaker:{action}")
                assert ("sagemaker:VolumeKmsKey" in demanded["ArnEquals"]) is keyed


def test_one_role_trains_and_another_judges(assembly: Assembly) -> None:
    for definition in definitions_of(assembly).values():
        steps = steps_by_name(definition)
        assert steps["Train"]["Arguments"]["RoleArn"].endswith("/Trainer")
        assert steps["Evaluate"]["Arguments"]["RoleArn"].endswith("/Evaluator")
    assert {job: prefixes(assembly, job, "s3:PutObject") for job in ("Trainer", "Evaluator")} == {
        "Trainer": {"checkpoints", "training"},
        "Evaluator": {"evaluation"},
    }
    assert {job: prefixes(assembly, job, "s3:GetObject") for job in ("Trainer", "Evaluator")} == {
        "Trainer": {"bundles", "checkpoints", "manifests"},
        "Evaluator": {"evaluation", "manifests", "promoted", "training"},
    }


def statements(assembly: Assembly, job: str) -> list[dict[str, Any]]:
    """What a job's role may do."""
    (policy,) = [
        policy
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if name.startswith(f"training/{job}")
    ]
    found: list[dict[str, Any]] = policy["Properties"]["PolicyDocument"]["Statement"]
    return found


def prefixes(assembly: Assembly, job: str, action: str) -> set[str]:
    """First parts of the object keys on which a job's role may do `action`."""
    found = set()
    for statement in statements(assembly, job):
        if action in statement["Action"]:
            resources = statement["Resource"]
            for resource in resources if isinstance(resources, list) else [resources]:
                found.add(str(resource["Fn::Join"][1][-1]).split("/")[1])
    return found


def test_an_evaluation_looks_at_packages_of_the_tasks_and_changes_none(assembly: Assembly) -> None:
    about_models = {
        action: statement["Resource"]
        for job in ("Trainer", "Evaluator")
        for statement in statements(assembly, job)
        for action in actions(statement)
        if action.startswith("sagemaker:")
    }
    assert set(about_models) == {"sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"}
    shown = about_models["sagemaker:DescribeModelPackage"]
    tasks = load_environment(assembly.environment).training.tasks
    wanted = [f"model-package/monai-{assembly.environment}-{task.name}/*" for task in tasks]
    assert [one.rpartition(":")[2] for one in (shown if isinstance(shown, list) else [shown])] == wanted


def actions(statement: dict[str, Any]) -> list[str]:
    found: list[str] | str = statement["Action"]
    return [found] if isinstance(found, str) else found


def test_manifests_and_bundles_are_never_overwritten(assembly: Assembly) -> None:
    denied = [
        (statement, policy["Properties"]["Bucket"]["Ref"])
        for name, policy in assembly.resources("AWS::S3::BucketPolicy")
        if name.startswith("data/")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement.get("Sid") == "NeverOverwritten"
    ]
    [(statement, bucket)] = denied
    assert bucket.startswith("BucketsModels")
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == {"AWS": "*"}
    assert statement["Action"] == "s3:PutObject"
    # A request without the header, but not the parts of an upload, which cannot have it.
    assert statement["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    assert [one["Fn::Join"][1][-1] for one in statement["Resource"]] == ["/bundles/*", "/manifests/*"]


def test_logs_of_jobs_are_encrypted_before_there_is_a_job(assembly: Assembly) -> None:
    days = load_environment(assembly.environment).logs.retention_days
    groups = {
        group["Properties"]["LogGroupName"]: group["Properties"]
        for name, group in assembly.resources("AWS::Logs::LogGroup")
        if name.startswith("training/")
    }
    assert set(groups) == {"/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs"}
    for properties in groups.values():
        assert properties["KmsKeyId"]
        assert properties["RetentionInDays"] == days


def test_every_instance_family_of_sagemaker_is_classified() -> None:
    sagemaker = botocore.session.get_session().get_service_model("sagemaker")
    families = set()
    for name in ("TrainingInstanceType", "ProcessingInstanceType", "ProductionVariantInstanceType"):
        shape = sagemaker.shape_for(name)
        assert isinstance(shape, StringShape)
        families |= {instances.family(instance_type) for instance_type in shape.enum}
    assert families == instances.WITH_LOCAL_STORAGE | instances.WITHOUT_LOCAL_STORAGE
    assert not instances.WITH_LOCAL_STORAGE & instances.WITHOUT_LOCAL_STORAGE
    assert families >= instances.WITH_NVIDIA_GPU


def test_outputs_name_pipeline_and_registry(assembly: Assembly) -> None:
    environment = assembly.environment
    outputs = assembly.template("training")["Outputs"]
    for task in load_environment(environment).training.tasks:
        name = f"monai-{environment}-{task.name}"
        assert outputs[f"{task.logical_name}PipelineName"]["Value"] == name
        assert outputs[f"{task.logical_name}ModelPackageGroupName"]["Value"] == name
