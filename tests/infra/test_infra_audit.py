"""The audit trail: what it records, that nobody who works with images can touch it, and who is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_kms as kms
from infra_assembly import Assembly, Resource
from template_values import Values

from infra.data.alarm_topic import ANNOUNCING_SERVICES
from infra.environment import load_environment
from infra.service_logs import ServiceLogGroup

TRAIL = "AWS::CloudTrail::Trail"


def trail_arn(assembly: Assembly) -> str:
    aws = load_environment(assembly.environment).aws
    return f"arn:aws:cloudtrail:{aws.region}:{aws.account}:trail/monai-{assembly.environment}"


def selectors(assembly: Assembly) -> dict[str, dict[str, Any]]:
    """Field -> condition of each selector, by the selector's name."""
    return {
        selector["Name"]: {
            field["Field"]: {key: value for key, value in field.items() if key != "Field"}
            for field in selector["FieldSelectors"]
        }
        for selector in assembly.only(TRAIL)["Properties"]["AdvancedEventSelectors"]
    }


def test_the_trail_is_of_all_regions_validated_and_encrypted(assembly: Assembly) -> None:
    trail = assembly.only(TRAIL)["Properties"]
    assert trail["IsLogging"] is trail["IsMultiRegionTrail"] is trail["EnableLogFileValidation"] is True
    assert trail["IncludeGlobalServiceEvents"] is True
    assert trail["KMSKeyId"]["Fn::GetAtt"][0].startswith("AuditKey")
    assert trail["CloudWatchLogsLogGroupArn"]["Fn::GetAtt"][0].startswith("AuditLog")
    assert trail["S3BucketName"]["Ref"].startswith("AuditBucket")
    assert trail["TrailName"] == f"monai-{assembly.environment}"


def test_reads_of_images_are_recorded(assembly: Assembly) -> None:
    # As CloudTrail spells them: with a capital M and I, "Imageset" in one word. Another spelling records
    # nothing, and CloudFormation would not say so.
    recorded = {
        type
        for selector in selectors(assembly).values()
        if selector["eventCategory"] == {"Equals": ["Data"]}
        for type in selector["resources.type"]["Equals"]
    }
    assert recorded == {
        "AWS::MedicalImaging::Datastore",
        "AWS::MedicalImaging::Imageset",
        "AWS::S3::Object",
    }
    for selector in selectors(assembly).values():
        assert "readOnly" not in selector, "reads and writes both"
        if "MedicalImaging" in str(selector.get("resources.type")):
            assert set(selector) == {"eventCategory", "resources.type"}, "of every data store"


def test_management_events_are_recorded(assembly: Assembly) -> None:
    assert {"eventCategory": {"Equals": ["Management"]}} in selectors(assembly).values()


def test_reads_of_every_bucket_with_patient_data_are_recorded(assembly: Assembly) -> None:
    (objects,) = (selector for selector in selectors(assembly).values() if "resources.ARN" in selector)
    values = Values({"data": assembly.template("data")})
    recorded = set(values.resolve("data", objects["resources.ARN"]["StartsWith"]))
    buckets = {
        name.split("/")[1].lower()
        for name, _ in assembly.resources("AWS::S3::Bucket")
        if not name.startswith(("data/BucketsAccessLogs", "data/AuditBucket"))
    }
    assert len(buckets) == 5
    # With the slash: without it, a bucket whose name starts alike is recorded too.
    assert recorded == {f"arn:aws:s3:::{bucket}/" for bucket in buckets}


