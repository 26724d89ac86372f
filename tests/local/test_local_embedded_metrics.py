"""Metrics embedded in log events become metrics of CloudWatch, whoever logs them.

And the documents that the inference image writes are as CloudWatch specifies them.
"""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from role_sessions import make_role

from local.embedded_metrics import readings
from runtime.logs import JsonFormatter
from runtime.metrics import NAMESPACE, Metrics, VolumeFigures
from runtime.results.answer import ModelIdentity, Result, SegmentVolume, StoredSegmentation

TEXT = {"type": "string", "minLength": 1, "maxLength": 1024}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "additionalProperties": False,
    "properties": {
        "Namespace": TEXT,
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "array",
                "maxItems": 30,
                "items": {"type": "string", "minLength": 1, "maxLength": 250},
            },
        },
        "Metrics": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["Name"],
                "additionalProperties": False,
                "properties": {
                    "Name": TEXT,
                    # Units of MetricDatum in the API reference of CloudWatch.
                    "Unit": {"enum": ["Seconds", "Count", "None"]},
                    "StorageResolution": {"enum": [1, 60]},
                },
            },
        },
    },
}
SPECIFICATION = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_500_000_000_000},
                "CloudWatchMetrics": {"type": "array", "items": DIRECTIVE},
            },
        }
    },
}
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html"""


@pytest.fixture
def emitted(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Every kind of line that the runtime writes."""
    caplog.set_level(logging.INFO, logger="runtime")
    metrics = Metrics(endpoint="embedded")
    stored = StoredSegmentation(
        series_instance_uid="2.25.1",
        sop_instance_uid="2.25.2",
        image_set_id="e" * 32,
        is_primary=True,
        s3_uri=None,
    )
    result = Result(
        image_set_id="a" * 32,
        version_id="1",
        segmentation=stored,
        segments=(SegmentVolume(label="left lung", volume_ml=2000.0),),
        model=ModelIdentity(name="m", version="1", sha256="f" * 64),
        seconds={"queue": 0.1, "network": 2.0, "total": 2.1},
    )
    metrics.segmented(result, VolumeFigures(modality="CT", slices=120, spacing=(0.7, 0.7, 2.5)))
    metrics.answered(seconds=2.2)
    metrics.failed(error_type="GeometryError", seconds=0.2)
    return [JsonFormatter().format(record) for record in caplog.records]


def statistics(cloud: Any, metric: str, **dimensions: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    points = cloud.client("cloudwatch").get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=3600 * 2,
        Statistics=["Sum", "SampleCount", "Maximum"],
    )["Datapoints"]
    return {"Sum": 0.0, "SampleCount": 0.0} | (points[0] if points else {})


def test_documents_of_the_runtime_are_as_specified(emitted: list[str]) -> None:
    assert len(emitted) == 6
    for line in emitted:
        document = json.loads(line)
        jsonschema.validate(document, SPECIFICATION)
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                assert all(isinstance(document[name], str) and document[name] for name in names)
            assert all(isinstance(document[one["Name"]], int | float) for one in directive["Metrics"])


def test_what_is_put_into_a_log_is_measured(cloud, emitted: list[str]) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="/embedded/container")
    logs.create_log_stream(logGroupName="/embedded/container", logStreamName="s")
    moment = int(time.time() * 1000)
    broken = json.dumps({"_aws": {"CloudWatchMetrics": [{"Namespace": NAMESPACE}]}})
    logs.put_log_events(
        logGroupName="/embedded/container",
        logStreamName="s",
        logEvents=[{"timestamp": moment, "message": line} for line in ["plain text", broken, *emitted]],
    )
    slices = statistics(cloud, "Slices", Endpoint="embedded", Modality="CT")
    assert (slices["Sum"], slices["SampleCount"], slices["Unit"]) == (120.0, 1.0, "Count")
    errors = statistics(cloud, "Errors", Endpoint="embedded")
    assert (errors["Sum"], errors["SampleCount"]) == (1.0, 2.0)
    assert statistics(cloud, "Errors", Endpoint="embedded", ErrorType="GeometryError")["Sum"] == 1.0
    volume = statistics(cloud, "SegmentVolumeMillilitres", Endpoint="embedded", Segment="left lung")
    assert volume["Maximum"] == 2000.0
    assert statistics(cloud, "Errors", Endpoint="another")["SampleCount"] == 0
    kept = logs.filter_log_events(logGroupName="/embedded/container")["events"]
    assert len(kept) == 2 + len(emitted), "the events stay in the log as they came"


FUNCTION = """
def handler(event, context):
    print(event["line"])
"""


def test_what_a_function_prints_is_measured(cloud, emitted: list[str]) -> None:
    role = make_role(
        cloud,
        "embedded-function",
        {"Action": "logs:*", "Resource": "*"},
        trust={"Principal": {"Service": "lambda.amazonaws.com"}},
    )
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("index.py", FUNCTION)
    client = cloud.client("lambda")
    client.create_function(
        FunctionName="embedded",
        Runtime="python3.11",
        Handler="index.handler",
        Role=role,
        Code={"ZipFile": package.getvalue()},
    )
    line = emitted[0].replace('"embedded"', '"embedded-function"')
    client.invoke(FunctionName="embedded", Payload=json.dumps({"line": line}))
    network = statistics(cloud, "NetworkSeconds", Endpoint="embedded-function")
    assert (network["Sum"], network["Unit"]) == (2.0, "Seconds")


@pytest.mark.parametrize(
    "change",
    [
        {"Endpoint": 7},
        {"Endpoint": None},
        {"Requests": "many"},
        {"_aws": {"CloudWatchMetrics": []}},
        {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Metrics": [{"Name": "x"}] * 101}]}},
    ],
)
def test_a_document_that_breaks_the_specification_is_no_metric(change: dict[str, Any]) -> None:
    directive = {"Namespace": "N", "Dimensions": [["Endpoint"]], "Metrics": [{"Name": "Requests"}]}
    document = {
        "_aws": {"Timestamp": 1_700_000_000_000, "CloudWatchMetrics": [directive]},
        "Endpoint": "e",
        "Requests": [1, 2],
    }
    [reading] = readings(json.dumps(document))
    assert (reading.values, reading.dimensions, reading.seconds) == ((1, 2), {"Endpoint": "e"}, 1.7e9)
    assert list(readings(json.dumps(document | change))) == []
    assert list(readings("at 12:00 " + json.dumps(document))) == [], "nothing may stand before it"
