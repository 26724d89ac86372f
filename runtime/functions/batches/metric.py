"""A metric of a function that counts what it found."""

from __future__ import annotations

import json
import time


def emit(name: str, count: int, *, namespace: str, function: str) -> None:
    """A count by FunctionName, in CloudWatch's embedded format: a line of its own in the log
    (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
    """
    document = {
        "_aws": {
            "Timestamp": round(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": namespace,
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [{"Name": name, "Unit": "Count"}],
                }
            ],
        },
        "FunctionName": function,
        name: count,
    }
    # Not by the logger, which would put its own words before it.
    print(json.dumps(document), flush=True)
