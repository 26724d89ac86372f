"""Every document inside a template has a validator, and passes it: in every environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from embedded_documents import Document, documents
from iam_documents import (
    endpoint_policy,
    generated_policy,
    identity_policy,
    resource_policy,
    tls_only,
    trust_policy,
)
from infra_assembly import ENVIRONMENTS, Assembly
from pipeline_documents import pipeline
from service_events import pattern
from small_documents import (
    action,
    build,
    callers,
    crawler,
    dashboard,
    filter_pattern,
    iceberg_type,
    query,
    redrive,
    routes,
    script,
    texts,
    view,
)
from template_values import ACCOUNT, Values

Validator = Callable[[Any], Iterator[str]]

VALIDATORS: dict[str, Validator] = {
    "AWS::Athena::NamedQuery QueryString": query,
    "AWS::CloudWatch::Dashboard DashboardBody": dashboard,
    "AWS::CodeBuild::Project Source.BuildSpec": build,
    "AWS::CodePipeline::Pipeline Stages.*.Actions.*.Configuration": action,
    "AWS::EC2::VPCEndpoint PolicyDocument": endpoint_policy,
    "AWS::ECS::TaskDefinition ContainerDefinitions.*.Environment.*.Value": callers,
    "AWS::ECS::TaskDefinition ContainerDefinitions.*.LogConfiguration.Options": texts,
    "AWS::Events::EventBus Policy": resource_policy("events"),
    "AWS::Events::Rule EventPattern": pattern,
    "AWS::Glue::Crawler Configuration": crawler,
    "AWS::Glue::Crawler Tags": texts,
    "AWS::Glue::Table OpenTableFormatInput.IcebergInput.IcebergTableInput.Properties": texts,
    "AWS::Glue::Table OpenTableFormatInput.IcebergInput.IcebergTableInput.Schema.Fields.*.Type": iceberg_type,
    "AWS::Glue::Table TableInput.Parameters": texts,
    "AWS::Glue::Table TableInput.StorageDescriptor.SerdeInfo.Parameters": texts,
    "AWS::Glue::Table TableInput.ViewOriginalText": view,
    "AWS::IAM::ManagedPolicy PolicyDocument": identity_policy,
    # Only the CDK's pipeline makes inline policies.
    "AWS::IAM::Policy PolicyDocument": generated_policy,
    "AWS::IAM::Role AssumeRolePolicyDocument": trust_policy,
    "AWS::KMS::Key KeyPolicy": resource_policy("kms"),
    "AWS::Lambda::Function Environment.Variables.DISPATCH_ROUTES": routes,
    "AWS::Lambda::Function Environment.Variables.GROUPS": texts,
    "AWS::Logs::MetricFilter FilterPattern": filter_pattern,
    "AWS::S3::BucketPolicy PolicyDocument": tls_only("s3"),
    "AWS::SNS::Subscription RedrivePolicy": redrive,
    "AWS::SNS::TopicPolicy PolicyDocument": tls_only("sns"),
    "AWS::SQS::QueuePolicy PolicyDocument": tls_only("sqs"),
    "AWS::SageMaker::Model PrimaryContainer.Environment": texts,
    "AWS::SageMaker::ModelPackageGroup ModelPackageGroupPolicy": resource_policy("sagemaker"),
    "AWS::SageMaker::Pipeline PipelineDefinition.PipelineDefinitionBody": pipeline,
    "AWS::SageMaker::StudioLifecycleConfig StudioLifecycleConfigContent": script,
}
"""By resource type and property. What is not here fails, so that a new kind of document gets a validator."""


APPS = (*ENVIRONMENTS, "toolchain", "github")
"""Everything that `cdk synth -c env=...` makes."""


@pytest.fixture(scope="module")
def documents_of(
    synthesize: Callable[[str], Assembly], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Document]]:
    @cache
    def found(app: str) -> list[Document]:
        if app in ENVIRONMENTS:
            stacks = synthesize(app).stacks
        else:
            from infra.application import build_app

            folder = tmp_path_factory.mktemp(app)
            build_app(context={"env": app}, outdir=folder).synth()
            stacks = {}
            # Not those of the pipeline's stages: they are the environments once more.
            for artifact in json.loads((folder / "manifest.json").read_text())["artifacts"].values():
                if artifact["type"] == "aws:cloudformation:stack":
                    template = json.loads((folder / artifact["properties"]["templateFile"]).read_text())
                    stacks[artifact["properties"]["stackName"]] = artifact | {"template": template}
        assert stacks
        templates = {}
        for stack, artifact in stacks.items():
            account = artifact["environment"].split("/")[2]
            templates[stack] = json.loads(json.dumps(artifact["template"]).replace(account, ACCOUNT))
        values = Values(templates)
        return [document for stack in templates for document in documents(stack, templates[stack], values)]

    return found


@pytest.mark.parametrize("app", APPS)
def test_every_embedded_document_has_a_validator(
    app: str, documents_of: Callable[[str], list[Document]]
) -> None:
    found = documents_of(app)
    assert not [document.kind for document in found if document.kind not in VALIDATORS]
    kinds = {document.kind for document in found}
    assert "AWS::IAM::Role AssumeRolePolicyDocument" in kinds
    if app in ENVIRONMENTS:
        assert {
            "AWS::CloudWatch::Dashboard DashboardBody",
            "AWS::EC2::VPCEndpoint PolicyDocument",
            "AWS::Events::Rule EventPattern",
            "AWS::SageMaker::Pipeline PipelineDefinition.PipelineDefinitionBody",
        } <= kinds


@pytest.mark.parametrize("app", APPS)
def test_every_embedded_document_is_valid(app: str, documents_of: Callable[[str], list[Document]]) -> None:
    problems = [
        f"{document.where}: {problem}"
        for document in documents_of(app)
        if document.kind in VALIDATORS
        for problem in VALIDATORS[document.kind](document.content)
    ]
    assert not problems, "\n".join(problems)


def test_there_is_no_state_machine(assembly: Assembly) -> None:
    # Pipelines of SageMaker do what one would do here. With the first one comes a validator of its language.
    assert not list(assembly.resources("AWS::StepFunctions::StateMachine"))


def test_every_queue_and_topic_and_bucket_has_a_policy(assembly: Assembly) -> None:
    for type, policy, attached in (
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
    ):
        resources = {name for name, _ in assembly.resources(type)}
        with_policy = set()
        for name, resource in assembly.resources(policy):
            stack = name.split("/")[0]
            references = resource["Properties"][attached]
            for reference in references if isinstance(references, list) else [references]:
                with_policy.add(f"{stack}/{reference['Ref']}")
        assert resources == with_policy
