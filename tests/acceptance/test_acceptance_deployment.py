"""All stacks of the environment `local`: deployed by the CDK command line, unchanged the second time, changed
in place after an edit, and destroyed without a trace but the data store."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import REPOSITORY, CloudUnderTest

from workbench.environment import load_environment as load_workbench_environment
from workbench.provision import program_environment

CDK = REPOSITORY / "node_modules" / ".bin" / "cdk"
BOOTSTRAP = "CDKToolkit"
EDITED_DAYS, EDITED_GIB = 60, 20


def synthesized(folder: Path, **edits: dict[str, int]) -> Path:
    """The environment `local` as its file says, or after an edit of that file: section -> key -> value."""
    # Before the CDK is imported: the Node that the environment brings, not one that happens to be installed.
    os.environ.setdefault("JSII_NODE", program_environment(load_workbench_environment("local"))["JSII_NODE"])
    import aws_cdk as cdk

    from infra.environment import load_environment
    from infra.platform import Platform

    environment = load_environment("local")
    changes = {
        section: getattr(environment, section).model_copy(update=values) for section, values in edits.items()
    }
    flags = json.loads((REPOSITORY / "cdk.json").read_text())["context"]
    # The rules that a synthesis has to pass are other tests; without them it takes a third of the time.
    app = cdk.App(context=flags | {"@aws-cdk/core:validateAgainstDefaultRules": False}, outdir=str(folder))
    Platform(app, environment=environment.model_copy(update=changes))
    app.synth()
    return folder


class Deployments:
    """The CDK command line, on a cloud of the test's own."""

    def __init__(self, cloud: CloudUnderTest) -> None:
        self._variables = program_environment(load_workbench_environment("local")) | cloud.environment
        self._variables["AWS_ENDPOINT_URL_S3"] = cloud.endpoint_url

    def run(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [CDK, *arguments, "--no-notices", "--no-lookups", "--ci", "--no-color"],
            cwd=REPOSITORY,
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, told[-6000:]
        return told

    def deploy(self, assembly: Path) -> dict[str, bool]:
        """Deploy everything; by stack, whether something changed."""
        told = self.run(
            "deploy", "**", "--app", assembly, "--require-approval", "never", "--concurrency", "4"
        )
        ended = re.findall(r"^ *✅ .*\((monai-local-\w+)\)( \(no changes\))?$", told, re.MULTILINE)
        return {stack: not unchanged for stack, unchanged in ended}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CDK.exists(), reason="the CDK command line is not installed (npm ci)")
def test_deploy_again_edit_and_destroy(own_cloud: CloudUnderTest, tmp_path: Path) -> None:
    cdk = Deployments(own_cloud)
    # The command line waits most of the time; what it will need next is synthesized meanwhile.
    with ThreadPoolExecutor(1) as meanwhile:
        bootstrapping = meanwhile.submit(cdk.run, "bootstrap", "aws://000000000000/us-east-1", "--app", "")
        shipped = synthesized(tmp_path / "shipped")
        bootstrapping.result()
        bootstrapped, stacks = existing(own_cloud), stack_names(shipped)
        deploying = meanwhile.submit(cdk.deploy, shipped)
        edited = synthesized(
            tmp_path / "edited",
            logs={"retention_days": EDITED_DAYS},
            catalog={"scan_limit_gib": EDITED_GIB},
        )
        assert deploying.result() == dict.fromkeys(stacks, True)
    first = physical_ids(own_cloud, stacks)
    assert EDITED_DAYS not in retention_days(own_cloud)
    vpc = only(own_cloud, stacks, "AWS::EC2::VPC")
    assert default_rules(own_cloud, vpc) == [], "a custom resource closed the default security group"

    assert cdk.deploy(shipped) == dict.fromkeys(stacks, False)

    changed = {stack for stack, has_changed in cdk.deploy(edited).items() if has_changed}
    assert changed, "the edit reached a stack"
    assert changed <= {stack for stack in stacks if template(shipped, stack) != template(edited, stack)}
    assert physical_ids(own_cloud, stacks) == first, "nothing was replaced"
    assert EDITED_DAYS in retention_days(own_cloud)
    configuration = own_cloud.client("athena").get_work_group(WorkGroup="monai-local")["WorkGroup"]
    assert configuration["Configuration"]["BytesScannedCutoffPerQuery"] == EDITED_GIB * 2**30

    datastore = only(own_cloud, stacks, "AWS::HealthImaging::Datastore")
    cdk.run("destroy", "**", "--app", edited, "--force", "--concurrency", "4")
    left = own_cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in left] == [BOOTSTRAP]
    assert existing(own_cloud) - bootstrapped == {("datastore", datastore)}


