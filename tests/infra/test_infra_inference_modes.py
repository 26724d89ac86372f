"""Every way of serving that an environment file may name, in one environment that names them all.

The local cloud runs asynchronous and real-time endpoints; here every template is held against SageMaker's API
model, so that what CloudFormation sends is at least a request that SageMaker understands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import botocore.session
import pytest
from botocore.model import ListShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator
from cfnlint.api import ManualArgs, lint
from infra_assembly import Assembly, Resource

from infra.environment import (
    FOLDER,
    Environment,
    EnvironmentFileError,
    HealthImagingRegion,
    endpoints,
    load_environment,
)
from infra.observability.metrics import aws_metric
from runtime.results.outputs import Output

LIVER = """
[[training.tasks]]
name = "liver-segmentation"
bundle = "ct_segmentation"
instance_type = "ml.g5.2xlarge"
instance_count = 1
evaluation_instance_type = "ml.g5.xlarge"
volume_size_gib = 100
max_runtime_minutes = 240
max_steps = 2000
metric = "mean_dice"
minimum_score = 0.9
"""

REAL_TIME = """
[[inference.endpoints]]
name = "lung-now"
outputs = ["measurement-report", "snapshot", "nifti"]
task = "lung-segmentation"
mode = "real-time"
instance_type = "ml.g5.xlarge"
minimum_instances = 2
maximum_instances = 4
invocations_per_instance = 6.0
"""

MULTI_MODEL = """
[[inference.endpoints]]
name = "rare-models"
mode = "multi-model"
instance_type = "ml.m5.xlarge"
minimum_instances = 1
maximum_instances = 2
invocations_per_instance = 4.0
"""

COMPONENTS = """
[[inference.endpoints]]
name = "organs"
outputs = ["snapshot"]
mode = "inference-components"
instance_type = "ml.g5.12xlarge"
minimum_instances = 0
maximum_instances = 2

[[inference.endpoints.models]]
task = "lung-segmentation"
accelerators = 1
memory_mib = 8192
copies = 2
maximum_copies = 4
invocations_per_copy = 6.0

[[inference.endpoints.models]]
task = "liver-segmentation"
accelerators = 1
memory_mib = 8192
copies = 1
maximum_copies = 2
invocations_per_copy = 6.0
"""

SERVERLESS = """
[[inference.endpoints]]
name = "phantoms"
task = "lung-segmentation"
mode = "serverless"
memory_mib = 6144
maximum_concurrency = 2
"""

BATCH = """
[[inference.endpoints]]
name = "night-run"
task = "lung-segmentation"
mode = "batch"
instance_type = "ml.m5.xlarge"
instance_count = 2
"""

EVERY_MODE = REAL_TIME + MULTI_MODEL + COMPONENTS + SERVERLESS + BATCH


def environment_with(
    folder: Path,
    endpoints: str,
    *,
    patient_data: bool,
    name: str = "dev",
    replaced: Mapping[str, str] | None = None,
) -> Environment:
    """An environment with more tasks and endpoints, through its file and everything that checks it."""
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8") + LIVER + endpoints
    if not patient_data:
        text = text.replace("patient_data = true", "patient_data = false")
    for old, new in (replaced or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_environment(name, folder=folder)


def synthesized(environment: Environment, folder: Path) -> Assembly:
    """The environment's assembly, rule packs and acknowledgements included."""
    from infra import application

    name = environment.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "load_environment", lambda name: environment)
        application.build_app(context={"env": name}, outdir=folder).synth()
    stage = folder / f"assembly-{name}"
    manifest = json.loads((stage / "manifest.json").read_text())
    stacks = {}
    for artifact in manifest["artifacts"].values():
        if artifact["type"] == "aws:cloudformation:stack":
            template = json.loads((stage / artifact["properties"]["templateFile"]).read_text())
            stack = artifact["properties"]["stackName"].removeprefix(f"monai-{name}-")
            stacks[stack] = artifact | {"template": template}
    return Assembly(environment=name, folder=folder, stacks=stacks)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_with(tmp_path_factory.mktemp("environments"), EVERY_MODE, patient_data=False)


