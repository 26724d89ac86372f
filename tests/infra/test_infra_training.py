"""The training pipeline: every step is a request that SageMaker's API model accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore.model import ServiceModel, StringShape
from botocore.validate import ParamValidator
from infra_assembly import Assembly

from infra import instances
from infra.environment import Task, load_environment
from infra.training.pipeline_definition import Surroundings, pipeline_definition

PARAMETERS = {"ManifestUri": "s3://models/manifests/a.json", "MinimumDice": 0.9, "MaxSteps": 12}


@pytest.fixture(scope="module")
def sagemaker() -> ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")


def definition_of(assembly: Assembly) -> dict[str, Any]:
    body = assembly.only("AWS::SageMaker::Pipeline")["Properties"]["PipelineDefinition"][
        "PipelineDefinitionBody"
    ]
    text = "".join(part if isinstance(part, str) else stand_in(part) for part in body["Fn::Join"][1])
    definition: dict[str, Any] = json.loads(text)
    return definition


def stand_in(intrinsic: Mapping[str, Any]) -> str:
    """A value of the right form for a reference that only CloudFormation resolves."""
    text = json.dumps(intrinsic)
    for role in ("Trainer", "Evaluator"):
        if f"{role}Role" in text:
            return f"arn:aws:iam::111122223333:role/{role}"
    if "Subnet" in text:
        return "subnet-0123456789abcdef0"
    if "Workloads" in text:
        return "sg-0123456789abcdef0"
    if "Key" in text:
        return "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    return "amazonaws.com" if "URLSuffix" in text else "models"


def steps_of(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from steps_of(step["Arguments"].get(branch, []))


def resolved(value: Any, parameters: Mapping[str, Any]) -> Any:
    """The value as the service fills it in when the pipeline runs."""
    if isinstance(value, list):
        return [resolved(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, _, name = value["Get"].partition(".")
        if kind == "Execution":
            return "execution1"
        return parameters[name] if kind == "Parameters" else "s3://models/training/job/output/model.tar.gz"
    if set(value) == {"Std:Join"}:
        join = value["Std:Join"]
        return join["On"].join(str(resolved(item, parameters)) for item in join["Values"])
    return {key: resolved(item, parameters) for key, item in value.items()}


@pytest.fixture
def definition(assembly: Assembly) -> dict[str, Any]:
    return definition_of(assembly)


@pytest.fixture
def steps(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["Name"]: step for step in steps_of(definition["Steps"])}


def test_the_steps_and_their_order(steps: dict[str, dict[str, Any]]) -> None:
    assert {name: step["Type"] for name, step in steps.items()} == {
        "Train": "Training",
        "Evaluate": "Processing",
        "CheckQuality": "Condition",
        "Register": "RegisterModel",
        "Reject": "Fail",
    }


def test_the_parameters(assembly: Assembly, definition: dict[str, Any]) -> None:
    assert {p["Name"]: p["Type"] for p in definition["Parameters"]} == {
        "ManifestUri": "String",
        "MinimumDice": "Float",
        "InstanceType": "String",
        "MaxSteps": "Integer",
    }


@pytest.mark.parametrize(
    ("step", "operation", "name"),
    [
        ("Train", "CreateTrainingJob", "TrainingJobName"),
        ("Evaluate", "CreateProcessingJob", "ProcessingJobName"),
        ("Register", "CreateModelPackage", None),
    ],
)
def test_arguments_are_valid_requests(
    definition: dict[str, Any],
    steps: dict[str, dict[str, Any]],
    sagemaker: ServiceModel,
    step: str,
    operation: str,
    name: str | None,
) -> None:
    defaults = {p["Name"]: p["DefaultValue"] for p in definition["Parameters"] if "DefaultValue" in p}
    request = resolved(steps[step]["Arguments"], defaults | PARAMETERS)
    if name:
        request |= {name: "pipelines-abc-step"}
    shape = sagemaker.operation_model(operation).input_shape
    assert shape is not None
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_every_reference_leads_somewhere(
    definition: dict[str, Any], steps: dict[str, dict[str, Any]]
) -> None:
    known = {f"Parameters.{p['Name']}" for p in definition["Parameters"]} | {"Execution.PipelineExecutionId"}
    for reference in references(definition["Steps"]):
        kind, name, *_ = reference.split(".")
        assert reference in known or (kind == "Steps" and name in steps), reference


def references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if set(value) == {"Get"}:
            yield value["Get"]
        for item in value.values():
            yield from references(item)


def test_jobs_are_encrypted_wherever_sagemaker_lets_them_be(dev: Assembly, synthesize: Any) -> None:
    for assembly, keyed in ((dev, False), (synthesize("local"), True)):
        steps = {step["Name"]: step for step in steps_of(definition_of(assembly)["Steps"])}
        train, evaluate = steps["Train"]["Arguments"], steps["Evaluate"]["Arguments"]
        # ml.g5 has local disks, for which a job that names a volume key is refused; ml.m5 has none.
        assert ("VolumeKmsKeyId" in train["ResourceConfig"]) is keyed
        assert ("VolumeKmsKeyId" in evaluate["ProcessingResources"]["ClusterConfig"]) is keyed
        assert train["OutputDataConfig"]["KmsKeyId"]
        assert evaluate["ProcessingOutputConfig"]["KmsKeyId"]
        assert train["EnableInterContainerTrafficEncryption"] is True
        assert evaluate["NetworkConfig"]["EnableInterContainerTrafficEncryption"] is True
        # What the pipeline's role demands of the job is exactly what the job has.
        for action, has_key in (("CreateTrainingJob", keyed), ("CreateProcessingJob", keyed)):
            demanded = conditions_of(assembly, f"sagemaker:{action}")
            assert ("sagemaker:VolumeKmsKey" in demanded["ArnEquals"]) is has_key


def conditions_of(assembly: Assembly, action: str) -> dict[str, Any]:
    """The conditions under which the pipeline's role may do `action`."""
    (found,) = [
        statement["Condition"]
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if "Runner" in name
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if action in statement["Action"]
    ]
    conditions: dict[str, Any] = found
    return conditions


