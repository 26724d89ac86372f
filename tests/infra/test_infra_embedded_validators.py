"""The validators of embedded documents see what is wrong: each is given documents with one mistake."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from embedded_documents import decoded, documents
from iam_documents import endpoint_policy, identity_policy, resource_policy, tls_only, trust_policy
from infra_assembly import Assembly
from pipeline_documents import pipeline
from service_events import pattern
from small_documents import (
    action,
    build,
    crawler,
    dashboard,
    filter_pattern,
    query,
    redrive,
    routes,
    script,
    texts,
)
from template_values import ACCOUNT, Values

TABLE = f"arn:aws:glue:us-east-1:{ACCOUNT}:table/monai/series"
ARCHIVE = f"arn:aws:medical-imaging:us-east-1:{ACCOUNT}:datastore/1"
RULE = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/created"
OTHER = "arn:aws:iam::222233334444"


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in statements]}


def statement(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return policy({"Action": action, "Resource": resource, **more})


def lent(principal: Any, action: str = "s3:GetObject", **condition: Any) -> dict[str, Any]:
    return statement(action, "*", Principal=principal, Condition=condition)


TLS = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}

CREATED = {
    "source": ["aws.medical-imaging"],
    "detail-type": ["Image Set Created"],
    "detail": {"datastoreId": ["1"], "isPrimary": [True]},
}

DASHBOARD: dict[str, Any] = {
    "widgets": [
        {
            "type": "metric",
            "x": 0,
            "y": 0,
            "width": 12,
            "height": 6,
            "properties": {
                "region": "us-east-1",
                "stat": "Sum",
                "metrics": [["AWS/SQS", "NumberOfMessagesSent", "QueueName", "index"]],
            },
        },
        {"type": "text", "x": 12, "y": 0, "width": 12, "height": 6, "properties": {"markdown": "# A"}},
    ]
}


def with_metric(*metric: Any) -> dict[str, Any]:
    body = deepcopy(DASHBOARD)
    body["widgets"][0]["properties"]["metrics"] = [list(metric)]
    return body


def moved(**place: int) -> dict[str, Any]:
    body = deepcopy(DASHBOARD)
    body["widgets"][1] |= place
    return body


RIGHT: tuple[tuple[Callable[[Any], Iterator[str]], Any], ...] = (
    (identity_policy, statement("medical-imaging:GetImageSet", f"{ARCHIVE}/imageset/*")),
    (identity_policy, statement(["s3:GetObject", "s3:ListBucket"], ["arn:aws:s3:::a", "arn:aws:s3:::a/b/*"])),
    (identity_policy, statement("ecr:GetAuthorizationToken", "*")),
    (tls_only("s3"), policy(TLS)),
    (
        resource_policy("sqs"),
        lent({"Service": "events.amazonaws.com"}, "sqs:SendMessage", ArnEquals={"aws:SourceArn": RULE}),
    ),
    (
        resource_policy("s3"),
        lent({"AWS": f"{OTHER}:root"}, ArnEquals={"aws:PrincipalArn": f"{OTHER}:role/a"}),
    ),
    (trust_policy, policy({"Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}})),
    (pattern, CREATED),
    (dashboard, DASHBOARD),
    (dashboard, with_metric({"expression": "m1 / m2", "label": "share"})),
    (query, "SELECT patient_id FROM series WHERE element_at(tags, 'Modality') = 'CT'"),
    (script, "#!/bin/bash\nset -eu\nif true; then echo yes; fi\n"),
    (build, {"version": "0.2", "phases": {"build": {"commands": ["make test"]}}}),
    (filter_pattern, '{ ($.a.b = "Root") && ($.c NOT EXISTS) && (($.d = "x*") || ($.e > 1)) }'),
    (crawler, {"Version": 1.0, "Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"}}),
    (texts, {"a": "1", "b": '{"c": 1}'}),
    (redrive, {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:111122223333:dead"}),
    (action, {"EnvironmentVariables": '[{"name": "A", "type": "PLAINTEXT", "value": "b"}]'}),
)

WRONG: tuple[tuple[Callable[[Any], Iterator[str]], Any, str], ...] = (
    (identity_policy, statement("medical-imaging:ReadImageSet", ARCHIVE), "no such action"),
    (identity_policy, statement("medical-imaging:GetImageSet", TABLE), "is what it is about"),
    (identity_policy, statement("s3:ListBucket", "arn:aws:s3:::a/b/*"), "is what it is about"),
    (identity_policy, statement("s3:GetObject", "arn:aws:s3:::a"), "is what it is about"),
    (identity_policy, statement("ecr:GetAuthorizationToken", TABLE), "knows no resources"),
    (identity_policy, statement("glue:GetTable", [TABLE, ARCHIVE]), "no action of the statement is about it"),
    (identity_policy, statement("glue:*", TABLE), "name the actions"),
    (identity_policy, statement("glue:GetTable", TABLE, Principal="*"), "a principal in a policy of a role"),
    (
        identity_policy,
        policy({"Action": "glue:GetTable", "NotResource": TABLE, "Resource": "*"}),
        "NotResource",
    ),
    (
        identity_policy,
        statement("glue:GetTable", TABLE, Condition={"StringMatches": {"aws:SourceAccount": "1"}}),
        "no such operator",
    ),
    (
        identity_policy,
        statement("glue:GetTable", TABLE, Condition={"StringEquals": {"aws:SourceAcount": "1"}}),
        "no such condition key",
    ),
    (
        identity_policy,
        statement("glue:GetTable", TABLE, Condition={"ArnEquals": {"aws:SourceArn": "role/a"}}),
        "is no ARN",
    ),
    (tls_only("s3"), policy(TLS | {"Effect": "Allow"}), "does not refuse plain HTTP"),
    (tls_only("s3"), policy(TLS | {"Condition": {}}), "does not refuse plain HTTP"),
    (resource_policy("s3"), lent("*"), "everybody"),
    (resource_policy("s3"), lent({"AWS": "*"}), "everybody"),
    (resource_policy("s3"), lent({"AWS": f"{OTHER}:root"}), "all of another account"),
    (resource_policy("s3"), lent({"Service": "logging.s3.amazonaws.com"}), "on behalf of any account"),
    (
        resource_policy("s3"),
        lent({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "sqs:SendMessage"),
        "not an action on",
    ),
    (resource_policy("s3"), statement("s3:GetObject", "*"), "no principal"),
    (
        trust_policy,
        policy({"Action": "sts:AssumeRole", "Principal": {"Service": "sagemaker.amazonaws.com"}}),
        "on behalf of any account",
    ),
    (
        trust_policy,
        policy(
            {"Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": "arn:aws:iam::1:oidc"}}
        ),
        "any identity of the provider",
    ),
    (
        trust_policy,
        policy({"Action": "iam:PassRole", "Principal": {"AWS": ACCOUNT}}),
        "not an action on a role",
    ),
    (endpoint_policy, statement("*", "*", Principal="*"), "everything may pass"),
    (endpoint_policy, statement("s3:GetObject", "*", Principal="*"), "on every resource of everybody"),
    (pattern, CREATED | {"source": ["aws.healthimaging"]}, "not in tests/infra/service_events.py"),
    (pattern, CREATED | {"detail-type": ["Image Set Made"]}, "sends no 'Image Set Made'"),
    (pattern, CREATED | {"detail": {"imageSetID": ["1"]}}, "has no ['imageSetID']"),
    (pattern, CREATED | {"detail": {"imageSetState": ["CREATED"]}}, "has such values"),
    (pattern, CREATED | {"detail": {"isPrimary": ["true"]}}, "has such values"),
    (pattern, CREATED | {"detail": {"datastoreId": "1"}}, "lists of what may be there"),
    (pattern, CREATED | {"detail": {"datastoreId": [{"begins": "1"}]}}, "compares with nothing"),
    (pattern, {"source": ["aws.sagemaker"]}, "what nobody has thought of"),
    (pattern, CREATED | {"details": {}}, "events have no such"),
    (dashboard, {"widgets": []}, "non-empty"),
    (dashboard, moved(width=13), "of 24"),
    (dashboard, moved(x=6), "lie on each other"),
    (dashboard, with_metric("AWS/SQS", "NumberOfMessagesSent", "QueueName"), "pairs of dimension and value"),
    (dashboard, with_metric({"stat": "Sum"}), "neither a metric nor an expression"),
    (query, "SELECT FROM WHERE", "xpect"),
    (query, "DROP TABLE series", "not one query"),
    (script, "echo yes", "no interpreter"),
    (script, "#!/bin/bash\nif true; then\n", "syntax error"),
    (build, {"version": "0.2", "phases": {"test": {"commands": ["make test"]}}}, "phase test"),
    (build, {"version": "0.2", "phases": {"build": {"commands": ["if make"]}}}, "syntax error"),
    (build, {"version": "0.2"}, "does nothing"),
    (filter_pattern, '{ $.a = "Root" && }', "not comparisons"),
    (filter_pattern, '$.a = "Root"', "not of the form"),
    (crawler, {"Version": 1.0, "Groups": {}}, "Groups"),
    (texts, {"a": 1}, "no text"),
    (redrive, {"deadLetterTargetArn": "arn:aws:sns:us-east-1:111122223333:topic"}, "no queue"),
    (redrive, {"maxReceiveCount": 5}, "only deadLetterTargetArn"),
    (texts, {"a": "{b}"}, "a:"),
    (action, {"EnvironmentVariables": '[{"name": "API_SECRET", "value": "b"}]'}, "is readable"),
    (routes, [{"rule": "chest"}], "cannot be read"),
)


@pytest.mark.parametrize(("validate", "document"), RIGHT)
def test_what_is_right_passes(validate: Callable[[Any], Iterator[str]], document: Any) -> None:
    assert not list(validate(document))


@pytest.mark.parametrize(("validate", "document", "problem"), WRONG)
def test_a_mistake_is_named(validate: Callable[[Any], Iterator[str]], document: Any, problem: str) -> None:
    problems = list(validate(document))
    assert problems
    assert any(problem in found for found in problems), problems


@pytest.fixture
def definition(dev: Assembly) -> dict[str, Any]:
    templates = {stack: dev.template(stack) for stack in dev.stacks}
    [body] = [
        pipeline["Properties"]["PipelineDefinition"]["PipelineDefinitionBody"]
        for _, pipeline in dev.resources("AWS::SageMaker::Pipeline")
        if pipeline["Properties"]["PipelineName"].endswith("lung-segmentation")
    ]
    found: dict[str, Any] = json.loads(Values(templates).resolve("training", body))
    return found


def _train(definition: dict[str, Any]) -> dict[str, Any]:
    (found,) = [step for step in definition["Steps"] if step["Type"] == "Training"]
    arguments: dict[str, Any] = found["Arguments"]
    return arguments


def _misspell(definition: dict[str, Any]) -> None:
    _train(definition)["Hyperparameters"] = {}


def _number(definition: dict[str, Any]) -> None:
    _train(definition)["HyperParameters"]["epochs"] = 3


def _machine(definition: dict[str, Any]) -> None:
    _train(definition)["ResourceConfig"]["InstanceType"] = "ml.g5.3xlarge"


def _choice(definition: dict[str, Any]) -> None:
    for parameter in definition["Parameters"]:
        if "EnumValues" in parameter:
            parameter["EnumValues"].append("ml.g5.3xlarge")


def _reference(definition: dict[str, Any]) -> None:
    _train(definition)["HyperParameters"]["epochs"] = {"Get": "Parameters.Epochs"}


def _output(definition: dict[str, Any]) -> None:
    del _train(definition)["OutputDataConfig"]["KmsKeyId"]


def _network(definition: dict[str, Any]) -> None:
    _train(definition).pop("VpcConfig", None)


def _traffic(definition: dict[str, Any]) -> None:
    _train(definition)["EnableInterContainerTrafficEncryption"] = False


def _dependency(definition: dict[str, Any]) -> None:
    definition["Steps"][0]["DependsOn"] = ["Prepare"]


def _twice(definition: dict[str, Any]) -> None:
    definition["Steps"].append(deepcopy(definition["Steps"][0]))


def _cached(definition: dict[str, Any]) -> None:
    definition["Steps"][0]["CacheConfig"] = {"Enabled": True, "ExpireAfter": "30 days"}


def _cached_for_good(definition: dict[str, Any]) -> None:
    definition["Steps"][2]["CacheConfig"] = {"Enabled": True, "ExpireAfter": "P1D"}


def _default(definition: dict[str, Any]) -> None:
    definition["Parameters"].append({"Name": "Folds", "Type": "Integer", "DefaultValue": "5"})


@pytest.mark.parametrize(
    ("mistake", "problem"),
    [
        (_misspell, "Hyperparameters"),
        (_number, "valid types"),
        (_machine, "ml.g5.3xlarge"),
        (_choice, "ml.g5.3xlarge"),
        (_reference, "leads nowhere"),
        (_output, "customer managed key"),
        (_network, "outside the VPC"),
        (_traffic, "in the clear"),
        (_dependency, "is no step"),
        (_twice, "several steps"),
        (_cached, "no duration"),
        (_cached_for_good, "nothing to keep"),
        (_default, "is no Integer"),
    ],
)
def test_a_mistake_in_a_pipeline_is_named(
    definition: dict[str, Any], mistake: Callable[[dict[str, Any]], None], problem: str
) -> None:
    assert not list(pipeline(definition))
    mistake(definition)
    problems = list(pipeline(definition))
    assert any(problem in found for found in problems), problems


def test_documents_are_found_wherever_they_are() -> None:
    text = "#!/bin/bash\necho a script that is long enough to be seen\n"
    template = {
        "Resources": {
            "Machine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {"RoleArn": "a", "DefinitionString": '{"StartAt": "A"}'},
            },
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Code": {"ZipFile": "import json\nprint(1)\n"},
                    "Environment": {
                        "Variables": {"RULES": {"Fn::Join": ["", ['{"a": "', {"Ref": "Key"}, '"}']]}}
                    },
                },
            },
            "Configuration": {
                "Type": "AWS::SageMaker::StudioLifecycleConfig",
                "Properties": {"StudioLifecycleConfigContent": base64.b64encode(text.encode()).decode()},
            },
            "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Statement": []}}},
        }
    }
    found = {d.kind: d.content for d in documents("a", template, Values({"a": template}))}
    assert found == {
        "AWS::StepFunctions::StateMachine DefinitionString": {"StartAt": "A"},
        "AWS::Lambda::Function Code.ZipFile": "import json\nprint(1)\n",
        "AWS::Lambda::Function Environment.Variables.RULES": {"a": "key"},
        "AWS::SageMaker::StudioLifecycleConfig StudioLifecycleConfigContent": text,
        "AWS::KMS::Key KeyPolicy": {"Statement": []},
    }


@pytest.mark.parametrize("value", ["", "monai-dev", "arn:aws:s3:::a/*", "a" * 64, "-----", "$.a"])
def test_a_value_is_no_document(value: str) -> None:
    assert decoded(value) is None