@pytest.fixture(scope="module")
def modes(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """An environment with every mode. That it can be made says that the rule packs have no objection."""
    return synthesized(environment, tmp_path_factory.mktemp("cdk-modes"))


def of(assembly: Assembly, type: str, endpoint: str) -> Resource:
    """The one resource of a type that belongs to an endpoint (its logical name)."""
    (found,) = [
        resource for name, resource in assembly.resources(type) if name.startswith(f"inference/{endpoint}")
    ]
    return found


def resolved(assembly: Assembly, value: Any) -> Any:
    """A value as CloudFormation would send it, with a name or an ARN for everything that it would look up."""
    if isinstance(value, dict):
        if set(value) <= {"Ref", "Fn::ImportValue", "Fn::Sub"}:
            return "resolved-value"
        if set(value) == {"Fn::GetAtt"}:
            return (
                "arn:aws:x:us-east-1:111122223333:x" if value["Fn::GetAtt"][1] == "Arn" else "resolved-value"
            )
        if set(value) == {"Fn::Join"}:
            separator, parts = value["Fn::Join"]
            return str(separator).join(str(resolved(assembly, part)) for part in parts)
        return {key: resolved(assembly, each) for key, each in value.items()}
    return [resolved(assembly, each) for each in value] if isinstance(value, list) else value


def unknown_choices(shape: Shape, value: Any, *, where: str = "") -> Iterator[str]:
    """Values that are none of those that the API model lists: botocore itself sends them."""
    if isinstance(shape, StructureShape):
        for name, each in value.items():
            yield from unknown_choices(shape.members[name], each, where=f"{where}.{name}")
    elif isinstance(shape, ListShape):
        for each in value:
            yield from unknown_choices(shape.member, each, where=where)
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield f"{where}: {value!r}"


def objections(service: str, operation: str, request: Mapping[str, Any]) -> str:
    """What the service's API model has against a request; empty if nothing."""
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    report = str(ParamValidator().validate(dict(request), shape).generate_report())
    return report or "; ".join(unknown_choices(shape, request))


def test_cloudformation_lint(modes: Assembly) -> None:
    regions = list(get_args(HealthImagingRegion))
    matches = lint(
        json.dumps(modes.template("inference")),
        # W6001: outputs state where the buckets of the data stack are.
        config=ManualArgs(regions=regions, ignore_checks=["W3005", "W6001"]),
    )
    assert not [str(match) for match in matches]


@pytest.mark.parametrize(
    ("type", "operation", "name", "count", "only_updates"),
    [
        ("AWS::SageMaker::Model", "CreateModel", "ModelName", 7, ()),
        ("AWS::SageMaker::EndpointConfig", "CreateEndpointConfig", "EndpointConfigName", 5, ()),
        ("AWS::SageMaker::Endpoint", "CreateEndpoint", "", 5, ("RetainAllVariantProperties",)),
        ("AWS::SageMaker::Endpoint", "UpdateEndpoint", "", 5, ("Tags",)),
        ("AWS::SageMaker::InferenceComponent", "CreateInferenceComponent", "", 2, ("DeploymentConfig",)),
        (
            "AWS::SageMaker::InferenceComponent",
            "UpdateInferenceComponent",
            "",
            2,
            ("EndpointName", "VariantName", "Tags"),
        ),
    ],
)
def test_sagemaker_understands_the_request(
    modes: Assembly, type: str, operation: str, name: str, count: int, only_updates: tuple[str, ...]
) -> None:
    found = dict(modes.resources(type))
    assert len(found) == count
    for id, resource in found.items():
        request = resolved(modes, resource["Properties"])
        for other in only_updates:
            request.pop(other, None)
        if name:
            assert name not in request, id
            request[name] = "made-by-cloudformation"
        assert objections("sagemaker", operation, request) == "", id


def test_scaling_is_understood_and_of_what_exists(modes: Assembly) -> None:
    endpoints = {r["Properties"]["EndpointName"] for _, r in modes.resources("AWS::SageMaker::Endpoint")}
    components = {
        r["Properties"]["InferenceComponentName"]
        for _, r in modes.resources("AWS::SageMaker::InferenceComponent")
    }
    targets = dict(modes.resources("AWS::ApplicationAutoScaling::ScalableTarget"))
    assert len(targets) == 5
    seen = set()
    for id, target in targets.items():
        request = resolved(modes, target["Properties"])
        # A list of pairs in CloudFormation, an object for the service.
        request["Tags"] = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        assert objections("application-autoscaling", "RegisterScalableTarget", request) == "", id
        kind, name, *variant = request["ResourceId"].split("/")
        if kind == "endpoint":
            assert name in endpoints, id
            assert variant == ["variant", "main"], id
            assert request["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount", id
        else:
            assert (kind, variant) == ("inference-component", []), id
            assert name in components, id
            assert request["ScalableDimension"] == "sagemaker:inference-component:DesiredCopyCount", id
        seen.add(name)
        (waits_for,) = target["DependsOn"]
        served = modes.template("inference")["Resources"][waits_for]["Properties"]
        assert name in (served.get("InferenceComponentName"), served.get("EndpointName")), id
    # Serverless scales by itself, and the machines of components are SageMaker's business.
    assert len(seen) == 5
    for id, policy in modes.resources("AWS::ApplicationAutoScaling::ScalingPolicy"):
        request = resolved(modes, policy["Properties"]) | {
            "ServiceNamespace": "sagemaker",
            "ResourceId": "endpoint/x/variant/main",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        del request["ScalingTargetId"]
        assert objections("application-autoscaling", "PutScalingPolicy", request) == "", id


def test_names_are_short_enough_and_say_what_would_replace_them(modes: Assembly) -> None:
    names = [
        (r["Properties"].get("InferenceComponentName") or r["Properties"]["EndpointName"])
        for type in ("AWS::SageMaker::Endpoint", "AWS::SageMaker::InferenceComponent")
        for _, r in modes.resources(type)
    ]
    assert len(set(names)) == len(names) == 7
    assert all(len(name) <= 63 for name in names)
    for component in (r for _, r in modes.resources("AWS::SageMaker::InferenceComponent")):
        assert component["Properties"]["InferenceComponentName"].endswith("-g5-12xlarge")


def test_long_names_are_refused_by_the_environment_file(tmp_path: Path) -> None:
    long = COMPONENTS.replace('name = "organs"', 'name = "organs-of-the-thorax-and-abdome"')
    with pytest.raises(EnvironmentFileError, match=r"models\.0\.task: the component's name would have"):
        environment_with(tmp_path, long, patient_data=True)


def test_more_copies_than_the_most_are_refused_by_the_environment_file(tmp_path: Path) -> None:
    few = COMPONENTS.replace("maximum_copies = 4", "maximum_copies = 1")
    with pytest.raises(EnvironmentFileError, match=r"models\.0\.copies: 2 is more than maximum_copies 1"):
        environment_with(tmp_path, few, patient_data=True)


def test_containers_make_what_their_endpoint_asks_for(modes: Assembly) -> None:
    made = {}
    for name, resource in modes.resources("AWS::SageMaker::Model"):
        variables = resource["Properties"]["PrimaryContainer"]["Environment"]
        made.setdefault(variables["RUNTIME_ENDPOINT_NAME"], set()).add(variables.get("RUNTIME_OUTPUTS"))
        assert variables["RUNTIME_SEGMENTATION_S3_URI"], f"{name}: NIfTI files have no other place"
    assert made.pop("lung-now") == {"measurement-report,snapshot,nifti"}
    assert made.pop("organs") == {"snapshot"}, "of each of its models"
    assert set().union(*made.values()) == {None}
    assert set(get_args(endpoints.Output)) == set(Output)


def test_an_unknown_output_is_refused_by_the_environment_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFileError, match="outputs"):
        environment_with(tmp_path, REAL_TIME.replace('"nifti"', '"pdf"'), patient_data=False)


def test_nothing_exists_before_its_model(modes: Assembly) -> None:
    template = modes.template("inference")
    conditional = {
        "AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig", "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::InferenceComponent", "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
    }  # fmt: skip
    for name, resource in template["Resources"].items():
        if resource["Type"] in conditional:
            assert resource["Condition"] in template["Conditions"], name
        elif resource["Type"] in ("AWS::Logs::LogGroup", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role"):
            assert "Condition" not in resource, name
    assert {name for name in template["Parameters"] if not name.startswith("Bootstrap")} == {
        "LungSegmentationModelPackageArn", "LungNowModelPackageArn", "RareModelsEnabled",
        "OrgansLungSegmentationModelPackageArn", "OrgansLiverSegmentationModelPackageArn",
        "PhantomsModelPackageArn", "NightRunModelPackageArn",
    }  # fmt: skip
    assert template["Parameters"]["RareModelsEnabled"]["Default"] == "false"


def test_components_come_one_by_one_and_their_machines_with_the_first(modes: Assembly) -> None:
    template = modes.template("inference")
    assert template["Conditions"]["OrgansDeployed"] == {
        "Fn::Or": [
            {"Condition": "OrgansLungSegmentationDeployed"},
            {"Condition": "OrgansLiverSegmentationDeployed"},
        ]
    }
    assert of(modes, "AWS::SageMaker::Endpoint", "Organs")["Condition"] == "OrgansDeployed"
    for task in ("LungSegmentation", "LiverSegmentation"):
        component = of(modes, "AWS::SageMaker::InferenceComponent", f"Organs{task}")
        assert component["Condition"] == f"Organs{task}Deployed"


def test_only_serverless_is_outside_the_network(modes: Assembly) -> None:
    outside = []
    for name, model in modes.resources("AWS::SageMaker::Model"):
        assert model["Properties"]["EnableNetworkIsolation"] is False, name
        if "VpcConfig" not in model["Properties"]:
            outside.append(name)
    assert len(outside) == 1
    assert outside[0].startswith("inference/Phantoms")
    host = of(modes, "AWS::SageMaker::EndpointConfig", "Organs")["Properties"]
    assert len(host["VpcConfig"]["Subnets"]) >= 2


def test_serverless_with_patient_data_is_refused_twice(environment: Environment, tmp_path: Path) -> None:
    from infra import application

    with pytest.raises(EnvironmentFileError, match="a serverless endpoint cannot"):
        environment_with(tmp_path, SERVERLESS, patient_data=True)
    slipped = environment.model_copy(
        update={"protection": environment.protection.model_copy(update={"patient_data": True})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "load_environment", lambda name: slipped)
        with pytest.raises(ValueError, match="is serverless, and there is patient data"):
            application.build_app(context={"env": "dev"}, outdir=tmp_path)


def test_every_configuration_is_encrypted_and_captures_nothing(modes: Assembly) -> None:
    for name, configuration in modes.resources("AWS::SageMaker::EndpointConfig"):
        assert "EncryptionKey" in json.dumps(configuration["Properties"]["KmsKeyId"]), name
        assert "DataCaptureConfig" not in configuration["Properties"], name


def test_gpu_machines_have_the_driver_that_cuda_13_needs(modes: Assembly) -> None:
    images = {
        variant["InstanceType"]: variant.get("InferenceAmiVersion")
        for _, configuration in modes.resources("AWS::SageMaker::EndpointConfig")
        for variant in configuration["Properties"]["ProductionVariants"]
        if "InstanceType" in variant
    }
    cuda_13 = "al2023-ami-sagemaker-inference-gpu-4-1"
    assert images == {"ml.g5.xlarge": cuda_13, "ml.g5.12xlarge": cuda_13, "ml.m5.xlarge": None}


def test_real_time_is_in_two_zones_and_takes_a_model_step_by_step(modes: Assembly) -> None:
    (variant,) = of(modes, "AWS::SageMaker::EndpointConfig", "LungNow")["Properties"]["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 2
    assert len(of(modes, "AWS::SageMaker::Model", "LungNow")["Properties"]["VpcConfig"]["Subnets"]) >= 2
    endpoint = of(modes, "AWS::SageMaker::Endpoint", "LungNow")["Properties"]
    assert endpoint["RetainAllVariantProperties"] is True
    routing = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    # "Value must be less than or equal to 50% of the variant's total instance count" (CanarySize).
    assert routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}
    tracking = of(modes, "AWS::ApplicationAutoScaling::ScalingPolicy", "LungNow")["Properties"]
    assert tracking["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
    }


def test_one_machine_takes_a_model_at_once(modes: Assembly) -> None:
    endpoint = of(modes, "AWS::SageMaker::Endpoint", "RareModels")["Properties"]
    routing = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}


def test_updates_end_before_they_are_given_up(modes: Assembly) -> None:
    for name, endpoint in modes.resources("AWS::SageMaker::Endpoint"):
        policy = endpoint["Properties"].get("DeploymentConfig", {}).get("BlueGreenUpdatePolicy")
        if policy is None:
            assert name.startswith(("inference/Organs", "inference/Phantoms")), name
            continue
        waits = policy["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]
        # "The timeout value should be larger than the total waiting time" (BlueGreenUpdatePolicy), and
        # machines have to start as well.
        assert policy["MaximumExecutionTimeoutInSeconds"] >= (
            waits + policy["TerminationWaitInSeconds"] + 900
        ), name


def test_a_multi_model_endpoint_serves_what_is_below_its_prefix(modes: Assembly) -> None:
    container = of(modes, "AWS::SageMaker::Model", "RareModels")["Properties"]["PrimaryContainer"]
    assert container["Mode"] == "MultiModel"
    assert json.dumps(container["ModelDataUrl"]).endswith('"/multi-model/rare-models/"]]}')
    assert "ModelPackageName" not in container
    assert "dkr.ecr" in json.dumps(container["Image"])
    # The stack of the images publishes it, and so has to come first.
    needed = modes.stacks["inference"]["dependencies"]
    assert any(artifact.startswith("devtraining") for artifact in needed)
    role = json.dumps(of(modes, "AWS::IAM::ManagedPolicy", "RareModels")["Properties"]["PolicyDocument"])
    assert "/multi-model/rare-models/*" in role
    assert "/training/*" not in role


def test_components_share_machines_and_scale_by_their_own_requests(modes: Assembly) -> None:
    configuration = of(modes, "AWS::SageMaker::EndpointConfig", "Organs")["Properties"]
    (variant,) = configuration["ProductionVariants"]
    assert "ModelName" not in variant
    assert variant["ManagedInstanceScaling"] == {
        "Status": "ENABLED",
        "MinInstanceCount": 0,
        "MaxInstanceCount": 2,
    }
    assert variant["InitialInstanceCount"] == 1
    assert "OrgansContainerRole" in json.dumps(configuration["ExecutionRoleArn"])
    lung = of(modes, "AWS::SageMaker::InferenceComponent", "OrgansLungSegmentation")["Properties"]
    assert lung["RuntimeConfig"] == {"CopyCount": 2}
    assert lung["Specification"]["ComputeResourceRequirements"] == {
        "NumberOfAcceleratorDevicesRequired": 1,
        "MinMemoryRequiredInMb": 8192,
    }
    target = of(modes, "AWS::ApplicationAutoScaling::ScalableTarget", "OrgansLung")["Properties"]
    # Machines go when no model has a copy.
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 4)


def test_a_component_with_one_copy_is_not_updated_in_halves(modes: Assembly) -> None:
    lung = of(modes, "AWS::SageMaker::InferenceComponent", "OrgansLungSegmentation")["Properties"]
    rolling = lung["DeploymentConfig"]["RollingUpdatePolicy"]
    assert rolling["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 50}
    assert len(lung["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]) == 2
    # "The value must be between 5% to 50% of the copy count" (MaximumBatchSize).
    liver = of(modes, "AWS::SageMaker::InferenceComponent", "OrgansLiverSegmentation")["Properties"]
    assert "DeploymentConfig" not in liver


def test_a_component_wakes_its_machines(modes: Assembly) -> None:
    resources = modes.template("inference")["Resources"]
    waking = [
        resource
        for resource in resources.values()
        if resource["Properties"].get("MetricName") == "NoCapacityInvocationFailures"
    ]
    assert len(waking) == 2
    for alarm in waking:
        ((dimension, name),) = [(d["Name"], d["Value"]) for d in alarm["Properties"]["Dimensions"]]
        assert dimension == "InferenceComponentName"
        (action,) = alarm["Properties"]["AlarmActions"]
        policy = resources[action["Ref"]]
        assert policy["Properties"]["PolicyType"] == "StepScaling"
        assert policy["Condition"] == alarm["Condition"]
        target = resources[policy["Properties"]["ScalingTargetId"]["Ref"]]["Properties"]
        assert target["ResourceId"] == f"inference-component/{name}"


def test_a_component_that_never_sleeps_needs_no_waking(tmp_path: Path) -> None:
    awake = environment_with(
        tmp_path,
        COMPONENTS.replace("minimum_instances = 0", "minimum_instances = 1"),
        patient_data=True,
    )
    assembly = synthesized(awake, tmp_path / "cdk")
    target = of(assembly, "AWS::ApplicationAutoScaling::ScalableTarget", "OrgansLung")["Properties"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 4)
    assert "NoCapacityInvocationFailures" not in json.dumps(assembly.template("inference"))


def test_alarms_have_the_dimensions_that_sagemaker_emits(modes: Assembly) -> None:
    by_variant, by_component, by_endpoint = (
        {"EndpointName", "VariantName"},
        {"InferenceComponentName"},
        {"EndpointName"},
    )
    emitted = {
        "Invocation5XXErrors": (by_variant, by_component),
        "ModelLatency": (by_variant, by_component),
        "InvocationFailures": (by_variant,),
        "HasBacklogWithoutCapacity": (by_endpoint,),
        "NoCapacityInvocationFailures": (by_component,),
    }
    names = {
        (r["Properties"].get("InferenceComponentName") or r["Properties"]["EndpointName"])
        for type in ("AWS::SageMaker::Endpoint", "AWS::SageMaker::InferenceComponent")
        for _, r in modes.resources(type)
    }
    watched = set()
    for id, alarm in modes.resources("AWS::CloudWatch::Alarm"):
        if not id.startswith("inference/"):
            continue
        properties = alarm["Properties"]
        assert properties["Namespace"] == "AWS/SageMaker", id
        dimensions = {each["Name"]: each["Value"] for each in properties["Dimensions"]}
        assert set(dimensions) in emitted[properties["MetricName"]], id
        # Also in the platform's own table, which the alarms of people are held against.
        metric = aws_metric(properties["Namespace"], properties["MetricName"], *dimensions)
        assert metric.allows(properties["Statistic"]), id
        assert dimensions.get("VariantName", "main") == "main", id
        assert properties["AlarmActions"], id
        watched.add(dimensions.get("InferenceComponentName") or dimensions["EndpointName"])
    # A components' endpoint answers through its components only.
    assert watched == {name for name in names if name != "monai-dev-organs-g5-12xlarge"}


def test_latency_alarms_come_before_sagemaker_gives_up(modes: Assembly) -> None:
    asynchronous = 0
    for id, alarm in modes.resources("AWS::CloudWatch::Alarm"):
        if id.startswith("inference/") and alarm["Properties"]["MetricName"] == "ModelLatency":
            limit_seconds = 900 if "LungSegmentationSlow" in id and "Organs" not in id else 60
            asynchronous += limit_seconds == 900
            microseconds = alarm["Properties"]["Threshold"]
            assert 0.5 * limit_seconds * 1e6 < microseconds < limit_seconds * 1e6, id
    assert asynchronous == 1


def test_a_transform_job_can_be_started_with_the_output(modes: Assembly) -> None:
    outputs = modes.template("inference")["Outputs"]
    job = outputs["NightRunTransformJob"]
    assert job["Condition"] == "NightRunDeployed"
    request = json.loads(resolved(modes, job["Value"])) | {"TransformJobName": "night-run-1"}
    assert objections("sagemaker", "CreateTransformJob", request) == ""
    assert request["TransformResources"] == {
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": 2,
        "VolumeKmsKeyId": "resolved-value",
    }
    source = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert source.endswith("/requests/batch/night-run/")
    assert request["TransformOutput"]["S3OutputPath"].endswith("/responses/batch/night-run/")
    role = json.dumps(of(modes, "AWS::IAM::ManagedPolicy", "NightRun")["Properties"]["PolicyDocument"])
    assert "/requests/batch/night-run/*" in role
    assert "/responses/batch/night-run/*" in role


def test_a_transform_job_with_local_disks_names_no_volume_key(tmp_path: Path) -> None:
    on_gpu = BATCH.replace("ml.m5.xlarge", "ml.g4dn.xlarge")
    with pytest.raises(EnvironmentFileError, match="batch transform has no driver for CUDA 13"):
        environment_with(tmp_path, on_gpu, patient_data=True)
    # With an image for CUDA 12, which batch jobs have a driver for.
    cuda_12 = environment_with(tmp_path, on_gpu, patient_data=True, replaced={"cu133": "cu128"})
    outputs = synthesized(cuda_12, tmp_path / "cdk").template("inference")["Outputs"]
    text = json.dumps(outputs["NightRunTransformJob"])
    assert "al2-ami-sagemaker-batch-gpu-535" in text
    assert "VolumeKmsKeyId" not in text


def test_every_log_group_is_there_before_sagemaker_makes_it(modes: Assembly) -> None:
    groups = {
        resource["Properties"]["LogGroupName"]: resource["Properties"]
        for name, resource in modes.resources("AWS::Logs::LogGroup")
        if name.startswith("inference/")
        and str(resource["Properties"].get("LogGroupName")).startswith("/aws/sagemaker/")
    }
    assert set(groups) == {
        "/aws/sagemaker/Endpoints/monai-dev-lung-segmentation-g5-xlarge",
        "/aws/sagemaker/Endpoints/monai-dev-lung-now-g5-xlarge",
        "/aws/sagemaker/Endpoints/monai-dev-rare-models-m5-xlarge",
        "/aws/sagemaker/Endpoints/monai-dev-organs-g5-12xlarge",
        "/aws/sagemaker/Endpoints/monai-dev-phantoms",
        "/aws/sagemaker/InferenceComponents/monai-dev-organs-lung-segmentation-g5-12xlarge",
        "/aws/sagemaker/InferenceComponents/monai-dev-organs-liver-segmentation-g5-12xlarge",
        "/aws/sagemaker/TransformJobs",
    }
    for name, group in groups.items():
        assert "EncryptionKey" in json.dumps(group["KmsKeyId"]), name
        assert group["RetentionInDays"] == 365, name


def test_a_role_is_for_one_endpoint_and_has_what_its_mode_needs(modes: Assembly) -> None:
    actions = {}
    for name, policy in modes.resources("AWS::IAM::ManagedPolicy"):
        stack, _, role = name.partition("/")
        if stack == "inference" and "ContainerPolicy" in role:
            statements = policy["Properties"]["PolicyDocument"]["Statement"]
            listed = [s["Action"] for s in statements]
            actions[role.split("ContainerPolicy")[0]] = {
                action for each in listed for action in (each if isinstance(each, list) else [each])
            }
    assert set(actions) == {"LungSegmentation", "LungNow", "RareModels", "Organs", "Phantoms", "NightRun"}
    assert [name for name in actions if "sns:Publish" in actions[name]] == ["LungSegmentation"]
    assert not [action for action in actions["Phantoms"] if action.startswith("ec2:")]
    guarded = {name for name in actions if "cloudwatch:DescribeAlarms" in actions[name]}
    assert guarded == {"LungSegmentation", "LungNow", "RareModels", "Organs"}
    for name, allowed in actions.items():
        assert "logs:CreateLogGroup" not in allowed, name


def test_the_integrator_may_ask_in_every_mode_that_answers_at_once(
    modes: Assembly, environment: Environment
) -> None:
    """`monai-aws predict --endpoint` offers all of them; after a failure it reads the container's log."""
    statements = [
        statement
        for name, policy in modes.resources("AWS::IAM::ManagedPolicy")
        if name.startswith("studio/ClinicalIntegrator")
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]

    def places(action: str) -> str:
        return json.dumps([one["Resource"] for one in statements if action in one["Action"]])

    asked, read = places("sagemaker:InvokeEndpoint"), places("logs:GetLogEvents")
    names = {
        endpoint.mode: endpoint.endpoint_name(environment.name)
        for endpoint in environment.inference.endpoints
        if not isinstance(endpoint, endpoints.BatchTransform)
    }
    assert set(names) == {
        "asynchronous", "real-time", "multi-model", "inference-components", "serverless",
    }  # fmt: skip
    for name in names.values():
        assert f":endpoint/{name}" in asked
        assert f":log-group:/aws/sagemaker/Endpoints/{name}:*" in read
    assert "/aws/sagemaker/InferenceComponents/monai-dev-organs-lung-segmentation-g5-12xlarge:*" in read
