"""Models on their way from one environment to the next: who announces, who may read, who decides."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from infra_assembly import Assembly, Resource

from infra.environment import (
    Environment,
    EnvironmentFileError,
    Training,
    load_delivery,
    load_environment,
)
from infra.promotion.intake import lent_objects
from infra.promotion.neighbours import Neighbours, neighbours_of

DEV, STAGING, PROD, TOOLING = "111122223333", "222233334444", "333344445555", "444455556666"
STEPS = [("dev", DEV, "staging", STAGING), ("staging", STAGING, "prod", PROD)]
"""Each promotion: from where, to where."""

Synthesize = Callable[[str], Assembly]


def resources(assembly: Assembly, type: str, *, stack: str = "promotion") -> list[Resource]:
    return [resource for name, resource in assembly.resources(type) if name.startswith(f"{stack}/")]


def statements_by_sid(document: Resource, sid: str) -> list[Resource]:
    return [statement for statement in document["Statement"] if statement.get("Sid") == sid]


def reader(account: str, environment: str) -> Resource:
    """The condition that is true for one role of the account."""
    return {"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{account}:role/monai-{environment}-promotion"}}


def root(account: str) -> str:
    return f"arn:aws:iam::{account}:root"


def as_text(value: Any) -> str:
    """An ARN without the functions in which the partition is wrapped."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(part if isinstance(part, str) else "aws" for part in value["Fn::Join"][1])
    return str(value)


def test_environments_outside_the_delivery_have_no_promotion(synthesize: Synthesize) -> None:
    assert "promotion" not in synthesize("local").stacks
    assert {name for name in ("dev", "staging", "prod") if "promotion" in synthesize(name).stacks} == set(
        load_delivery().environments
    )


@pytest.mark.parametrize(("before", "account", "after", "other"), STEPS)
def test_approvals_of_the_offered_groups_go_to_the_next_account(
    synthesize: Synthesize, before: str, account: str, after: str, other: str
) -> None:
    rules = resources(synthesize(before), "AWS::Events::Rule")
    (rule,) = [rule["Properties"] for rule in rules if "EventBusName" not in rule["Properties"]]
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {
            "ModelPackageGroupName": [f"monai-{before}-lung-segmentation"],
            "ModelApprovalStatus": ["Approved"],
        },
    }
    (target,) = rule["Targets"]
    bus = f"arn:aws:events:us-east-1:{other}:event-bus/monai-{after}-candidates"
    assert target["Arn"] == bus
    (policy,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for policy in resources(synthesize(before), "AWS::IAM::ManagedPolicy")
        if "events:PutEvents" in json.dumps(policy)
    ]
    assert policy == [{"Action": "events:PutEvents", "Effect": "Allow", "Resource": bus}]


@pytest.mark.parametrize(("before", "account", "after", "other"), STEPS)
def test_the_next_environment_hears_of_this_account_only(
    synthesize: Synthesize, before: str, account: str, after: str, other: str
) -> None:
    (bus,) = [bus["Properties"] for bus in resources(synthesize(after), "AWS::Events::EventBus")]
    (statement,) = bus["Policy"]["Statement"]
    assert bus["Name"] == f"monai-{after}-candidates"
    assert statement["Principal"] == {"AWS": root(account)}
    assert statement["Action"] == "events:PutEvents"
    assert as_text(statement["Resource"]).endswith(f":{other}:event-bus/monai-{after}-candidates")
    assert statement["Condition"]["StringEquals"] == {
        "events:source": "aws.sagemaker",
        "events:detail-type": "SageMaker Model Package State Change",
    }
    (rule,) = [
        rule["Properties"]
        for rule in resources(synthesize(after), "AWS::Events::Rule")
        if "EventBusName" in rule["Properties"]
    ]
    assert rule["EventPattern"]["account"] == [account]
    assert rule["EventPattern"]["detail"]["ModelApprovalStatus"] == ["Approved"]
    assert "DeadLetterConfig" in rule["Targets"][0]