def test_jobs_run_in_the_network(steps: dict[str, dict[str, Any]]) -> None:
    expected = {
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
        "Subnets": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef0"],
    }
    assert steps["Train"]["Arguments"]["VpcConfig"] == expected
    assert steps["Evaluate"]["Arguments"]["NetworkConfig"]["VpcConfig"] == expected


@pytest.mark.parametrize(
    ("action", "step"), [("CreateTrainingJob", "Train"), ("CreateProcessingJob", "Evaluate")]
)
def test_the_pipeline_can_start_only_jobs_like_these(
    assembly: Assembly, steps: dict[str, dict[str, Any]], action: str, step: str
) -> None:
    conditions = conditions_of(assembly, f"sagemaker:{action}")
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
    (task,) = load_environment(assembly.environment).training.tasks
    machines = [task.instance_type, *task.other_instance_types] if step == "Train" else None
    assert lists["sagemaker:InstanceTypes"] == (machines or [task.evaluation_instance_type])
    assert [stand_in(value) for value in lists["sagemaker:VpcSubnets"]] == [
        "subnet-0123456789abcdef0",
        "subnet-0123456789abcdef0",
    ]


def test_the_pipeline_registers_nothing_that_is_approved(assembly: Assembly) -> None:
    assert conditions_of(assembly, "sagemaker:CreateModelPackage") == {
        "StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}
    }