def stack_names(assembly: Path) -> list[str]:
    return [artifact["properties"]["stackName"] for artifact in stack_artifacts(assembly)]


def template(assembly: Path, stack: str) -> Any:
    [file] = [
        artifact["properties"]["templateFile"]
        for artifact in stack_artifacts(assembly)
        if artifact["properties"]["stackName"] == stack
    ]
    return json.loads((assembly / "assembly-local" / file).read_text())


def stack_artifacts(assembly: Path) -> list[dict[str, Any]]:
    manifest = json.loads((assembly / "assembly-local" / "manifest.json").read_text())
    return [one for one in manifest["artifacts"].values() if one["type"] == "aws:cloudformation:stack"]


def resources(cloud: CloudUnderTest, stacks: list[str]) -> list[dict[str, Any]]:
    client = cloud.client("cloudformation")
    return [
        {**one, "StackName": stack}
        for stack in stacks
        for page in client.get_paginator("list_stack_resources").paginate(StackName=stack)
        for one in page["StackResourceSummaries"]
    ]


def physical_ids(cloud: CloudUnderTest, stacks: list[str]) -> dict[tuple[str, str], str]:
    return {
        (one["StackName"], one["LogicalResourceId"]): one["PhysicalResourceId"]
        for one in resources(cloud, stacks)
    }


def only(cloud: CloudUnderTest, stacks: list[str], kind: str) -> str:
    """The physical id of the one resource of a type."""
    [found] = [one["PhysicalResourceId"] for one in resources(cloud, stacks) if one["ResourceType"] == kind]
    return str(found)


def default_rules(cloud: CloudUnderTest, vpc: str) -> list[Any]:
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    [group] = cloud.client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    return [*group["IpPermissions"], *group["IpPermissionsEgress"]]


def retention_days(cloud: CloudUnderTest) -> set[int | None]:
    groups = cloud.client("logs").describe_log_groups()["logGroups"]
    return {group.get("retentionInDays") for group in groups}


def existing(cloud: CloudUnderTest) -> set[tuple[str, str]]:
    """What the account holds, asked of the services and not of CloudFormation."""

    def names(service: str, operation: str, key: str, name: str, **options: Any) -> list[str]:
        listed = getattr(cloud.client(service), operation)(**options)[key]
        return [found[name] for found in listed]

    asked = {
        "role": names("iam", "list_roles", "Roles", "RoleName"),
        "policy": names("iam", "list_policies", "Policies", "Arn", Scope="Local"),
        "bucket": names("s3", "list_buckets", "Buckets", "Name"),
        "queue": cloud.client("sqs").list_queues().get("QueueUrls", []),
        "topic": names("sns", "list_topics", "Topics", "TopicArn"),
        "function": names("lambda", "list_functions", "Functions", "FunctionArn"),
        "mapping": names("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
        "rule": names("events", "list_rules", "Rules", "Arn"),
        "alarm": names("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmArn"),
        "dashboard": names("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        "log group": names("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "database": names("glue", "get_databases", "DatabaseList", "Name"),
        "crawler": names("glue", "get_crawlers", "Crawlers", "Name"),
        "workgroup": names("athena", "list_work_groups", "WorkGroups", "Name"),
        "vpc": names("ec2", "describe_vpcs", "Vpcs", "VpcId"),
        "subnet": names("ec2", "describe_subnets", "Subnets", "SubnetId"),
        "vpc endpoint": names("ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
        "security group": names("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
        "flow log": names("ec2", "describe_flow_logs", "FlowLogs", "FlowLogId"),
        "pipeline": names("sagemaker", "list_pipelines", "PipelineSummaries", "PipelineName"),
        "model": names("sagemaker", "list_models", "Models", "ModelName"),
        "endpoint": names("sagemaker", "list_endpoints", "Endpoints", "EndpointName"),
        "budget": cloud.client("budgets").describe_budgets(AccountId=cloud.account_id).get("Budgets", []),
        "datastore": [
            one["datastoreId"]
            for one in cloud.client("medical-imaging").list_datastores()["datastoreSummaries"]
            if one["datastoreStatus"] == "ACTIVE"
        ],
        "key": [
            key
            for key in names("kms", "list_keys", "Keys", "KeyId")
            if cloud.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
        ],
    }
    return {(kind, str(name)) for kind, found in asked.items() for name in found}
