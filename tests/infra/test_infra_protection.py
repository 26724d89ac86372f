"""What keeps patient data: where it is, that nobody else reads it, and that no deployment loses it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from infra_assembly import Assembly, Resource

DATASTORE = "AWS::HealthImaging::Datastore"


def denies_plain_http(document: Resource) -> bool:
    return any(
        statement["Effect"] == "Deny"
        and statement["Principal"] in ("*", {"AWS": "*"})
        and statement["Action"] in ("s3:*", "sqs:*", "sns:Publish")
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in document["Statement"]
    )


def test_the_datastore_is_retained_in_every_environment(assembly: Assembly) -> None:
    datastore = assembly.only(DATASTORE)
    assert datastore["DeletionPolicy"] == "Retain"
    assert datastore["UpdateReplacePolicy"] == "Retain"


def test_nothing_that_may_change_is_a_property_of_the_datastore(
    synthesize: Callable[[str], Assembly],
) -> None:
    # Every property of the type is create-only: a change of any of them, or of the logical id, replaces the
    # data store. This is the one template part that must never be edited, so it is pinned word for word.
    template = synthesize("dev").template("data")
    assert template["Resources"]["ArchiveDatastoreAD6CDB3C"] == {
        "Type": DATASTORE,
        "Properties": {
            "DatastoreName": "monai-dev",
            "KmsKeyArn": {"Fn::GetAtt": ["EncryptionKey3A692D6E", "Arn"]},
        },
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
    }
    assert template["Resources"]["EncryptionKey3A692D6E"]["Type"] == "AWS::KMS::Key"


def test_no_tag_reaches_the_datastore_through_its_stack(assembly: Assembly) -> None:
    # CloudFormation hands the tags of a stack down to its resources.
    assert "tags" not in assembly.stacks["data"]["properties"]


def test_the_environment_decides_what_a_deletion_may_take(synthesize: Callable[[str], Assembly]) -> None:
    for environment, policy, protected in (("dev", "Retain", True), ("local", "Delete", False)):
        assembly = synthesize(environment)
        assert assembly.stacks["data"]["properties"]["terminationProtection"] is protected
        for type in (
            "AWS::S3::Bucket",
            "AWS::S3::BucketPolicy",
            "AWS::KMS::Key",
        ):
            for name, resource in assembly.resources(type):
                assert resource["DeletionPolicy"] == policy, name
                assert resource["UpdateReplacePolicy"] == policy, name
        groups = list(assembly.resources("AWS::Logs::LogGroup"))
        assert {name.split("/")[0] for name, _ in groups} >= {"catalog", "data", "inference", "network"}
        for name, group in groups:
            # What functions, containers and the network have logged is kept wherever data are.
            kept = {"Retain": ("Retain", "RetainExceptOnCreate"), "Delete": ("Delete",)}[policy]
            assert group.get("DeletionPolicy") in kept, name
            assert group.get("UpdateReplacePolicy") == policy, name
        workgroup = assembly.only("AWS::Athena::WorkGroup")["Properties"]
        assert workgroup["RecursiveDeleteOption"] is not protected


def rules_of(bucket: Resource) -> list[Resource]:
    rules: list[Resource] = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in rules)
    return rules


def test_no_bucket_keeps_parts_of_unfinished_uploads(assembly: Assembly) -> None:
    for name, bucket in assembly.resources("AWS::S3::Bucket"):
        everywhere = [rule for rule in rules_of(bucket) if "Prefix" not in rule]
        assert [rule["AbortIncompleteMultipartUpload"] for rule in everywhere] == [
            {"DaysAfterInitiation": 7}
        ], name


def test_what_was_sent_stays_until_it_is_imported_and_nothing_stays_for_ever(assembly: Assembly) -> None:
    (inbox,) = [one for name, one in assembly.resources("AWS::S3::Bucket") if "BucketsInbox" in name]
    ageing = {
        rule.get("Prefix", ""): rule["ExpirationInDays"]
        for rule in rules_of(inbox)
        if "ExpirationInDays" in rule
    }
    # A year for a person to look at what may be the only copy; and none of the rules reaches `received/`.
    assert ageing == {"ingest/": 90, "quarantine/": 365, "failed/": 365}
    # Whatever goes, by age or by hand, can be brought back for a while.
    (old,) = [rule["NoncurrentVersionExpiration"] for rule in rules_of(inbox) if "Prefix" not in rule]
    assert old == {"NoncurrentDays": 90}


_NAMES = {
    "AWS::CloudTrail::Trail": "TrailName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::SageMaker::Domain": "DomainName",
    "AWS::SageMaker::ModelPackageGroup": "ModelPackageGroupName",
}


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_what_is_kept_under_a_fixed_name_is_not_in_the_way_of_a_second_first_deployment(
    environment: str, synthesize: Callable[[str], Assembly]
) -> None:
    # A deployment that fails is rolled back. What it made under a fixed name and left behind would make the
    # next one fail with "already exists".
    assembly = synthesize(environment)
    for type, name in _NAMES.items():
        named = [(id, one) for id, one in assembly.resources(type) if name in one["Properties"]]
        assert named, type
        for id, resource in named:
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate", id
            assert resource["UpdateReplacePolicy"] == "Retain", id


def test_keys_rotate_and_serve_services_for_this_account_only(dev: Assembly) -> None:
    keys = dict(dev.resources("AWS::KMS::Key"))
    assert len(keys) == 2
    for key in keys.values():
        assert key["Properties"]["EnableKeyRotation"] is True
        for statement in key["Properties"]["KeyPolicy"]["Statement"]:
            if "Service" in statement["Principal"]:
                assert "111122223333" in json.dumps(statement["Condition"]), statement["Sid"]


def test_the_services_that_use_the_key_may(dev: Assembly) -> None:
    key = dev.template("data")["Resources"]["EncryptionKey3A692D6E"]
    policy = key["Properties"]["KeyPolicy"]["Statement"]
    granted = {
        statement["Principal"]["Service"]: set(statement["Action"])
        for statement in policy
        if "Service" in statement["Principal"]
    }
    assert set(granted) == {
        "budgets.amazonaws.com",
        "cloudwatch.amazonaws.com",
        "events.amazonaws.com",
        "logs.us-east-1.amazonaws.com",
        "medical-imaging.amazonaws.com",
        "sns.amazonaws.com",
    }
    for service, actions in granted.items():
        assert {"kms:Decrypt", "kms:GenerateDataKey"} <= actions, service


def test_every_bucket_is_private_encrypted_versioned_logged_and_tls_only(assembly: Assembly) -> None:
    buckets = dict(assembly.resources("AWS::S3::Bucket"))
    assert len(buckets) == 7
    tls_only = {
        f"{stack}/{policy['Properties']['Bucket']['Ref']}"
        for stack, policy in (
            (name.split("/")[0], p) for name, p in assembly.resources("AWS::S3::BucketPolicy")
        )
        if denies_plain_http(policy["Properties"]["PolicyDocument"])
    }
    for name, bucket in buckets.items():
        properties = bucket["Properties"]
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert len(properties["PublicAccessBlockConfiguration"]) == 4, name
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}, name
        assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}, (
            name
        )
        assert name in tls_only
        assert "BucketName" not in properties, name
        (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        encryption = rule["ServerSideEncryptionByDefault"]
        if "AccessLogs" in name:
            # S3 delivers its logs only to buckets with S3-managed keys.
            assert encryption == {"SSEAlgorithm": "AES256"}
        else:
            assert encryption["SSEAlgorithm"] == "aws:kms", name
            # Who may use the key of images cannot read what is recorded of it.
            key = "AuditKey" if "AuditBucket" in name else "EncryptionKey"
            assert encryption["KMSMasterKeyID"]["Fn::GetAtt"][0].startswith(key), name
            assert properties["LoggingConfiguration"]["DestinationBucketName"] == {
                "Ref": "BucketsAccessLogsA5F88218"
            }


@pytest.mark.parametrize(
    ("type", "policy_type", "key_property", "attached"),
    [
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "KmsMasterKeyId", "Queues"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "KmsMasterKeyId", "Topics"),
    ],
)
def test_messages_are_encrypted_and_tls_only(
    assembly: Assembly, type: str, policy_type: str, key_property: str, attached: str
) -> None:
    found = dict(assembly.resources(type))
    assert found
    tls_only = {
        reference["Ref"]
        for _, policy in assembly.resources(policy_type)
        for reference in policy["Properties"][attached]
        if denies_plain_http(policy["Properties"]["PolicyDocument"])
    }
    for name, resource in found.items():
        assert "EncryptionKey" in json.dumps(resource["Properties"][key_property]), name
        assert name.split("/")[1] in tls_only


def test_nothing_is_made_by_hidden_functions(assembly: Assembly) -> None:
    # Features of the CDK that need a custom resource bring functions with roles that nobody reviewed.
    functions = sorted(
        f"{name.split('/')[0]}: {function['Properties']['Handler']}"
        for name, function in assembly.resources("AWS::Lambda::Function")
    )
    wanted = {
        "catalog: runtime.functions.compact.handler.handle",
        "catalog: runtime.functions.index.handler.handle",
        "catalog: runtime.functions.reconcile_catalog.handler.handle",
        "inference: runtime.functions.announce.handler.handle",
        "inference: runtime.functions.dispatch.handler.handle",
        "inference: runtime.functions.reconcile.handler.handle",
        "network: runtime.functions.close_default_group.handler.handle",
    }
    if assembly.environment in ("staging", "prod"):
        wanted.add("promotion: runtime.functions.promote.handler.handle")
    assert functions == sorted(wanted)
    types = {r["Type"] for stack in assembly.stacks.values() for r in stack["template"]["Resources"].values()}
    assert {t for t in types if t.startswith("Custom::") or t == "AWS::CloudFormation::CustomResource"} == {
        "Custom::ClosedDefaultGroup"
    }


def test_nothing_that_may_be_replaced_has_a_name(assembly: Assembly) -> None:
    # Other accounts name these roles (infra/promotion/names.py). Nothing but a new name replaces a role.
    known_elsewhere = {f"monai-{assembly.environment}-{use}" for use in ("promotion", "verification")}
    for type, name_property in {
        "AWS::IAM::Role": "RoleName",
        "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::SNS::Topic": "TopicName",
        "AWS::Lambda::Function": "FunctionName",
        "AWS::Events::Rule": "Name",
        "AWS::Glue::Crawler": "Name",
        "AWS::SageMaker::Model": "ModelName",
        "AWS::SageMaker::EndpointConfig": "EndpointConfigName",
        "AWS::CloudWatch::Alarm": "AlarmName",
    }.items():
        for name, resource in assembly.resources(type):
            if resource["Properties"].get(name_property) in known_elsewhere:
                continue
            assert name_property not in resource["Properties"], name
    # Nothing but the name replaces a log group, and the names of these are the services' choice.
    for name, group in assembly.resources("AWS::Logs::LogGroup"):
        assert group["Properties"].get("LogGroupName", "/aws/").startswith("/aws/"), name
    # The instance type replaces an endpoint, and is in its name.
    for name, endpoint in assembly.resources("AWS::SageMaker::Endpoint"):
        configuration = endpoint["Properties"]["EndpointConfigName"]["Fn::GetAtt"][0]
        settings = assembly.template(name.split("/")[0])["Resources"][configuration]["Properties"]
        (variant,) = settings["ProductionVariants"]
        machine = variant["InstanceType"].removeprefix("ml.").replace(".", "-")
        assert endpoint["Properties"]["EndpointName"].endswith(f"-{machine}"), name
