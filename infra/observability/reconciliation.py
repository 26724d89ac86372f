"""What the reconcile function finds: nothing, where the event path works."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_

from infra.observability.alarms import Watch
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Metric, Reading, aws_metric

_MISSED = Metric(
    namespace="MONAI/Events",
    name="MissedRuns",
    dimensions=("FunctionName",),
    source="runtime/functions/reconcile/handler.py",
)

EVENT_METRICS: tuple[Metric, ...] = (_MISSED,)
"""All that the functions emit themselves; a test compares with them."""

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class WatchedReconciliation:
    """The function, as it is watched."""

    function: lambda_.IFunction

    @property
    def row(self) -> Row:
        """Its graphs."""
        return Row(
            title="Reconcile",
            text="A schedule looks for arrived image sets that no event brought to their endpoint, and sends "
            "them there.",
            graphs=(
                Graph(title="Missed", lines=(self._missed,), period_seconds=_HOUR),
                Graph(
                    title="Reconcile function",
                    lines=(self._of_function("Invocations", "runs"), self._errors),
                    period_seconds=_HOUR,
                ),
            ),
        )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Its alarms."""
        return (
            Watch(
                id="ReconcileMissed",
                happened="Reconcile: image sets arrived that no event brought to their endpoint; they have "
                "been sent now.",
                advice="Find out where the events were lost: the rule of the event path switched off, its "
                "queue purged, or events that HealthImaging did not send. The function's log names the image "
                "sets.",
                reading=self._missed,
                threshold=0,
            ),
            Watch(
                id="ReconcileErrors",
                happened="Reconcile: the search for missed image sets failed, or some that were missed could "
                "not be sent.",
                advice="The function's log says why. The next run tries again.",
                reading=self._errors,
                threshold=0,
            ),
        )

    @property
    def _missed(self) -> Reading:
        return _MISSED.of(statistic="Sum", label="missed", FunctionName=self.function.function_name)

    @property
    def _errors(self) -> Reading:
        return self._of_function("Errors", "failed")

    def _of_function(self, metric: str, label: str) -> Reading:
        return aws_metric("AWS/Lambda", metric, "FunctionName").of(
            statistic="Sum", label=label, FunctionName=self.function.function_name
        )
