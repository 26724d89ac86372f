"""Events of services reach rules, queues and functions, and survive a crash on the way."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

FUNCTION = """
import json, os, boto3

def handler(event, context):
    failures = []
    for record in event["Records"]:
        body = json.loads(record["body"])
        boto3.client("s3").put_object(
            Bucket=os.environ["BUCKET"], Key=body["detail"]["pipelineArn"].split("/")[-1], Body=record["body"]
        )
    return {"batchItemFailures": failures}
"""


def wire(cloud: Any) -> str:
    """A rule for SageMaker's events -> a queue -> a function that writes each event to a bucket; the
    queue's URL."""
    cloud.client("s3").create_bucket(Bucket="heard")
    queue: str = cloud.client("sqs").create_queue(QueueName="heard")["QueueUrl"]
    arn = f"arn:aws:sqs:{cloud.region}:{cloud.account_id}:heard"
    rule = f"arn:aws:events:{cloud.region}:{cloud.account_id}:rule/heard"
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
    }
    # As the CDK's enforce_ssl says it: a service's own delivery is over TLS and must pass.
    tls_only = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:*",
        "Resource": arn,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    cloud.client("sqs").set_queue_attributes(
        QueueUrl=queue, Attributes={"Policy": json.dumps({"Statement": [tls_only, allow]})}
    )
    events = cloud.client("events")
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Building Pipeline Execution Status Change"],
        "detail": {"currentPipelineExecutionStatus": ["Failed"]},
    }
    events.put_rule(Name="heard", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="heard", Targets=[{"Id": "queue", "Arn": arn}])
    iam = cloud.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="heard", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    allowed = [
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::heard/*"},
        {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"], "Resource": arn},
        {"Effect": "Allow", "Action": "sqs:GetQueueAttributes", "Resource": arn},
    ]
    iam.put_role_policy(
        RoleName="heard", PolicyName="work", PolicyDocument=json.dumps({"Statement": allowed})
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("index.py", FUNCTION)
    functions = cloud.client("lambda")
    functions.create_function(
        FunctionName="heard",
        Runtime="python3.11",
        Handler="index.handler",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": {"BUCKET": "heard"}},
    )
    functions.create_event_source_mapping(
        FunctionName="heard",
        EventSourceArn=arn,
        BatchSize=1,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    return queue


def run_pipeline(cloud: Any, name: str) -> None:
    """Something that SageMaker publishes an event about: the end of a pipeline of one failing step."""
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    role = cloud.client("iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]})
    )
    step = {"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": [step]}),
        ClientRequestToken=name.ljust(32, "-"),
        RoleArn=role["Role"]["Arn"],
    )
    sagemaker.start_pipeline_execution(PipelineName=name)


def heard(cloud: Any, name: str) -> dict[str, Any]:
    for _ in range(300):
        try:
            found: dict[str, Any] = json.load(cloud.client("s3").get_object(Bucket="heard", Key=name)["Body"])
            return found
        except ClientError:
            time.sleep(0.1)
    pytest.fail("the function heard nothing:\n" + cloud.log[-2000:])


def test_event_to_queue_to_function(own_cloud) -> None:
    queue = wire(own_cloud)
    run_pipeline(own_cloud, "first")
    event = heard(own_cloud, "first")
    assert event["source"] == "aws.sagemaker"
    assert event["account"] == own_cloud.account_id
    assert event["region"] == own_cloud.region
    assert event["resources"], "the ARN of what the event is about"

    time.sleep(2.5)  # a kill may cost what is younger than two seconds, here the wiring
    own_cloud.kill()
    own_cloud.start()
    run_pipeline(own_cloud, "second")
    heard(own_cloud, "second")

    own_cloud.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": ""})
    run_pipeline(own_cloud, "third")
    for _ in range(100):
        if "rule heard may not send" in own_cloud.log:
            return
        time.sleep(0.1)
    pytest.fail("a queue without a policy took the event")


def test_events_of_services_cannot_be_put_from_outside(cloud) -> None:
    entry = {"Source": "aws.medical-imaging", "DetailType": "x", "Detail": "{}"}
    answer = cloud.client("events").put_events(Entries=[entry])
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSourceException"


def schedule(cloud: Any, name: str, *, trusted: str, statements: list[dict[str, Any]]) -> str:
    """A queue without a policy, and a schedule that is due now and sends to it by its role; the queue's
    URL."""
    queue: str = cloud.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    trust = {"Effect": "Allow", "Principal": {"Service": trusted}, "Action": "sts:AssumeRole"}
    iam = cloud.client("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    if statements:
        policy = json.dumps({"Statement": statements})
        iam.put_role_policy(RoleName=name, PolicyName="work", PolicyDocument=policy)
    cloud.client("scheduler").create_schedule(
        Name=name,
        ScheduleExpression="at(2020-01-01T00:00:00)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": f"arn:aws:sqs:{cloud.region}:{cloud.account_id}:{name}",
            "RoleArn": role["Role"]["Arn"],
            "Input": json.dumps({"for": name}),
        },
    )
    return queue


def test_a_schedule_reaches_what_its_role_may_reach(cloud: Any) -> None:
    arn = f"arn:aws:sqs:{cloud.region}:{cloud.account_id}"
    allowed = [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": f"{arn}:due"}]
    schedule(cloud, "due-idle", trusted="scheduler.amazonaws.com", statements=[])
    other = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": f"{arn}:due-stranger"}
    schedule(cloud, "due-stranger", trusted="lambda.amazonaws.com", statements=[other])
    queue = schedule(cloud, "due", trusted="scheduler.amazonaws.com", statements=allowed)
    sqs = cloud.client("sqs")
    for _ in range(30):
        messages = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
        if messages:
            break
    assert [json.loads(message["Body"]) for message in messages] == [{"for": "due"}]
    for name in ("due-idle", "due-stranger"):
        assert f"schedule {name} may not reach" in cloud.log