@pytest.mark.parametrize(("before", "account", "after", "other"), STEPS)
def test_one_role_of_the_next_account_reads_models_and_nothing_else(
    synthesize: Synthesize, before: str, account: str, after: str, other: str
) -> None:
    assembly = synthesize(before)
    lent = []
    for _, policy in assembly.resources("AWS::S3::BucketPolicy"):
        document = policy["Properties"]["PolicyDocument"]
        lent += [(policy, statement) for statement in statements_by_sid(document, "LendModels")]
        others = [statement for statement in document["Statement"] if statement.get("Sid") != "LendModels"]
        assert other not in json.dumps(others)
    ((policy, statement),) = lent
    assert "BucketsModels" in policy["Properties"]["Bucket"]["Ref"]
    assert statement["Principal"] == {"AWS": root(other)}
    assert statement["Action"] == "s3:GetObject"
    assert statement["Condition"] == reader(other, after)
    prefixes = [arn["Fn::Join"][1][1] for arn in statement["Resource"]]
    assert sorted(prefixes) == ["/evaluation/*/evaluation.json", "/promoted/*", "/training/*"]

    keys = [key["Properties"]["KeyPolicy"] for _, key in assembly.resources("AWS::KMS::Key")]
    (statement,) = [found for key in keys for found in statements_by_sid(key, "LendModels")]
    assert statement["Principal"] == {"AWS": root(other)}
    assert statement["Action"] == "kms:Decrypt"
    assert statement["Condition"] == {
        **reader(other, after),
        "StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"},
    }

    groups = [group["Properties"] for _, group in assembly.resources("AWS::SageMaker::ModelPackageGroup")]
    # What the next environment does not train, it takes no candidates of.
    (group,) = [group for group in groups if "ModelPackageGroupPolicy" in group]
    (statement,) = group["ModelPackageGroupPolicy"]["Statement"]
    assert statement["Principal"] == {"AWS": root(other)}
    assert statement["Action"] == ["sagemaker:DescribeModelPackage"]
    assert statement["Condition"] == reader(other, after)
    (arn,) = statement["Resource"]
    assert as_text(arn).endswith(f":{account}:model-package/monai-{before}-lung-segmentation/*")


def test_nobody_reads_the_models_of_the_last_environment(synthesize: Synthesize) -> None:
    for environment in ("prod", "local"):
        assembly = synthesize(environment)
        text = json.dumps([stack["template"] for stack in assembly.stacks.values()])
        assert "LendModels" not in text
        groups = [one["Properties"] for _, one in assembly.resources("AWS::SageMaker::ModelPackageGroup")]
        assert groups
        assert not [group for group in groups if "ModelPackageGroupPolicy" in group]


def test_the_first_environment_takes_no_candidates(synthesize: Synthesize) -> None:
    assert not resources(synthesize("dev"), "AWS::Lambda::Function")
    assert not resources(synthesize("dev"), "AWS::Events::EventBus")


@pytest.mark.parametrize(("before", "account", "after", "other"), STEPS)
def test_what_the_function_may(
    synthesize: Synthesize, before: str, account: str, after: str, other: str
) -> None:
    policy = promotion_policy(synthesize(after))
    text = json.dumps(policy)
    assert "UpdateModelPackage" not in text  # only a person approves
    assert "iam:PassRole" not in text
    for statement in policy:
        mentioned = json.dumps(statement["Resource"])
        if statement["Action"] == "s3:GetObject":
            assert statement["Condition"] == {"StringEquals": {"aws:ResourceAccount": account}}
            assert statement["Resource"] == [
                f"arn:aws:s3:::monai-{before}-data*/{pattern}"
                for pattern in ("evaluation/*/evaluation.json", "promoted/*", "training/*")
            ]
        elif f":{account}:" in mentioned:
            assert statement["Action"] in ("sagemaker:DescribeModelPackage", "kms:Decrypt")
        if statement["Action"] == "sagemaker:CreateModelPackage":
            # Not even the function's own credentials can register what no person has to look at.
            assert statement["Condition"] == {
                "StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}
            }
    (function,) = resources(synthesize(after), "AWS::Lambda::Function")
    variables = function["Properties"]["Environment"]["Variables"]
    assert variables["SOURCE_ACCOUNT"] == account
    assert json.loads(variables["GROUPS"]) == {
        f"monai-{before}-lung-segmentation": f"monai-{after}-lung-segmentation"
    }
    assert other in json.dumps(variables["INFERENCE_IMAGE"])
    assert account not in json.dumps(variables["INFERENCE_IMAGE"])


