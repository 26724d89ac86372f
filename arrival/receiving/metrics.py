"""What the receiver measures, as CloudWatch metrics embedded in its log.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
The dimension is the receiver's AE title: a metric for each device or study would cost, and say who they are.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

NAMESPACE = "MONAI/Arrival"

UNITS = {
    "Received": "Count",
    "ReceivedBytes": "Bytes",
    "Imported": "Count",
    "Failed": "Count",
    "ImportAttemptsFailed": "Count",
    "Quarantined": "Count",
    "Refused": "Count",
    "RejectedAssociations": "Count",
    "ImportSeconds": "Seconds",
}
"""Received: acknowledged instances. Refused: instances that were not, which the device sends again.
ImportAttemptsFailed: times that a batch could not be imported; it waits in S3 and is tried again.
ImportSeconds: from a study's last instance to the end of its import job.
"""


def _line(text: str) -> None:
    """In one piece: what several threads print at once would else run together, and CloudWatch drops it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Emits lines."""

    receiver: str
    """AE title."""
    write: Callable[[str], None] = _line

    def emit(self, **values: float) -> None:
        """One document with the metrics that are named."""
        document = {
            "_aws": {
                "Timestamp": round(time.time() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": NAMESPACE,
                        "Dimensions": [["Receiver"]],
                        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
                    }
                ],
            },
            "Receiver": self.receiver,
            **values,
        }
        self.write(json.dumps(document))
