"""Alarms, dashboards and the budget: everything that is looked at exists, and somebody hears of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
import pytest
from infra_assembly import Assembly
from pydantic import TypeAdapter
from template_values import Values

from infra.environment import Endpoint, Inference, Training, load_environment
from infra.observability.audit_events import AUDIT_EVENTS, AUDIT_NAMESPACE
from infra.observability.catalog_upkeep import CATALOG_METRICS
from infra.observability.dashboard import Graph, Row, dashboard_body
from infra.observability.endpoints import watched
from infra.observability.input_drift import NAMESPACE, RUNTIME_METRICS, runtime_rows
from infra.observability.metrics import AWS_METRICS, Reading, aws_metric
from infra.observability.pictures import training
from infra.observability.receiver import RECEIVER_METRICS
from infra.observability.reconciliation import EVENT_METRICS
from runtime import metrics as runtime_metrics

ALARM = "AWS::CloudWatch::Alarm"
DASHBOARD = "AWS::CloudWatch::Dashboard"
SEARCH = re.compile(r"SEARCH\('\{\"([^\"]+)\"((?:,\w+)*)\} MetricName=\"(\w+)\"', '(\w+)'\)")

QUERY = re.compile(
    r'SELECT SUM\((?P<metric>\w+)\) FROM SCHEMA\("(?P<namespace>[^"]+)", (?P<by>\w+(, \w+)*)\) '
    r"WHERE (?P<where>\w+ !?= '[\w.-]+'( AND \w+ !?= '[\w.-]+')*)"
)
"""Metrics Insights, as far as we use it."""

PREDEFINED = {
    "SageMakerVariantInvocationsPerInstance": ("AWS/SageMaker", "InvocationsPerInstance"),
    "SageMakerInferenceComponentInvocationsPerCopy": ("AWS/SageMaker", "InvocationsPerCopy"),
}
"""Metrics that Application Auto Scaling knows by a name of its own
(https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PredefinedMetricSpecification.html).
"""


def values_of(assembly: Assembly) -> Values:
    return Values({name: stack["template"] for name, stack in assembly.stacks.items()})


def emitted(namespace: str, name: str, dimensions: set[str], statistic: str) -> bool:
    """Whether somebody emits the metric with exactly these dimensions, and it has the statistic."""
    known = [
        *AWS_METRICS,
        *RUNTIME_METRICS,
        *EVENT_METRICS,
        *RECEIVER_METRICS,
        *CATALOG_METRICS,
        *(event.metric for event in AUDIT_EVENTS),
    ]
    return any(
        (metric.namespace, metric.name, set(metric.dimensions)) == (namespace, name, dimensions)
        and metric.allows(statistic)
        for metric in known
    )


def alarms(assembly: Assembly) -> Iterator[tuple[str, dict[str, Any]]]:
    values = values_of(assembly)
    for name, alarm in assembly.resources(ALARM):
        yield name, values.resolve(name.split("/")[0], alarm["Properties"])


def dimensions(properties: Mapping[str, Any]) -> dict[str, str]:
    return {dimension["Name"]: dimension["Value"] for dimension in properties.get("Dimensions", [])}


def metrics_of(properties: Mapping[str, Any]) -> Iterator[tuple[str, str, set[str], str]]:
    """Namespace, name, names of dimensions and statistic of what an alarm looks at: a metric, or a metric
    with the band that it has kept in, or a query.
    """
    if "MetricName" in properties:
        statistic = properties.get("Statistic") or properties["ExtendedStatistic"]
        yield properties["Namespace"], properties["MetricName"], set(dimensions(properties)), statistic
    ids = {query["Id"] for query in properties.get("Metrics", [])}
    for query in properties.get("Metrics", []):
        if "MetricStat" in query:
            metric = query["MetricStat"]["Metric"]
            yield (
                metric["Namespace"],
                metric["MetricName"],
                set(dimensions(metric)),
                query["MetricStat"]["Stat"],
            )
        elif band := re.fullmatch(r"ANOMALY_DETECTION_BAND\((\w+), \d+\)", query["Expression"]):
            assert band[1] in ids - {query["Id"]}
            assert properties["ThresholdMetricId"] == query["Id"]
        else:
            select = QUERY.fullmatch(query["Expression"])
            assert select, query
            yield select["namespace"], select["metric"], set(select["by"].split(", ")), "Sum"
            assert set(re.findall(r"(\w+) !?=", select["where"])) <= set(select["by"].split(", "))


def bodies(assembly: Assembly) -> Iterator[tuple[str, dict[str, Any]]]:
    values = values_of(assembly)
    for name, dashboard in assembly.resources(DASHBOARD):
        body = values.resolve(name.split("/")[0], dashboard["Properties"]["DashboardBody"])
        yield name, json.loads(body)


def graphs(assembly: Assembly) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, body in bodies(assembly):
        for widget in body["widgets"]:
            if widget["type"] == "metric":
                yield f"{name}: {widget['properties']['title']}", widget["properties"]


def test_every_alarm_does_something(assembly: Assembly) -> None:
    found = dict(alarms(assembly))
    assert len(found) >= 15
    for name, properties in found.items():
        assert properties["AlarmActions"], name
        assert properties.get("ActionsEnabled", True) is True, name


def test_alarms_of_people_say_what_happened_and_what_to_do(assembly: Assembly) -> None:
    for name, properties in alarms(assembly):
        if name.startswith("observability/"):
            assert "AlarmsTopic" in properties["AlarmActions"][0], name
            assert len(properties["AlarmDescription"].split()) > 12, name
            assert len(properties["AlarmDescription"]) <= 1024, name
            # No requests, no instances and nobody misbehaving are not alarms. A receiver that is not there
            # is.
            silent = "breaching" if "ReceiverSilent" in name else "notBreaching"
            assert properties["TreatMissingData"] == silent, name


def test_every_alarm_is_about_a_metric_that_somebody_emits(assembly: Assembly) -> None:
    for name, properties in alarms(assembly):
        used = list(metrics_of(properties))
        assert used, name
        for metric in used:
            assert emitted(*metric), (name, metric)


def test_every_scaling_policy_is_about_a_metric_that_somebody_emits(assembly: Assembly) -> None:
    values = values_of(assembly)
    for name, policy in assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy"):
        properties = values.resolve(name.split("/")[0], policy["Properties"])
        tracking = properties.get("TargetTrackingScalingPolicyConfiguration", {})
        if own := tracking.get("CustomizedMetricSpecification"):
            assert emitted(own["Namespace"], own["MetricName"], set(dimensions(own)), own["Statistic"]), name
        if predefined := tracking.get("PredefinedMetricSpecification"):
            namespace, metric = PREDEFINED[predefined["PredefinedMetricType"]]
            assert any((m.namespace, m.name) == (namespace, metric) for m in AWS_METRICS), name


def test_every_graph_is_about_metrics_that_somebody_emits(assembly: Assembly) -> None:
    found = dict(graphs(assembly))
    assert len(found) >= 12
    for name, properties in found.items():
        assert properties["metrics"], name
        for namespace, *rest in properties["metrics"]:
            if not rest:
                match = SEARCH.fullmatch(namespace["expression"])
                assert match, namespace
                by = set(match[2].split(",")) - {""}
                assert emitted(match[1], match[3], by, match[4]), (name, namespace)
            else:
                metric, *pairs, options = rest
                assert emitted(namespace, metric, set(pairs[::2]), options["stat"]), (name, metric, pairs)
                assert all(isinstance(value, str) and value for value in pairs[1::2]), name


def test_dashboards_are_as_cloudwatch_draws_them(assembly: Assembly) -> None:
    known = {properties_arn(name) for name, _ in assembly.resources(ALARM)}
    found = dict(bodies(assembly))
    # Three are free (https://aws.amazon.com/cloudwatch/pricing/).
    assert len(found) == 3
    for name, body in found.items():
        taken: set[tuple[int, int]] = set()
        assert body["widgets"], name
        for widget in body["widgets"]:
            assert set(widget) == {"type", "x", "y", "width", "height", "properties"}, name
            assert widget["width"] >= 1, name
            assert widget["x"] + widget["width"] <= 24, name
            assert 1 <= widget["height"] <= 1000, name
            area = {
                (widget["x"] + x, widget["y"] + y)
                for x in range(widget["width"])
                for y in range(widget["height"])
            }
            assert not area & taken, f"{name}: widgets overlap"
            taken |= area
            properties = widget["properties"]
            match widget["type"]:
                case "text":
                    assert properties["markdown"].startswith("## "), name
                case "alarm":
                    assert 1 <= len(properties["alarms"]) <= 100, name
                    assert {arn.rsplit(":", 1)[1] for arn in properties["alarms"]} <= known, name
                case "metric":
                    assert properties["view"] == "timeSeries", name
                    assert properties["period"] % 60 == 0, name
                    assert properties["region"], name
                    assert len(properties["metrics"]) <= 500, name
                case other:
                    raise AssertionError(f"{name}: {other}")


def properties_arn(name: str) -> str:
    return name.split("/")[1].lower()


def test_each_alarm_of_the_stack_is_on_a_dashboard(assembly: Assembly) -> None:
    shown = {
        arn.rsplit(":", 1)[1]
        for _, body in bodies(assembly)
        for widget in body["widgets"]
        if widget["type"] == "alarm"
        for arn in widget["properties"]["alarms"]
    }
    wanted = {properties_arn(n) for n, _ in assembly.resources(ALARM) if n.startswith("observability/")}
    assert shown == wanted


def test_the_alarms_of_the_index_watch_its_queues_and_its_function(dev: Assembly) -> None:
    catalog = dev.template("catalog")["Resources"]

    def logical_id(type: str, start: str) -> str:
        (found,) = (n for n, r in catalog.items() if r["Type"] == type and n.startswith(start))
        return str(found).lower()

    queue = logical_id("AWS::SQS::Queue", "IndexQueue")
    dead_letters = logical_id("AWS::SQS::Queue", "IndexDeadLetters")
    function = logical_id("AWS::Lambda::Function", "IndexFunction")
    watching = {
        (properties["MetricName"], value)
        for name, properties in alarms(dev)
        if "ArrivalsAlarms" in name
        for value in dimensions(properties).values()
    }
    assert {
        ("ApproximateAgeOfOldestMessage", queue),
        ("ApproximateNumberOfMessagesVisible", dead_letters),
        ("Errors", function),
    } <= watching


def test_the_alarms_of_inference_watch_the_endpoint_of_the_file(assembly: Assembly) -> None:
    environment = load_environment(assembly.environment)
    names = {
        endpoint.endpoint_name(environment.name)
        for endpoint in environment.inference.endpoints
        if endpoint.mode != "batch"
    }
    watching = {
        dimensions(properties)["EndpointName"]
        for name, properties in alarms(assembly)
        if name.startswith("observability/") and "EndpointName" in dimensions(properties)
    }
    assert watching == names


MODES: tuple[dict[str, Any], ...] = (
    {
        "mode": "asynchronous", "task": "lung", "instance_type": "ml.g5.xlarge", "minimum_instances": 0,
        "maximum_instances": 1, "concurrent_invocations": 1, "backlog_per_instance": 1.0,
    },
    {
        "mode": "real-time", "task": "lung", "instance_type": "ml.g5.xlarge", "minimum_instances": 2,
        "maximum_instances": 4, "invocations_per_instance": 10.0,
    },
    {
        "mode": "multi-model", "instance_type": "ml.m5.xlarge", "minimum_instances": 1,
        "maximum_instances": 2, "invocations_per_instance": 10.0,
    },
    {"mode": "serverless", "task": "lung", "memory_mib": 4096, "maximum_concurrency": 2},
)  # fmt: skip


@pytest.mark.parametrize("settings", MODES, ids=lambda settings: str(settings["mode"]))
def test_each_mode_is_watched_by_the_metrics_that_it_emits(settings: dict[str, Any]) -> None:
    endpoint: Endpoint = TypeAdapter(Endpoint).validate_python({"name": "chest", **settings})
    (found,) = watched(endpoint, environment="dev")
    readings = [line for graph in found.row.graphs for line in graph.lines]
    metrics = {line.metric.name for line in readings}
    assert all(isinstance(line, Reading) for line in readings)
    if settings["mode"] == "asynchronous":
        # "Any metric not listed is not published": an alarm on them would stay silent.
        assert not {"Invocations", "InvocationsPerInstance", "OverheadLatency"} & metrics
        assert {"ApproximateBacklogSize", "InvocationFailures"} <= metrics
    else:
        assert {"Invocations", "Invocation5XXErrors", "ModelLatency"} <= metrics
    assert ("GPUMemoryUtilization" in metrics) == ("g5" in settings.get("instance_type", ""))
    assert ("ModelCacheHit" in metrics) == (settings["mode"] == "multi-model")
    assert ("MemoryUtilization" in metrics) == (settings["mode"] != "serverless")


def test_inference_components_are_watched_each_by_its_name() -> None:
    share = {"accelerators": 0.5, "memory_mib": 4096, "copies": 1, "maximum_copies": 2}
    endpoint: Endpoint = TypeAdapter(Endpoint).validate_python(
        {
            "name": "chest",
            "mode": "inference-components",
            "instance_type": "ml.g5.12xlarge",
            "minimum_instances": 1,
            "maximum_instances": 2,
            "models": [{"task": task, "invocations_per_copy": 5.0, **share} for task in ("lung", "heart")],
        }
    )
    (found,) = watched(endpoint, environment="dev")
    names = {f"monai-dev-chest-{task}-g5-12xlarge" for task in ("lung", "heart")}
    served = {
        line.dimensions["InferenceComponentName"]
        for graph in found.row.graphs
        for line in graph.lines
        if isinstance(line, Reading) and line.metric.dimensions == ("InferenceComponentName",)
    }
    assert served == names
    full = [watch for watch in found.watches if "GpuMemory" in watch.id]
    # Of the component, not of the machine: that adds up four GPUs.
    assert {watch.reading.dimensions["InferenceComponentName"] for watch in full} == names
    assert len({watch.id for watch in found.watches}) == len(found.watches)


def test_an_environment_without_models_has_no_empty_graphs() -> None:
    bare = load_environment("dev").model_copy(
        update={"training": Training(tasks=()), "inference": Inference(endpoints=())}
    )
    for row in (training(bare), *runtime_rows(bare)):
        assert row.graphs
        assert all(graph.lines for graph in row.graphs)


def test_a_batch_transform_leaves_nothing_to_watch() -> None:
    endpoint: Endpoint = TypeAdapter(Endpoint).validate_python(
        {
            "name": "night", "mode": "batch", "task": "lung", "instance_type": "ml.m5.xlarge",
            "instance_count": 1,
        }
    )  # fmt: skip
    assert not list(watched(endpoint, environment="dev"))


def test_a_metric_that_nobody_emits_is_refused() -> None:
    with pytest.raises(KeyError, match="GPUMemoryUtilization"):
        # The right name in the wrong namespace.
        aws_metric("AWS/SageMaker", "GPUMemoryUtilization", "EndpointName", "VariantName")
    latency = aws_metric("AWS/SageMaker", "ModelLatency", "EndpointName", "VariantName")
    with pytest.raises(ValueError, match="VariantName"):
        latency.of(statistic="Average", EndpointName="monai")
    with pytest.raises(ValueError, match="no statistic p99"):
        aws_metric("AWS/SageMaker", "Invocation5XXErrors", "EndpointName", "VariantName").of(
            statistic="p99", EndpointName="monai", VariantName="main"
        )
    assert not emitted("AWS/SQS", "ApproximateAgeOfOldestMessage", {"Queue"}, "Maximum")


def test_no_metric_is_in_the_table_twice() -> None:
    keys = [(metric.namespace, metric.name, frozenset(metric.dimensions)) for metric in AWS_METRICS]
    assert len(set(keys)) == len(keys)
    assert all(metric.source.startswith("https://docs.aws.amazon.com/") for metric in AWS_METRICS)


def test_rows_wrap_and_do_not_overlap() -> None:
    reading = aws_metric("AWS/SQS", "NumberOfMessagesSent", "QueueName").of(statistic="Sum", QueueName="q")
    graph = Graph(title="g", lines=(reading,), limit=3)
    body = dashboard_body(
        [Row(title="a", text="t", graphs=[graph] * 6), Row(title="b", text="t", graphs=[graph])],
        region="eu-west-1",
    )
    places = [(widget["x"], widget["y"]) for widget in body["widgets"]]
    assert places == [(0, 0), (0, 2), (6, 2), (12, 2), (18, 2), (0, 8), (6, 8), (0, 14), (0, 16)]
    assert body["widgets"][1]["properties"]["annotations"]["horizontal"][0]["value"] == 3


def test_our_own_metrics_are_those_that_the_containers_emit() -> None:
    wanted = {
        (metric.name, dimensions)
        for metric in runtime_metrics.METRICS.values()
        for dimensions in metric.dimensions
    }
    assert {(metric.name, metric.dimensions) for metric in RUNTIME_METRICS} == wanted
    assert {metric.namespace for metric in RUNTIME_METRICS} == {NAMESPACE} == {runtime_metrics.NAMESPACE}


def test_the_containers_call_themselves_what_the_alarms_look_for(assembly: Assembly) -> None:
    values = values_of(assembly)
    named = set()
    for place, model in assembly.resources("AWS::SageMaker::Model"):
        container = values.resolve(place.split("/")[0], model["Properties"]["PrimaryContainer"])
        named.add(container["Environment"]["RUNTIME_ENDPOINT_NAME"])
    looked_for = {
        dimensions(query["MetricStat"]["Metric"])["Endpoint"]
        for _, properties in alarms(assembly)
        for query in properties.get("Metrics", [])
        if "MetricStat" in query
    }
    assert looked_for
    assert looked_for <= named


def test_all_that_the_containers_emit_is_drawn(dev: Assembly) -> None:
    drawn = {
        match[3]
        for _, properties in graphs(dev)
        for line in properties["metrics"]
        if isinstance(line[0], dict)
        if (match := SEARCH.fullmatch(line[0]["expression"])) and match[1] == NAMESPACE
    }
    assert drawn == set(runtime_metrics.METRICS)


def test_a_modality_that_no_rule_names_is_an_alarm(assembly: Assembly) -> None:
    (rule,) = load_environment(assembly.environment).inference.rules
    name = rule.endpoint
    queries = [
        query["Expression"]
        for _, properties in alarms(assembly)
        for query in properties.get("Metrics", [])
        if query.get("Expression", "").startswith("SELECT")
    ]
    (query,) = queries
    assert query.startswith('SELECT SUM(Volumes) FROM SCHEMA("MONAI/Inference", Endpoint, Modality) ')
    assert query.endswith(f" WHERE Endpoint = '{name}' AND Modality != 'CT'")
    bands = {
        query["MetricStat"]["Metric"]["MetricName"]: dimensions(query["MetricStat"]["Metric"])
        for _, properties in alarms(assembly)
        for query in properties.get("Metrics", [])
        if "MetricStat" in query
    }
    of_rule = {"Endpoint": name, "Modality": "CT"}
    assert bands == dict.fromkeys(("ColumnSpacingMillimetres", "SliceSpacingMillimetres", "Slices"), of_rule)


def test_failed_jobs_end_in_the_failure_queue(assembly: Assembly) -> None:
    template = assembly.template("observability")["Resources"]
    rules = {name: r["Properties"] for name, r in template.items() if r["Type"] == "AWS::Events::Rule"}
    (queue,) = (name for name, r in template.items() if r["Type"] == "AWS::SQS::Queue")
    assert {detail for rule in rules.values() for detail in rule["EventPattern"]["detail-type"]} == {
        "Import Job Failed",
        "SageMaker Training Job State Change",
        "SageMaker Processing Job State Change",
        "SageMaker Transform Job State Change",
        "Glue Crawler State Change",
    }
    for rule in rules.values():
        (target,) = rule["Targets"]
        assert target["Arn"] == {"Fn::GetAtt": [queue, "Arn"]}
    (policy,) = (r["Properties"] for r in template.values() if r["Type"] == "AWS::SQS::QueuePolicy")
    (allowed,) = (s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow")
    assert sorted(arn["Fn::GetAtt"][0] for arn in allowed["Condition"]["ArnEquals"]["aws:SourceArn"]) == (
        sorted(rules)
    )
    watching = {
        dimension["Value"]["Ref"]
        for name, alarm in assembly.resources(ALARM)
        for dimension in alarm["Properties"].get("Dimensions", [])
        if dimension["Name"] == "RuleName"
    }
    assert watching == set(rules)


def test_a_failed_execution_of_each_pipeline_is_an_alarm(assembly: Assembly) -> None:
    watching = {
        dimensions(properties)["PipelineName"]
        for _, properties in alarms(assembly)
        if properties.get("MetricName") == "ExecutionFailed"
    }
    assert watching == {
        pipeline["Properties"]["PipelineName"]
        for _, pipeline in assembly.resources("AWS::SageMaker::Pipeline")
    }


def test_each_audit_event_is_counted_and_is_an_alarm(assembly: Assembly) -> None:
    counted = {}
    values = values_of(assembly)
    for _, found in assembly.resources("AWS::Logs::MetricFilter"):
        properties = found["Properties"]
        group = values.resolve("observability", properties["LogGroupName"])
        assert group.startswith("auditlog")
        (made,) = properties["MetricTransformations"]
        assert made["MetricNamespace"] == AUDIT_NAMESPACE
        counted[made["MetricName"]] = properties["FilterPattern"]
    assert counted == {event.name: event.pattern for event in AUDIT_EVENTS}
    watching = {p["MetricName"] for _, p in alarms(assembly) if p.get("Namespace") == AUDIT_NAMESPACE}
    assert watching == set(counted)


@cache
def operations() -> dict[str, set[str]]:
    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    return {
        f"{prefix}.amazonaws.com": set(loader.load_service_model(service, "service-2")["operations"])
        for service, prefix in (
            ("cloudtrail", "cloudtrail"),
            ("kms", "kms"),
            ("logs", "logs"),
            ("s3", "s3"),
            ("medical-imaging", "medical-imaging"),
        )
    }


OTHER_NAMES = {
    "DeleteBucketPublicAccessBlock": "DeletePublicAccessBlock",
    "PutBucketPublicAccessBlock": "PutPublicAccessBlock",
}
"""Calls that CloudTrail records under another name
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html).
"""


def test_audit_events_name_calls_that_exist() -> None:
    named = 0
    for event in AUDIT_EVENTS:
        source = None
        for field, value in re.findall(r'(eventSource|eventName) = "([^"]+)"', event.pattern):
            if field == "eventSource":
                source = value
                continue
            named += 1
            assert source
            assert OTHER_NAMES.get(value, value) in operations()[source], value
        assert event.pattern.count("(") == event.pattern.count(")")
        assert event.pattern.startswith("{ ")
        assert event.pattern.endswith(" }")
    assert named >= 19


def test_who_wants_to_go_unseen_is_seen() -> None:
    """Each way to read, to end or to hide, other than by a role of the platform, raises an alarm."""
    told = {call for event in AUDIT_EVENTS for call in re.findall(r'eventName = "(\w+)"', event.pattern)}
    assert told >= {
        "StopLogging", "DeleteTrail", "DeleteLogGroup", "DeleteMetricFilter",
        "PutKeyPolicy", "ScheduleKeyDeletion",
        "DeleteBucketPublicAccessBlock", "PutBucketLifecycle", "PutBucketPolicy", "PutBucketVersioning",
        "DeleteImageSet",
    }  # fmt: skip


@pytest.mark.parametrize("environment", ["local", "dev", "prod"])
def test_the_budget_is_that_of_the_file(synthesize: Callable[[str], Assembly], environment: str) -> None:
    notices = load_environment(environment).notices
    assembly = synthesize(environment)
    budget = assembly.only("AWS::Budgets::Budget")["Properties"]
    assert budget["Budget"] == {
        "BudgetLimit": {"Amount": notices.monthly_budget_usd, "Unit": "USD"},
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
    }
    told = {}
    for notice in budget["NotificationsWithSubscribers"]:
        kind, percent = notice["Notification"]["NotificationType"], notice["Notification"]["Threshold"]
        told[kind, percent] = [
            (s["SubscriptionType"], s["Address"] if s["SubscriptionType"] == "EMAIL" else "topic")
            for s in notice["Subscribers"]
        ]
    everybody = [("SNS", "topic"), *(("EMAIL", address) for address in notices.emails)]
    assert told == {("FORECASTED", 80): everybody, ("ACTUAL", 100): everybody}


def test_what_an_asynchronous_endpoint_cannot_tell_is_an_alarm(assembly: Assembly) -> None:
    """Topics are how results are announced and failures noted: their silence has to be heard of elsewhere."""
    watched = {
        (properties.get("MetricName"), properties.get("Threshold"))
        for name, properties in alarms(assembly)
        if name.startswith("observability/")
    }
    assert {("NotificationFailures", 0), ("ExpiredRequests", 0), ("InvocationFailures", 0)} <= watched