def test_the_image_of_a_candidate_is_the_one_of_the_environments_pipeline(synthesize: Synthesize) -> None:
    staging = synthesize("staging")
    (function,) = resources(staging, "AWS::Lambda::Function")
    image = function["Properties"]["Environment"]["Variables"]["INFERENCE_IMAGE"]
    tag = json.dumps(image).rpartition(":")[2].rstrip('"}')
    assert len(tag) == 64
    assert tag in json.dumps(staging.template("training"))


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_check_after_a_deployment_sees_states_and_no_data(
    synthesize: Synthesize, environment: str
) -> None:
    account = {"dev": DEV, "staging": STAGING, "prod": PROD}[environment]
    (role,) = [
        role["Properties"]
        for role in resources(synthesize(environment), "AWS::IAM::Role")
        if role["Properties"].get("RoleName") == f"monai-{environment}-verification"
    ]
    trusted = {
        (
            as_text(statement["Principal"]["AWS"]),
            statement["Condition"]["ArnEquals"]["aws:PrincipalArn"],
            statement["Action"],
        )
        for statement in role["AssumeRolePolicyDocument"]["Statement"]
    }
    assert trusted == {
        (root(TOOLING), f"arn:aws:iam::{TOOLING}:role/monai-toolchain-checks", "sts:AssumeRole"),
        (root(account), f"arn:aws:iam::{account}:role/monai-{environment}-github", "sts:AssumeRole"),
    }
    (policy,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for policy in resources(synthesize(environment), "AWS::IAM::ManagedPolicy")
        if "medical-imaging:GetDatastore" in json.dumps(policy)
    ]
    actions = {
        action
        for statement in policy
        for action in (
            statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        )
    }
    from infra.toolchain.environment_check import stacks_of

    wanted = stacks_of(load_environment(environment))
    (seen,) = [one["Resource"] for one in policy if one["Action"] == "cloudformation:DescribeStacks"]
    assert sorted(seen) == sorted(
        f"arn:aws:cloudformation:us-east-1:{account}:stack/monai-{environment}-{name}/*" for name in wanted
    )
    assert actions == {
        "athena:GetQueryExecution", "athena:StartQueryExecution",
        "cloudformation:DescribeStacks",
        "kms:GenerateDataKey",
        "medical-imaging:GetDatastore",
        "s3:GetBucketLocation", "s3:PutObject",
        "sagemaker:DescribeEndpoint", "sagemaker:DescribePipeline",
    }  # fmt: skip


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_only_the_function_reaches_another_account_from_the_network(
    synthesize: Synthesize, environment: str
) -> None:
    before = {"staging": DEV, "prod": STAGING}[environment]
    account = {"staging": STAGING, "prod": PROD}[environment]
    found = {}
    for name, endpoint in synthesize(environment).resources("AWS::EC2::VPCEndpoint"):
        text = json.dumps(endpoint["Properties"].get("PolicyDocument", {}))
        if before in text:
            (statement,) = statements_by_sid(
                endpoint["Properties"]["PolicyDocument"], "ModelsOfTheEnvironmentBefore"
            )
            assert statement["Condition"] == {
                "StringEquals": {"aws:ResourceAccount": before},
                **reader(account, environment),
            }
            found[name] = statement["Action"]
    assert sorted(found.values()) == ["s3:GetObject", "sagemaker:DescribeModelPackage"]


def changed(environment: Environment, **values: str) -> Environment:
    return environment.model_copy(update={"aws": environment.aws.model_copy(update=values)})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"region": "eu-west-1"}, "share a region"),
        ({"account": STAGING}, "share account"),
        ({"account": TOOLING}, "tooling.account: is also the account of dev"),
    ],
)
def test_contradictions_between_environments_are_told(values: dict[str, str], problem: str) -> None:
    with pytest.raises(EnvironmentFileError) as caught:
        neighbours_of(changed(load_environment("dev"), **values))
    assert any(problem in one for one in caught.value.problems)


def test_tasks_that_the_next_environment_does_not_have_are_not_offered() -> None:
    from infra.promotion.stack import _groups

    dev, staging = load_environment("dev"), load_environment("staging")
    assert {task.name for task in dev.training.tasks} > {task.name for task in staging.training.tasks}
    assert _groups(dev, staging) == {"monai-dev-lung-segmentation": "monai-staging-lung-segmentation"}
    assert _groups(dev, staging.model_copy(update={"training": Training(tasks=())})) == {}


