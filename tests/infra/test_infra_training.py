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
from infra.environment import load_environment

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
    if "Role" in text:
        return "arn:aws:iam::111122223333:role/trainer"
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
