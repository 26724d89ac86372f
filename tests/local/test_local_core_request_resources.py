"""Requests to MiniStack's services are authorised against the resources that AWS names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from role_sessions import ACCOUNT, make_role, refused, session


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{resource}"


@pytest.fixture(scope="module")
def prepared(cloud) -> Any:
    cloud.client("s3").create_bucket(Bucket="request-resources")
    glue, athena = cloud.client("glue"), cloud.client("athena")
    glue.create_database(DatabaseInput={"Name": "allowed"})
    glue.create_table(
        DatabaseName="allowed", TableInput={"Name": "one", "StorageDescriptor": {"Columns": []}}
    )
    glue.create_table(
        DatabaseName="allowed", TableInput={"Name": "two", "StorageDescriptor": {"Columns": []}}
    )
    location = {"ResultConfiguration": {"OutputLocation": "s3://request-resources/"}}
    athena.create_work_group(Name="allowed", Configuration=location)
    athena.create_work_group(Name="other", Configuration=location)
    cloud.client("logs").create_log_group(logGroupName="/allowed/group")
    cloud.client("ecr").create_repository(repositoryName="allowed")
    return cloud


def test_athena_queries_belong_to_their_workgroup(prepared) -> None:
    role = make_role(
        prepared, "analyst", {"Action": "athena:*", "Resource": arn("athena", "workgroup/allowed")}
    )
    athena = session(prepared, role, "athena")
    query = athena.start_query_execution(QueryString="SELECT 1", WorkGroup="allowed")["QueryExecutionId"]
    athena.get_query_execution(QueryExecutionId=query)
    refused(athena.start_query_execution, QueryString="SELECT 1", WorkGroup="other")
    refused(athena.start_query_execution, QueryString="SELECT 1")
    foreign = prepared.client("athena").start_query_execution(QueryString="SELECT 1", WorkGroup="other")
    refused(athena.get_query_execution, QueryExecutionId=foreign["QueryExecutionId"])


def test_a_batch_of_messages_is_sent_with_the_permission_for_one(prepared) -> None:
    url = prepared.client("sqs").create_queue(QueueName="sent-to")["QueueUrl"]
    role = make_role(prepared, "sender", {"Action": "sqs:SendMessage", "Resource": arn("sqs", "sent-to")})
    sqs = session(prepared, role, "sqs")
    entries = [{"Id": "one", "MessageBody": "1"}]
    assert sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]
    refused(sqs.delete_message_batch, QueueUrl=url, Entries=[{"Id": "one", "ReceiptHandle": "x"}])


def test_glue_needs_catalog_database_and_table(prepared) -> None:
    catalog, database, table = (
        arn("glue", resource) for resource in ("catalog", "database/allowed", "table/allowed/one")
    )
    role = make_role(
        prepared, "reader-of-one", {"Action": "glue:Get*", "Resource": [catalog, database, table]}
    )
    glue = session(prepared, role, "glue")
    glue.get_database(Name="allowed")
    glue.get_table(DatabaseName="allowed", Name="one")
    refused(glue.get_table, DatabaseName="allowed", Name="two")
    without = make_role(prepared, "without-catalog", {"Action": "glue:Get*", "Resource": [database, table]})
    refused(session(prepared, without, "glue").get_table, DatabaseName="allowed", Name="one")


def test_log_groups_are_named_as_in_grants(prepared) -> None:
    role = make_role(
        prepared, "logger", {"Action": "logs:*", "Resource": arn("logs", "log-group:/allowed/*:*")}
    )
    logs = session(prepared, role, "logs")
    logs.create_log_stream(logGroupName="/allowed/group", logStreamName="s")
    logs.put_log_events(
        logGroupName="/allowed/group",
        logStreamName="s",
        logEvents=[{"timestamp": 1_700_000_000_000, "message": "x"}],
    )
    logs.describe_log_streams(logGroupName="/allowed/group")
    refused(logs.create_log_group, logGroupName="/other")


def test_ecr_repositories_by_name(prepared) -> None:
    role = make_role(prepared, "puller", {"Action": "ecr:*", "Resource": arn("ecr", "repository/allowed")})
    ecr = session(prepared, role, "ecr")
    ecr.describe_repositories(repositoryNames=["allowed"])
    refused(ecr.describe_repositories)


def test_tls_only_bucket_policy_lets_a_loopback_client_in(prepared) -> None:
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::request-resources", "arn:aws:s3:::request-resources/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    prepared.client("s3").put_bucket_policy(
        Bucket="request-resources", Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    role = make_role(prepared, "writer", {"Action": "s3:*", "Resource": "*"})
    session(prepared, role, "s3").put_object(Bucket="request-resources", Key="k", Body=b"x")


def test_events_are_put_from_the_sources_that_a_role_may_name(prepared) -> None:
    role = make_role(
        prepared,
        "announcer",
        {
            "Action": "events:PutEvents",
            "Resource": arn("events", "event-bus/default"),
            "Condition": {"StringEquals": {"events:source": "mine"}},
        },
    )
    events = session(prepared, role, "events")

    def entries(*sources: str) -> list[dict[str, str]]:
        return [{"Source": source, "DetailType": "Done", "Detail": "{}"} for source in sources]

    assert events.put_events(Entries=entries("mine", "mine"))["FailedEntryCount"] == 0
    refused(events.put_events, Entries=entries("another"))
    refused(events.put_events, Entries=entries("mine", "another"))
