"""The event path: what its rule lets through, where it may send, what the function is told, and what becomes
of what it missed and of what the endpoints answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from infra_assembly import Assembly, Resource

from infra.data.buckets import DISPATCHED, FAILURES, NOTED
from infra.environment import Environment, Rule, load_environment
from infra.platform import Platform
from infra.repository import ROOT
from runtime.functions.announce.results import SOURCE
from runtime.functions.dispatch.decisions import DECIDED
from runtime.functions.dispatch.rules import Route, read_routes
from runtime.functions.dispatch.runs import CLAIM_SECONDS

PACKAGE = "arn:aws:sagemaker:us-east-1:111122223333:model-package/lung/1"


def in_event_path(assembly: Assembly, type: str, *, part: str = "Events") -> dict[str, Resource]:
    """Resources of the type in a part of the path, by logical id."""
    return {
        name.removeprefix("inference/"): resource
        for name, resource in assembly.resources(type)
        if name.startswith(f"inference/{part}")
    }


def only(assembly: Assembly, type: str, *, part: str = "Events") -> dict[str, Any]:
    (resource,) = in_event_path(assembly, type, part=part).values()
    properties: dict[str, Any] = resource["Properties"]
    return properties


def routes_of(properties: dict[str, Any], *, package: str) -> tuple[Route, ...]:
    """The routes as the function reads them, with this package at every endpoint."""
    text = properties["Environment"]["Variables"]["DISPATCH_ROUTES"]
    return read_routes("".join(resolve(part, package=package) for part in text["Fn::Join"][1]))


def resolve(part: Any, *, package: str) -> str:
    if isinstance(part, str):
        return part
    if "Fn::If" in part:
        _, deployed, otherwise = part["Fn::If"]
        assert deployed["Fn::GetAtt"][1] == "EndpointName"
        return str(otherwise)
    assert part["Ref"].endswith("ModelPackageArn")
    return package


def test_the_rule_lets_through_new_images_of_primary_image_sets(assembly: Assembly) -> None:
    pattern = only(assembly, "AWS::Events::Rule")["EventPattern"]
    assert pattern["source"] == ["aws.medical-imaging"]
    assert pattern["detail-type"] == ["Image Set Created", "Image Set Updated", "Image Set Copied"]
    assert set(pattern["detail"]) == {"datastoreId", "isPrimary"}
    assert pattern["detail"]["isPrimary"] == [True]
    assert "Datastore" in json.dumps(pattern["detail"]["datastoreId"])


def test_what_cannot_be_delivered_or_done_is_kept(assembly: Assembly) -> None:
    queues = in_event_path(assembly, "AWS::SQS::Queue")
    (dead,) = [name for name in queues if "DeadLetters" in name]
    (queue,) = [name for name in queues if "DeadLetters" not in name]
    properties = queues[queue]["Properties"]
    assert properties["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": [dead, "Arn"]},
        "maxReceiveCount": 5,
    }
    (target,) = only(assembly, "AWS::Events::Rule")["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": [queue, "Arn"]}
    assert target["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": [dead, "Arn"]}
    mapping = only(assembly, "AWS::Lambda::EventSourceMapping")
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    timeout = only(assembly, "AWS::Lambda::Function")["Timeout"]
    assert properties["VisibilityTimeout"] == 6 * timeout
    # A claim must not be taken over from an invocation that still works, and must be when its message comes
    # again.
    assert timeout < CLAIM_SECONDS < properties["VisibilityTimeout"]


def test_an_image_set_is_left_alone_for_the_quiet_period(assembly: Assembly) -> None:
    quiet = load_environment(assembly.environment).inference.quiet_seconds
    queues = in_event_path(assembly, "AWS::SQS::Queue")
    delays = {name: queue["Properties"].get("DelaySeconds") for name, queue in queues.items()}
    assert sorted(delays.values(), key=str) == [quiet, None], "dead letters do not wait"
    told = only(assembly, "AWS::Lambda::Function")["Environment"]["Variables"]["QUIET_SECONDS"]
    assert told == str(quiet)
    (lag,) = [
        alarm["Properties"]
        for name, alarm in assembly.resources("AWS::CloudWatch::Alarm")
        if "DispatchLag" in name
    ]
    assert lag["Threshold"] >= quiet + 900, "waiting as it should is not being late"


def test_what_was_missed_is_looked_for_with_the_same_rules(assembly: Assembly) -> None:
    wanted = load_environment(assembly.environment).inference
    told = only(assembly, "AWS::Lambda::Function", part="Reconcile")
    variables = told["Environment"]["Variables"]
    dispatch = only(assembly, "AWS::Lambda::Function")["Environment"]["Variables"]
    assert {name: variables[name] for name in dispatch} == dispatch
    assert int(variables["AFTER_SECONDS"]) >= wanted.quiet_seconds
    assert int(variables["DAYS"]) < 30, "what has been dispatched is recorded for 30 days"
    assert told["Timeout"] < CLAIM_SECONDS
    schedule = only(assembly, "AWS::Events::Rule", part="Reconcile")
    assert schedule["ScheduleExpression"] == f"rate({wanted.reconcile.every_minutes} minutes)"
    assert int(variables["EVERY_SECONDS"]) == 60 * wanted.reconcile.every_minutes > told["Timeout"]
    (function,) = in_event_path(assembly, "AWS::Lambda::Function", part="Reconcile")
    (rule,) = in_event_path(assembly, "AWS::Events::Rule", part="Reconcile")
    permission = only(assembly, "AWS::Lambda::Permission", part="Reconcile")
    assert [target["Arn"] for target in schedule["Targets"]] == [{"Fn::GetAtt": [function, "Arn"]}]
    assert permission["FunctionName"] == {"Fn::GetAtt": [function, "Arn"]}
    assert permission["SourceArn"] == {"Fn::GetAtt": [rule, "Arn"]}
    (listing,) = [
        statement
        for statement in only(assembly, "AWS::IAM::ManagedPolicy", part="Reconcile")["PolicyDocument"][
            "Statement"
        ]
        if statement["Action"] == "s3:ListBucket"
    ]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": [f"{DISPATCHED}{DECIDED}*"]}}


def test_both_topics_reach_the_announce_function(assembly: Assembly) -> None:
    subscriptions = in_event_path(assembly, "AWS::SNS::Subscription", part="Announce")
    queues = in_event_path(assembly, "AWS::SQS::Queue", part="Announce")
    (dead,) = [{"Fn::GetAtt": [name, "Arn"]} for name in queues if "DeadLetters" in name]
    (queue,) = [{"Fn::GetAtt": [name, "Arn"]} for name in queues if "DeadLetters" not in name]
    topics = sorted(name.removeprefix("inference/") for name, _ in assembly.resources("AWS::SNS::Topic")
                    if name.startswith("inference/"))  # fmt: skip
    heard = [one["Properties"] for one in subscriptions.values()]
    assert sorted(one["TopicArn"]["Ref"] for one in heard) == topics
    assert len(topics) == 2
    for one in heard:
        assert one["Endpoint"] == queue
        assert one["Protocol"] == "sqs"
        assert one["RawMessageDelivery"] is True
        assert one["RedrivePolicy"] == {"deadLetterTargetArn": dead}
    for policy in in_event_path(assembly, "AWS::SQS::QueuePolicy", part="Announce").values():
        denied, allowed = policy["Properties"]["PolicyDocument"]["Statement"]
        assert denied["Effect"] == "Deny"
        assert allowed["Principal"] == {"Service": "sns.amazonaws.com"}
        sources = allowed["Condition"]["ArnEquals"]["aws:SourceArn"]
        assert sorted(source["Ref"] for source in sources) == topics
    (key,) = [
        one["Properties"]["KeyPolicy"]["Statement"]
        for name, one in assembly.resources("AWS::KMS::Key")
        if name.startswith("data/EncryptionKey")
    ]
    (delivering,) = [one for one in key if one.get("Principal", {}).get("Service") == "sns.amazonaws.com"]
    assert set(delivering["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    assert delivering["Condition"] == {
        "StringEquals": {"aws:SourceAccount": load_environment(assembly.environment).aws.account}
    }


def test_only_result_events_can_be_put_and_only_on_the_default_bus(assembly: Assembly) -> None:
    (puts,) = [
        statement
        for statement in only(assembly, "AWS::IAM::ManagedPolicy", part="Announce")["PolicyDocument"][
            "Statement"
        ]
        if statement["Action"] == "events:PutEvents"
    ]
    aws = load_environment(assembly.environment).aws
    assert puts["Resource"] == f"arn:aws:events:{aws.region}:{aws.account}:event-bus/default"
    assert puts["Condition"] == {"StringEquals": {"events:source": SOURCE}}
    function = only(assembly, "AWS::Lambda::Function", part="Announce")
    assert function["Environment"]["Variables"]["EVENT_BUS"] == "default"


def test_queues_are_encrypted_and_take_tls_only(assembly: Assembly) -> None:
    queues, policies = (in_event_path(assembly, f"AWS::SQS::{type}") for type in ("Queue", "QueuePolicy"))
    assert len(queues) == len(policies) == 2
    for queue in queues.values():
        assert "EncryptionKey" in json.dumps(queue["Properties"]["KmsMasterKeyId"])
    for policy in policies.values():
        denied, allowed = policy["Properties"]["PolicyDocument"]["Statement"]
        assert denied["Effect"] == "Deny"
        assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert allowed["Action"] == "sqs:SendMessage"
        assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
        assert "ImagesArrived" in json.dumps(allowed["Condition"]["ArnEquals"]["aws:SourceArn"])


def test_the_function_is_in_the_network(assembly: Assembly) -> None:
    network = only(assembly, "AWS::Lambda::Function")["VpcConfig"]
    assert len(network["SubnetIds"]) >= 2
    assert len(network["SecurityGroupIds"]) == 1


def test_it_may_ask_the_endpoints_of_the_rules_and_no_others(assembly: Assembly) -> None:
    (allowed,) = [
        statement["Resource"]
        for statement in only(assembly, "AWS::IAM::ManagedPolicy")["PolicyDocument"]["Statement"]
        if statement["Action"] == "sagemaker:InvokeEndpointAsync"
    ]
    environment = load_environment(assembly.environment)
    named = {rule.endpoint for rule in environment.inference.rules}
    prefix = f"arn:aws:sagemaker:{environment.aws.region}:{environment.aws.account}:endpoint"
    wanted = [
        f"{prefix}/{endpoint.endpoint_name(environment.name)}"
        for endpoint in environment.inference.endpoints
        if endpoint.name in named and endpoint.mode == "asynchronous"
    ]
    assert sorted(allowed if isinstance(allowed, list) else [allowed]) == sorted(wanted)
    assert DISPATCHED.startswith("requests/"), "endpoints read their requests there"


def test_the_function_is_told_the_rules_of_the_file(assembly: Assembly) -> None:
    environment = load_environment(assembly.environment)
    function = only(assembly, "AWS::Lambda::Function")
    routes = routes_of(function, package=PACKAGE)
    assert [route.rule.name for route in routes] == [rule.name for rule in environment.inference.rules]
    for route, rule in zip(routes, environment.inference.rules, strict=True):
        assert route.rule.modality == set(rule.modality)
        assert route.rule.body_part == set(rule.body_part)
        assert route.rule.minimum_instances == rule.minimum_instances
        assert route.model == PACKAGE
        assert route.endpoint.startswith(f"monai-{assembly.environment}-{rule.endpoint}")


def test_without_a_model_every_rule_is_closed(assembly: Assembly) -> None:
    parameters = assembly.template("inference")["Parameters"]
    assert {
        parameter["Default"] for name, parameter in parameters.items() if name.endswith("ModelPackageArn")
    } == {""}
    function = only(assembly, "AWS::Lambda::Function")
    assert not [route for route in routes_of(function, package="") if route.is_open]


def variant(*rules: Rule) -> Environment:
    environment = load_environment("dev")
    return environment.model_copy(
        update={"inference": environment.inference.model_copy(update={"rules": rules})}
    )


def rule(name: str, **changed: Any) -> Rule:
    return Rule(name=name, endpoint="lung-segmentation", modality=("CT",), **changed)


@pytest.fixture
def platform_of(tmp_path: Path) -> Callable[[Environment], Platform]:
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    return lambda environment: Platform(cdk.App(outdir=str(tmp_path), context=flags), environment=environment)


def test_a_regular_expression_arrives_as_it_was_written(
    platform_of: Callable[[Environment], Platform],
) -> None:
    pattern = r'^(lung|thorax)\s+"\d[.,]5" \\ ü$'
    platform = platform_of(variant(rule("a", series_description=pattern, body_part=("CHEST", "LUNG"))))
    template = assertions.Template.from_stack(platform.inference).to_json()
    (function,) = [
        resource["Properties"]
        for name, resource in template["Resources"].items()
        if name.startswith("Events") and resource["Type"] == "AWS::Lambda::Function"
    ]
    (route,) = routes_of(function, package=PACKAGE)
    assert route.rule.series_description is not None
    assert route.rule.series_description.pattern == pattern
    assert route.rule.body_part == {"CHEST", "LUNG"}


def test_more_rules_than_a_function_can_be_told_are_refused(
    platform_of: Callable[[Environment], Platform],
) -> None:
    many = [rule(f"rule-{number}", series_description="x" * 60) for number in range(12)]
    with pytest.raises(ValueError, match="join rules that lead to the same endpoint"):
        platform_of(variant(*many))


def test_without_rules_there_is_no_event_path(platform_of: Callable[[Environment], Platform]) -> None:
    inference = platform_of(variant()).inference
    assert inference.event_path is None
    assert inference.reconciliation is None
    # What people ask endpoints for is announced in any case.
    assert inference.announcements is not None


def test_only_the_announce_function_notes_failures(assembly: Assembly) -> None:
    """A note names the request that is sent when somebody replays it: an endpoint, and whose images."""
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        if name.startswith("inference/Announce"):
            continue
        written: dict[str, str] = {"Allow": "", "Deny": ""}
        for one in policy["Properties"]["PolicyDocument"]["Statement"]:
            if "s3:PutObject" in one["Action"]:
                written[one["Effect"]] += json.dumps(one["Resource"])
        assert NOTED not in written["Allow"], name
        if f"/{FAILURES}*" in written["Allow"]:
            assert f"/{NOTED}*" in written["Deny"], name
