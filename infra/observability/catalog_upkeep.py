"""What keeps the catalog in order: whether it runs, and what it found that the index function has missed."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_

from infra.observability.alarms import Watch
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Metric, Reading, aws_metric

_MISSED = Metric(
    namespace="MONAI/Catalog",
    name="MissedImageSets",
    dimensions=("FunctionName",),
    source="runtime/functions/reconcile_catalog/handler.py",
)

CATALOG_METRICS: tuple[Metric, ...] = (_MISSED,)
"""All that the functions emit themselves; a test compares with them."""

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class WatchedUpkeep:
    """The two functions, as they are watched."""

    compact: lambda_.IFunction
    reconcile: lambda_.IFunction

    @property
    def row(self) -> Row:
        """Their graphs."""
        return Row(
            title="Catalog",
            text="Schedules move new rows into the compacted tables and compare the catalog to the archive.",
            graphs=(
                Graph(title="Missed by the catalog", lines=(self._missed,), period_seconds=_HOUR),
                Graph(
                    title="Compact function",
                    lines=(
                        _of_function(self.compact, "Invocations", "runs"),
                        _of_function(self.compact, "Errors", "failed"),
                    ),
                    period_seconds=_HOUR,
                ),
                Graph(
                    title="Reconcile function of the catalog",
                    lines=(
                        _of_function(self.reconcile, "Invocations", "runs"),
                        _of_function(self.reconcile, "Errors", "failed"),
                    ),
                    period_seconds=_HOUR,
                ),
            ),
        )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Their alarms."""
        return (
            Watch(
                id="CatalogMissed",
                happened="Catalog: image sets were not in it as they are in the archive; they have been sent "
                "to the index function.",
                advice="Find out where their events were lost: the rule switched off, the queue purged, or "
                "messages that nobody sent again from the dead-letter queue. The function's log names the "
                "image sets.",
                reading=self._missed,
                threshold=0,
            ),
            Watch(
                id="CatalogReconcileErrors",
                happened="Catalog: the comparison with the archive failed.",
                advice="The function's log says why. The next run goes on where this one was.",
                reading=_of_function(self.reconcile, "Errors", "failed"),
                threshold=0,
            ),
            Watch(
                id="CatalogCompactErrors",
                happened="Catalog: new rows could not be moved into the compacted tables. Queries are right, "
                "and read more with every hour.",
                advice="The function's log has the id of the query; Athena's history says why it failed. The "
                "next run begins it anew.",
                reading=_of_function(self.compact, "Errors", "failed"),
                threshold=0,
            ),
        )

    @property
    def _missed(self) -> Reading:
        return _MISSED.of(statistic="Sum", label="missed", FunctionName=self.reconcile.function_name)


def _of_function(function: lambda_.IFunction, metric: str, label: str) -> Reading:
    return aws_metric("AWS/Lambda", metric, "FunctionName").of(
        statistic="Sum", label=label, FunctionName=function.function_name
    )