def test_only_the_trail_writes_to_its_bucket_and_uses_its_key(assembly: Assembly) -> None:
    template = assembly.template("data")["Resources"]
    (policy,) = (
        resource["Properties"]["PolicyDocument"]["Statement"]
        for name, resource in template.items()
        if resource["Type"] == "AWS::S3::BucketPolicy" and name.startswith("AuditBucket")
    )
    allowed = [statement for statement in policy if statement["Effect"] == "Allow"]
    assert {statement["Action"] for statement in allowed} == {"s3:GetBucketAcl", "s3:PutObject"}
    for statement in allowed:
        assert statement["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
        assert statement["Condition"]["StringEquals"]["aws:SourceArn"] == trail_arn_in(assembly, statement)
    (key,) = (
        resource["Properties"]["KeyPolicy"]["Statement"]
        for name, resource in template.items()
        if resource["Type"] == "AWS::KMS::Key" and name.startswith("AuditKey")
    )
    services = {s["Principal"]["Service"] for s in key if "Service" in s["Principal"]}
    region = load_environment(assembly.environment).aws.region
    assert services == {"cloudtrail.amazonaws.com", f"logs.{region}.amazonaws.com"}
    for statement in key:
        if statement["Principal"].get("Service") == "cloudtrail.amazonaws.com":
            assert statement["Condition"]["StringEquals"]["aws:SourceArn"] == trail_arn(assembly)


def trail_arn_in(assembly: Assembly, statement: Resource) -> str:
    """The trail's ARN; delivery must be with the ACL that CloudTrail sends, too."""
    if statement["Action"] == "s3:PutObject":
        assert statement["Condition"]["StringEquals"]["s3:x-amz-acl"] == "bucket-owner-full-control"
    return trail_arn(assembly)


def test_no_role_can_use_the_key_or_the_bucket_of_the_trail(assembly: Assembly) -> None:
    values = Values({name: stack["template"] for name, stack in assembly.stacks.items()})
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        document = json.dumps(values.resolve(name.split("/")[0], policy["Properties"]["PolicyDocument"]))
        assert "auditkey" not in document, name
        assert "auditbucket" not in document, name


@pytest.mark.parametrize(("environment", "locked"), [("dev", True), ("prod", True), ("local", False)])
def test_records_are_kept_as_long_as_the_file_says(
    synthesize: Callable[[str], Assembly], environment: str, locked: bool
) -> None:
    days = load_environment(environment).logs.audit_retention_days
    resources = synthesize(environment).template("data")["Resources"]
    (bucket,) = (r["Properties"] for name, r in resources.items() if name.startswith("AuditBucket")
                 and r["Type"] == "AWS::S3::Bucket")  # fmt: skip
    (group,) = (r for r in resources.values() if r["Type"] == "AWS::Logs::LogGroup")
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == group["Properties"]["RetentionInDays"] == days
    assert group["DeletionPolicy"] == ("Retain" if locked else "Delete")
    if locked:
        lock = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
        assert lock == {"Mode": "GOVERNANCE", "Days": days}
    else:
        # Nothing could be deleted with its stack.
        assert "ObjectLockConfiguration" not in bucket


def test_the_file_of_production_keeps_records_for_six_years() -> None:
    # 45 CFR 164.316(b)(2)(i).
    assert load_environment("prod").logs.audit_retention_days >= 6 * 365


def test_every_log_group_is_encrypted_and_ends(assembly: Assembly) -> None:
    groups = dict(assembly.resources("AWS::Logs::LogGroup"))
    assert len(groups) >= 3
    values = Values({name: stack["template"] for name, stack in assembly.stacks.items()})
    for name, group in groups.items():
        key = values.resolve(name.split("/")[0], group["Properties"]["KmsKeyId"])
        assert "key/auditkey" in key or "key/encryptionkey" in key, name
        assert group["Properties"]["RetentionInDays"] >= 30, name


def test_alarms_and_budgets_reach_the_topic_and_nobody_else(assembly: Assembly) -> None:
    resources = assembly.template("data")["Resources"]
    account = load_environment(assembly.environment).aws.account
    (policy,) = (r for r in resources.values() if r["Type"] == "AWS::SNS::TopicPolicy")
    allowed = [s for s in policy["Properties"]["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
    assert {statement["Principal"]["Service"] for statement in allowed} == set(ANNOUNCING_SERVICES)
    for statement in allowed:
        assert statement["Action"] == "sns:Publish"
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": account}}


@pytest.mark.parametrize("environment", ["local", "dev", "prod"])
def test_the_addresses_of_the_file_are_subscribed(
    synthesize: Callable[[str], Assembly], environment: str
) -> None:
    assembly = synthesize(environment)
    subscribed = {
        (s["Properties"]["Protocol"], s["Properties"]["Endpoint"])
        for _, s in assembly.resources("AWS::SNS::Subscription")
        if s["Properties"]["TopicArn"]["Ref"].startswith("AlarmsTopic")
    }
    assert subscribed == {("email", address) for address in load_environment(environment).notices.emails}


def test_a_service_log_group_has_the_services_name_and_our_key() -> None:
    stack = cdk.Stack()
    key = kms.Key(stack, "Key")
    ServiceLogGroup(
        stack,
        "Logs",
        name="/aws/sagemaker/TrainingJobs",
        key=key,
        retention_days=365,
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )
    assertions.Template.from_stack(stack).has_resource(
        "AWS::Logs::LogGroup",
        {
            "Properties": {
                "LogGroupName": "/aws/sagemaker/TrainingJobs",
                "KmsKeyId": {"Fn::GetAtt": [assertions.Match.string_like_regexp("^Key"), "Arn"]},
                "RetentionInDays": 365,
            },
            # A rolled back deployment must not leave the name taken.
            "DeletionPolicy": "RetainExceptOnCreate",
            "UpdateReplacePolicy": "Retain",
        },
    )
