"""Alarms look at their own dimensions and periods, and tell who asked; those on expressions are kept."""

from __future__ import annotations

import json
import time
from typing import Any

from cloudformation_steps import deploy, reasons

NAMESPACE = "Alarms/Test"


def errors(cloud: Any, endpoint: str, value: float, *, seconds_ago: float = 0) -> None:
    cloud.client("cloudwatch").put_metric_data(
        Namespace=NAMESPACE,
        MetricData=[
            {
                "MetricName": "Errors",
                "Dimensions": [{"Name": "Endpoint", "Value": endpoint}],
                "Value": value,
                "Timestamp": time.time() - seconds_ago,
            }
        ],
    )


def state(cloud: Any, name: str) -> str:
    [alarm] = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(alarm["StateValue"])


def alarm(cloud: Any, name: str, endpoint: str, **options: Any) -> None:
    cloud.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": name,
            "Namespace": NAMESPACE,
            "MetricName": "Errors",
            "Dimensions": [{"Name": "Endpoint", "Value": endpoint}],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": 2,
            "ComparisonOperator": "GreaterThanThreshold",
            **options,
        }
    )


def test_only_the_alarms_own_dimensions_count(cloud) -> None:
    sqs, sns = cloud.client("sqs"), cloud.client("sns")
    queue = sqs.create_queue(QueueName="alarmed")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="alarmed")["TopicArn"]
    sending = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [sending]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    alarm(cloud, "mine", "mine", AlarmActions=[topic])
    errors(cloud, "another", 100)
    assert state(cloud, "mine") == "INSUFFICIENT_DATA"
    errors(cloud, "mine", 1)
    assert state(cloud, "mine") == "OK"
    errors(cloud, "mine", 2)
    assert state(cloud, "mine") == "ALARM", "1 and 2 are more than 2 within the period"
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    told = json.loads(json.loads(message["Body"])["Message"])
    assert (told["AlarmName"], told["NewStateValue"]) == ("mine", "ALARM")


def test_periods_are_counted_one_by_one(cloud) -> None:
    alarm(cloud, "twice", "twice", EvaluationPeriods=3, DatapointsToAlarm=2, TreatMissingData="notBreaching")
    errors(cloud, "twice", 5)
    assert state(cloud, "twice") == "OK", "one of two that it takes"
    errors(cloud, "twice", 5, seconds_ago=100)
    assert state(cloud, "twice") == "ALARM"


def test_an_alarm_on_an_expression_is_kept(cloud) -> None:
    band = {"Id": "band", "Expression": "ANOMALY_DETECTION_BAND(figure, 4)", "ReturnData": True}
    metric = {"Namespace": NAMESPACE, "MetricName": "Slices"}
    figure = {
        "Id": "figure",
        "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Average"},
        "ReturnData": True,
    }
    properties = {
        "AlarmName": "banded",
        "ComparisonOperator": "LessThanLowerOrGreaterThanUpperThreshold",
        "EvaluationPeriods": 3,
        "Metrics": [figure, band],
        "ThresholdMetricId": "band",
    }
    template = {"Resources": {"Band": {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}}}
    assert deploy(cloud, "banded", template)["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "banded")
    [made] = cloud.client("cloudwatch").describe_alarms(AlarmNames=["banded"])["MetricAlarms"]
    assert [one["Id"] for one in made["Metrics"]] == ["figure", "band"]
    assert (made["ThresholdMetricId"], made["StateValue"]) == ("band", "INSUFFICIENT_DATA")
    properties["EvaluationPeriods"] = 4
    assert deploy(cloud, "banded", template, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    errors(cloud, "any", 1)  # evaluates every alarm there is
    assert state(cloud, "banded") == "INSUFFICIENT_DATA"
