"""What to watch of a queue with its function: the index path and the dispatch path."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from infra.observability.alarms import Watch
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Reading, aws_metric


@dataclass(frozen=True, kw_only=True)
class WorkQueue:
    """A queue, the function that works it off, and where failed messages go."""

    id: str
    title: str
    text: str
    """What it is for, as the dashboard says it."""
    queue: sqs.IQueue
    dead_letters: sqs.IQueue
    function: lambda_.IFunction
    late_seconds: int
    """Age of the oldest message at which somebody has to look."""
    consequence: str
    """What is wrong for users while messages are stuck. A part of a sentence."""

    @property
    def row(self) -> Row:
        """Graphs of the path."""
        return Row(
            title=self.title,
            text=self.text,
            graphs=(
                Graph(
                    title="Messages",
                    lines=(
                        _of_queue(self.queue, "NumberOfMessagesSent", "Sum", "arrived"),
                        _of_queue(self.queue, "NumberOfMessagesDeleted", "Sum", "done"),
                        _of_queue(self.queue, "ApproximateNumberOfMessagesVisible", "Maximum", "waiting"),
                        self._dead,
                    ),
                ),
                Graph(title="Lag", lines=(self._oldest,), limit=self.late_seconds, unit="s"),
                Graph(
                    title="Function",
                    lines=(
                        self._of_function("Invocations", "Sum", "runs"),
                        self._errors,
                        self._of_function("Throttles", "Sum", "throttled"),
                    ),
                ),
                Graph(
                    title="Duration",
                    lines=(
                        self._of_function("Duration", "p50", "p50"),
                        self._of_function("Duration", "p99", "p99"),
                    ),
                    unit="ms",
                ),
            ),
        )

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Alarms of the path."""
        return (
            Watch(
                id=f"{self.id}DeadLetters",
                happened=f"{self.title}: messages could not be worked off, so {self.consequence}.",
                advice="The function's log says why. Repair it, then redrive the dead-letter queue (SQS "
                "console, Start DLQ redrive) within 14 days.",
                reading=self._dead,
                threshold=0,
            ),
            Watch(
                id=f"{self.id}Lag",
                happened=f"{self.title}: the oldest message waits longer than {self.late_seconds // 60} "
                f"minutes, so {self.consequence}.",
                advice="A large import catches up by itself; otherwise see errors and throttles of the "
                "function on the dashboard.",
                reading=self._oldest,
                threshold=self.late_seconds,
                periods=2,
            ),
            Watch(
                id=f"{self.id}Errors",
                happened=f"{self.title}: the function has failed for a quarter of an hour.",
                advice="Its log says why. Messages are tried again until they go to the dead letters.",
                reading=self._errors,
                threshold=0,
                periods=3,
            ),
        )

    @property
    def _dead(self) -> Reading:
        return _of_queue(self.dead_letters, "ApproximateNumberOfMessagesVisible", "Maximum", "dead letters")

    @property
    def _oldest(self) -> Reading:
        return _of_queue(self.queue, "ApproximateAgeOfOldestMessage", "Maximum", "oldest message")

    @property
    def _errors(self) -> Reading:
        return self._of_function("Errors", "Sum", "failed")

    def _of_function(self, metric: str, statistic: str, label: str) -> Reading:
        return aws_metric("AWS/Lambda", metric, "FunctionName").of(
            statistic=statistic, label=label, FunctionName=self.function.function_name
        )


def _of_queue(queue: sqs.IQueue, metric: str, statistic: str, label: str) -> Reading:
    return aws_metric("AWS/SQS", metric, "QueueName").of(
        statistic=statistic, label=label, QueueName=queue.queue_name
    )