def test_neighbours_follow_the_delivery() -> None:
    found = neighbours_of(load_environment("staging"))
    assert isinstance(found, Neighbours)
    assert (found.before.name, found.after.name) == ("dev", "prod")  # type: ignore[union-attr]  # both neighbours are there
    assert neighbours_of(load_environment("local")) is None


def promotion_policy(assembly: Assembly) -> list[Resource]:
    """The statements of the promote function's role."""
    (policy,) = [
        policy["Properties"]["PolicyDocument"]["Statement"]
        for policy in resources(assembly, "AWS::IAM::ManagedPolicy")
        if "sagemaker:CreateModelPackage" in json.dumps(policy)
    ]
    return list(policy)


# In the local cloud: one account plays both environments, and the role has the policy of the template.

GROUP_THERE, GROUP_HERE = "monai-dev-lung-segmentation", "monai-staging-lung-segmentation"


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Two environments in one account of the local cloud."""

    cloud: Any
    there: str
    here: str
    image_there: str
    image_here: str
    queue_url: str
    policy: list[Resource]

    def client(self, service: str) -> Any:
        return self.cloud.client(service)

    def approve(self) -> tuple[str, str]:
        """A trained model is approved there; (its ARN, the event as SQS delivers it)."""
        weights = uuid.uuid4().bytes
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            info = tarfile.TarInfo("./models/model.pt")
            info.size = len(weights)
            tar.addfile(info, io.BytesIO(weights))
        run = uuid.uuid4().hex
        s3, sagemaker = self.client("s3"), self.client("sagemaker")
        s3.put_object(Bucket=self.there, Key=f"training/{run}/model.tar.gz", Body=stream.getvalue())
        evaluation = {"weights": {"model.pt": hashlib.sha256(weights).hexdigest()}}
        s3.put_object(
            Bucket=self.there, Key=f"evaluation/{run}/evaluation.json", Body=json.dumps(evaluation).encode()
        )
        statistics = {
            "ContentType": "application/json",
            "S3Uri": f"s3://{self.there}/evaluation/{run}/evaluation.json",
        }
        arn = sagemaker.create_model_package(
            ModelPackageGroupName=GROUP_THERE,
            ModelApprovalStatus="PendingManualApproval",
            InferenceSpecification={
                "Containers": [
                    {
                        "Image": self.image_there,
                        "ModelDataUrl": f"s3://{self.there}/training/{run}/model.tar.gz",
                    }
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            ModelMetrics={"ModelQuality": {"Statistics": statistics}},
            CustomerMetadataProperties={"manifestUri": f"s3://{self.there}/manifests/m.json"},
        )["ModelPackageArn"]
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
        return str(arn), self.announced(str(arn))

    def announced(self, arn: str) -> str:
        """The event of this package's approval, as the rule of the environment before sends it."""
        sqs = self.client("sqs")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for message in sqs.receive_message(QueueUrl=self.queue_url, WaitTimeSeconds=1).get(
                "Messages", []
            ):
                sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
                if json.loads(message["Body"])["detail"]["ModelPackageArn"] == arn:
                    return str(message["Body"])
        pytest.fail(f"the rule did not announce {arn}")

    def candidates(self) -> list[Resource]:
        """Packages of the group here, newest last."""
        sagemaker = self.client("sagemaker")
        pages = sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=GROUP_HERE, SortBy="CreationTime", SortOrder="Ascending"
        )
        return [
            sagemaker.describe_model_package(ModelPackageName=summary["ModelPackageArn"])
            for page in pages
            for summary in page["ModelPackageSummaryList"]
        ]


@pytest.fixture(scope="module")
def accounts(cloud: Any, synthesize: Synthesize) -> Accounts:
    s3, sagemaker = cloud.client("s3"), cloud.client("sagemaker")
    unique = uuid.uuid4().hex[:12]
    there, here = f"monai-dev-data-bucketsmodels-{unique}", f"monai-staging-data-bucketsmodels-{unique}"
    for bucket in (there, here):
        s3.create_bucket(Bucket=bucket)
    for group in (GROUP_THERE, GROUP_HERE):
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    repository = f"images-{unique}"
    cloud.client("ecr").create_repository(repositoryName=repository)
    images = []
    for tag in ("there", "here"):
        manifest = {
            "schemaVersion": 2,
            "config": {"digest": f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"},
        }
        cloud.client("ecr").put_image(
            repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest)
        )
        images.append(f"{cloud.account_id}.dkr.ecr.{cloud.region}.amazonaws.com/{repository}:{tag}")
    queue_url = announcements(cloud, synthesize("dev"), name=unique)
    policy = policy_here(promotion_policy(synthesize("staging")), cloud, models=here)
    return Accounts(
        cloud=cloud,
        there=there,
        here=here,
        image_there=images[0],
        image_here=images[1],
        queue_url=queue_url,
        policy=policy,
    )