def around() -> Surroundings:
    return Surroundings(
        training_image="training",
        inference_image="inference",
        trainer_role_arn="trainer",
        evaluator_role_arn="evaluator",
        key_arn="key",
        network={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        model_package_group_name="group",
        training_uri="s3://models/training/",
        checkpoint_uri="s3://models/checkpoints/task/",
        evaluation_uri="s3://models/evaluation/",
    )


def training_of(**changed: Any) -> dict[str, Any]:
    (task,) = load_environment("prod").training.tasks
    changed_task: Task = task.model_copy(update=changed)
    definition = pipeline_definition(task=changed_task, around=around())
    arguments: dict[str, Any] = definition["Steps"][0]["Arguments"]
    return arguments


def test_spot_capacity() -> None:
    spot = training_of(spot=True, max_runtime_minutes=60, max_wait_minutes=90)
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5400}
    on_demand = training_of(max_runtime_minutes=60)
    assert "EnableManagedSpotTraining" not in on_demand
    assert on_demand["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}


def test_an_interrupted_training_goes_on_and_meets_no_other(steps: dict[str, dict[str, Any]]) -> None:
    config = steps["Train"]["Arguments"]["CheckpointConfig"]
    # The container writes to SageMaker's default folder.
    assert set(config) == {"S3Uri"}
    uri = resolved(config["S3Uri"], PARAMETERS)
    assert uri == "s3://models/checkpoints/lung-segmentation/execution1"
    assert training_of(instance_count=2)["ResourceConfig"]["InstanceCount"] == 2


def test_what_waiting_or_another_machine_can_help_is_tried_again(steps: dict[str, dict[str, Any]]) -> None:
    tried = {
        name: {exception for policy in step["RetryPolicies"] for exception in policy["ExceptionType"]}
        for name, step in steps.items()
        if "RetryPolicies" in step
    }
    of_requests = {"Step.SERVICE_FAULT", "Step.THROTTLING"}
    of_jobs = of_requests | {
        "SageMaker.JOB_INTERNAL_ERROR",
        "SageMaker.CAPACITY_ERROR",
        "SageMaker.RESOURCE_LIMIT",
    }
    assert tried == {"Train": of_jobs, "Evaluate": of_jobs, "Register": of_requests}
    for step in steps.values():
        for policy in step.get("RetryPolicies", []):
            # SageMaker refuses a policy with both.
            assert ("MaxAttempts" in policy) is not ("ExpireAfterMin" in policy)


def test_one_role_trains_and_another_judges(assembly: Assembly, steps: dict[str, dict[str, Any]]) -> None:
    assert steps["Train"]["Arguments"]["RoleArn"].endswith("/Trainer")
    assert steps["Evaluate"]["Arguments"]["RoleArn"].endswith("/Evaluator")
    assert {job: prefixes(assembly, job, "s3:PutObject") for job in ("Trainer", "Evaluator")} == {
        "Trainer": {"checkpoints", "training"},
        "Evaluator": {"evaluation"},
    }
    assert {job: prefixes(assembly, job, "s3:GetObject") for job in ("Trainer", "Evaluator")} == {
        "Trainer": {"checkpoints", "manifests"},
        "Evaluator": {"manifests", "training"},
    }


def prefixes(assembly: Assembly, job: str, action: str) -> set[str]:
    """First parts of the object keys on which a job's role may do `action`."""
    (policy,) = [
        policy
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        if name.startswith(f"training/{job}")
    ]
    found = set()
    for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
        if action in statement["Action"]:
            resources = statement["Resource"]
            for resource in resources if isinstance(resources, list) else [resources]:
                found.add(str(resource["Fn::Join"][1][-1]).split("/")[1])
    return found


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


def test_every_instance_family_of_sagemaker_is_classified(sagemaker: ServiceModel) -> None:
    families = set()
    for name in ("TrainingInstanceType", "ProcessingInstanceType", "ProductionVariantInstanceType"):
        shape = sagemaker.shape_for(name)
        assert isinstance(shape, StringShape)
        families |= {instances.family(instance_type) for instance_type in shape.enum}
    assert families == instances.WITH_LOCAL_STORAGE | instances.WITHOUT_LOCAL_STORAGE
    assert not instances.WITH_LOCAL_STORAGE & instances.WITHOUT_LOCAL_STORAGE
    assert families >= instances.WITH_NVIDIA_GPU


def test_a_model_waits_for_approval_with_its_evaluation(steps: dict[str, dict[str, Any]]) -> None:
    register = steps["Register"]["Arguments"]
    assert register["ModelApprovalStatus"] == "PendingManualApproval"
    written = steps["Evaluate"]["Arguments"]["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    shown = register["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert resolved(shown, PARAMETERS) == f"{resolved(written, PARAMETERS)}/evaluation.json"


def test_jobs_stay_where_the_training_role_may_write(steps: dict[str, dict[str, Any]]) -> None:
    train, evaluate = steps["Train"]["Arguments"], steps["Evaluate"]["Arguments"]
    assert train["OutputDataConfig"]["S3OutputPath"] == "s3://models/training/"
    (output,) = evaluate["ProcessingOutputConfig"]["Outputs"]
    assert resolved(output["S3Output"]["S3Uri"], PARAMETERS).startswith("s3://models/evaluation/")


def test_outputs_name_pipeline_and_registry(assembly: Assembly) -> None:
    environment = assembly.stacks["training"]["properties"]["stackName"].split("-")[1]
    outputs = assembly.template("training")["Outputs"]
    for task in load_environment(environment).training.tasks:
        name = f"monai-{environment}-{task.name}"
        assert outputs[f"{task.logical_name}PipelineName"]["Value"] == name
        assert outputs[f"{task.logical_name}ModelPackageGroupName"]["Value"] == name
