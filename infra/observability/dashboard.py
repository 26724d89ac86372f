"""Dashboards as data: rows of graphs, and the JSON that CloudWatch draws.

See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.observability.metrics import Reading, Search

_COLUMNS = 24
_HEIGHT = 6


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Lines over time."""

    title: str
    lines: Sequence[Reading | Search]
    limit: float | None = None
    """Where the alarm is."""
    unit: str = ""
    """Said at the axis."""
    period_seconds: int = 300
    region: str | None = None
    """Where the metrics are, if not where the dashboard is."""
    stacked: bool = False

    def properties(self, region: str) -> dict[str, Any]:
        """The widget's properties."""
        properties: dict[str, Any] = {
            "title": self.title,
            "view": "timeSeries",
            "stacked": self.stacked,
            "region": self.region or region,
            "period": self.period_seconds,
            "metrics": [_line(line) for line in self.lines],
            "yAxis": {"left": {"min": 0, "label": self.unit, "showUnits": False}},
        }
        if self.limit is not None:
            properties["annotations"] = {"horizontal": [{"label": "alarm", "value": self.limit}]}
        return properties


@dataclass(frozen=True, kw_only=True)
class Row:
    """A heading with a sentence for who sees it first, and graphs side by side below it."""

    title: str
    text: str
    graphs: Sequence[Graph]


def dashboard_body(rows: Sequence[Row], *, region: str, alarm_arns: Sequence[str] = ()) -> dict[str, Any]:
    """The body of a dashboard. Values may be tokens of the CDK."""
    widgets: list[dict[str, Any]] = []
    y = 0
    if alarm_arns:
        properties: dict[str, Any] = {"title": "Alarms", "alarms": list(alarm_arns)}
        height = 1 + (len(alarm_arns) + 3) // 4
        widgets.append(_widget("alarm", 0, y, _COLUMNS, height, properties))
        y += height
    for row in rows:
        heading = {"markdown": f"## {row.title}\n{row.text}"}
        widgets.append(_widget("text", 0, y, _COLUMNS, 2, heading))
        y += 2
        width = max(6, _COLUMNS // max(1, len(row.graphs)))
        per_line = _COLUMNS // width
        for index, graph in enumerate(row.graphs):
            line, column = divmod(index, per_line)
            widgets.append(
                _widget(
                    "metric", column * width, y + line * _HEIGHT, width, _HEIGHT, graph.properties(region)
                )
            )
        y += _HEIGHT * -(-len(row.graphs) // per_line)
    return {"start": "-P1D", "widgets": widgets}


def _widget(type: str, x: int, y: int, width: int, height: int, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": type, "x": x, "y": y, "width": width, "height": height, "properties": properties}


def _line(line: Reading | Search) -> list[Any]:
    if isinstance(line, Search):
        return [{"expression": line.expression}]
    dimensions = [part for pair in line.dimensions.items() for part in pair]
    options = {"stat": line.statistic, **({"label": line.label} if line.label else {})}
    return [line.metric.namespace, line.metric.name, *dimensions, options]
