"""The metrics of a training job: what the expressions of its MetricDefinitions find in its output."""

from __future__ import annotations

import re
from typing import Any

from local.sagemaker.store import now


class Metrics:
    """The last value of every MetricDefinition's expression in the output."""

    def __init__(self, definitions: list[dict[str, str]]) -> None:
        self._definitions = [(entry["Name"], re.compile(entry["Regex"])) for entry in definitions]
        self._values: dict[str, dict[str, Any]] = {}

    def read(self, line: str) -> None:
        """Look for every metric in a line."""
        for name, expression in self._definitions:
            for match in expression.finditer(line):
                try:
                    value = float(match[1])
                except (TypeError, ValueError):
                    continue  # as SageMaker: what is no number is no metric
                self._values[name] = {"MetricName": name, "Value": value, "Timestamp": now()}

    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList."""
        return list(self._values.values())