def announcements(cloud: Any, dev: Assembly, *, name: str) -> str:
    """A queue that gets what the rule of dev matches."""
    (rule,) = [
        rule["Properties"]
        for rule in resources(dev, "AWS::Events::Rule")
        if "EventBusName" not in rule["Properties"]
    ]
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule_arn = events.put_rule(Name=name, EventPattern=json.dumps(rule["EventPattern"]))["RuleArn"]
    allowed = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(allowed)})
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def policy_here(policy: list[Resource], cloud: Any, *, models: str) -> list[Resource]:
    """The role's statements, with the accounts and names of the local cloud in them."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if not isinstance(value, dict):
            text = str(value)
            for account in (DEV, STAGING):
                text = text.replace(account, cloud.account_id)
            return text
        if "Fn::Join" in value:
            return "".join(plain(part) for part in value["Fn::Join"][1])
        if "Fn::ImportValue" in value:
            exported = str(value["Fn::ImportValue"])
            return f"arn:aws:s3:::{models}" if "BucketsModels" in exported else f"arn:aws:kms:::{exported}"
        if "Fn::GetAtt" in value:
            return f"arn:aws:sqs:::{value['Fn::GetAtt'][0]}"
        if "Ref" in value:
            return "aws"
        return {name: plain(inner) for name, inner in value.items()}

    return [plain(statement) for statement in policy if statement["Effect"] == "Allow"]


@pytest.fixture
def handle(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, list[Resource]], bool]]:
    """Runs the function on an event, as a role with these statements; True if it succeeded."""
    from runtime.functions.promote import handler

    iam = accounts.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": root(accounts.cloud.account_id)},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    name = f"promotion-{uuid.uuid4().hex[:8]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    for variable, value in {
        **accounts.cloud.environment,
        "SOURCE_ENVIRONMENT": "dev",
        "SOURCE_ACCOUNT": accounts.cloud.account_id,
        "GROUPS": json.dumps({GROUP_THERE: GROUP_HERE}),
        "INFERENCE_IMAGE": accounts.image_here,
        "MODEL_BUCKET": accounts.here,
    }.items():
        monkeypatch.setenv(variable, value)

    def run(event: str, policy: list[Resource]) -> bool:
        document = {"Version": "2012-10-17", "Statement": policy}
        iam.put_role_policy(RoleName=name, PolicyName="work", PolicyDocument=json.dumps(document))
        given = accounts.client("sts").assume_role(RoleArn=arn, RoleSessionName="function")["Credentials"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
        # The default session keeps the credentials that it found first.
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        record = {"messageId": "m", "body": event}
        return handler.handle({"Records": [record]}, None) == {"batchItemFailures": []}

    yield run
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


Handle = Callable[[str, list[Resource]], bool]


def test_an_approved_model_becomes_one_candidate(accounts: Accounts, handle: Handle) -> None:
    before = len(accounts.candidates())
    arn, event = accounts.approve()
    assert handle(event, accounts.policy)
    *_, found = accounts.candidates()
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    properties = found["CustomerMetadataProperties"]
    assert properties["sourceModelPackageArn"] == arn
    assert properties["sourceEnvironment"] == "dev"
    assert properties["manifestUri"] == f"s3://{accounts.there}/manifests/m.json"
    (container,) = found["InferenceSpecification"]["Containers"]
    assert container["Image"] == accounts.image_here
    folder = f"promoted/{accounts.cloud.account_id}/{GROUP_THERE}/{arn.rsplit('/', 1)[1]}"
    key = container["ModelDataUrl"].removeprefix(f"s3://{accounts.here}/")
    assert key.startswith(f"{folder}/")
    copied = accounts.client("s3").get_object(Bucket=accounts.here, Key=key)["Body"].read()
    assert properties["modelSha256"] == hashlib.sha256(copied).hexdigest()

    # The event comes again, and after the candidate was rejected here.
    assert handle(event, accounts.policy)
    accounts.client("sagemaker").update_model_package(
        ModelPackageArn=found["ModelPackageArn"], ModelApprovalStatus="Rejected"
    )
    assert handle(event, accounts.policy)
    assert len(accounts.candidates()) == before + 1
    *_, found = accounts.candidates()
    assert found["ModelApprovalStatus"] == "Rejected"


def test_a_model_that_was_exchanged_after_its_evaluation_is_no_candidate(
    accounts: Accounts, handle: Handle
) -> None:
    before = len(accounts.candidates())
    arn, event = accounts.approve()
    other, _ = accounts.approve()
    sagemaker, s3 = accounts.client("sagemaker"), accounts.client("s3")

    def key(package: str) -> str:
        (container,) = sagemaker.describe_model_package(ModelPackageName=package)["InferenceSpecification"][
            "Containers"
        ]
        return str(container["ModelDataUrl"].split("/", 3)[3])

    exchanged = s3.get_object(Bucket=accounts.there, Key=key(other))["Body"].read()
    s3.put_object(Bucket=accounts.there, Key=key(arn), Body=exchanged)
    assert not handle(event, accounts.policy)
    assert len(accounts.candidates()) == before


NEEDED = [
    ("sagemaker:DescribeModelPackage", "monai-dev-"),
    ("s3:GetObject", "monai-dev-"),
    ("s3:GetObject", "/promoted/"),
    ("s3:PutObject", "/promoted/"),
    ("sagemaker:CreateModelPackage", "monai-staging-"),
    ("sagemaker:ListModelPackages", "*"),
]
"""Permissions that the work misses here: action, and a part of the resource that tells it from others. Only
AWS itself misses kms:Decrypt and kms:GenerateDataKey of the two keys (the buckets here are not encrypted),
s3:AbortMultipartUpload (a transfer that fails half-way), and what Lambda does before the function starts:
messages, logs, network interfaces.
"""


def without(policy: list[Resource], action: str, resource: str) -> list[Resource]:
    """The policy less one permission."""
    changed: list[Resource] = []
    removed = 0
    for statement in policy:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if (
            action in actions
            and resource in json.dumps(statement["Resource"])
            and not (resource == "/promoted/" and "monai-dev-" in json.dumps(statement["Resource"]))
        ):
            removed += 1
            actions = [one for one in actions if one != action]
        if actions:
            changed.append({**statement, "Action": actions})
    assert removed == 1
    return changed


@pytest.fixture(scope="module")
def announced(accounts: Accounts) -> tuple[str, str]:
    return accounts.approve()


@pytest.mark.parametrize(("action", "resource"), NEEDED)
def test_every_permission_of_the_role_is_needed(
    accounts: Accounts, handle: Handle, announced: tuple[str, str], action: str, resource: str
) -> None:
    before = len(accounts.candidates())
    assert not handle(announced[1], without(accounts.policy, action, resource))
    assert len(accounts.candidates()) == before


def test_the_next_environments_rule_takes_what_the_rule_before_sends(
    accounts: Accounts, synthesize: Synthesize, announced: tuple[str, str]
) -> None:
    (rule,) = [
        rule["Properties"]
        for rule in resources(synthesize("staging"), "AWS::Events::Rule")
        if "EventBusName" in rule["Properties"]
    ]
    event = json.loads(announced[1])
    pattern = json.dumps(rule["EventPattern"]).replace(DEV, accounts.cloud.account_id)
    matches = accounts.client("events").test_event_pattern
    assert matches(EventPattern=pattern, Event=json.dumps(event))["Result"]
    event["detail"]["ModelApprovalStatus"] = "Rejected"
    assert not matches(EventPattern=pattern, Event=json.dumps(event))["Result"]
    event["detail"]["ModelApprovalStatus"] = "Approved"
    event["account"] = "999999999999"
    assert not matches(EventPattern=pattern, Event=json.dumps(event))["Result"]


def test_long_stack_names_are_cut_where_cloudformation_cuts_them() -> None:
    long = load_environment("dev").model_copy(update={"name": "development-of-radiology"})
    assert lent_objects(long, "training/*") == "arn:aws:s3:::monai-development-of-rad*/training/*"
    assert lent_objects(load_environment("dev"), "training/*") == "arn:aws:s3:::monai-dev-data*/training/*"
