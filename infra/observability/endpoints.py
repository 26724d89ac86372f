"""What to watch of an endpoint, by the way in which it serves.

Each mode emits other metrics: an asynchronous endpoint has no `Invocations`, an endpoint with inference
components reports its requests by component. Endpoints have names that follow from the environment file
(`endpoint_name`), so they can be watched whether or not a model is deployed; until then they emit nothing.

Alarms that undo an update (5xx, latency) are with the endpoints, in the stack `inference`; here are those for
which only a person can do something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.environment import (
    AsynchronousEndpoint,
    BatchTransform,
    ComponentEndpoint,
    Endpoint,
    MultiModelEndpoint,
    ServerlessEndpoint,
)
from infra.inference.alarms import VARIANT
from infra.instances import has_nvidia_gpu
from infra.observability.alarms import Watch
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Reading, aws_metric

_MICROSECONDS = 1_000_000
_OLDEST_REQUEST_SECONDS = 3600
"""SageMaker drops a request after six hours; a machine that wakes takes ten minutes."""

_SLOW_SECONDS = 720
"""Asynchronous: four fifths of the 15 minutes after which SageMaker gives up."""

_SLOW_ANSWER_SECONDS = 45
"""Real-time: three quarters of the 60 seconds after which the caller gets an error."""

_FULL_PERCENT = 95


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Graphs and alarms of one endpoint."""

    row: Row
    watches: tuple[Watch, ...]


def watched(endpoint: Endpoint, *, environment: str) -> Iterator[Watched]:
    """What to watch of `endpoint`. Batch transform leaves nothing running: its jobs that fail are events."""
    if isinstance(endpoint, BatchTransform):
        return
    name = endpoint.endpoint_name(environment)
    if isinstance(endpoint, ComponentEndpoint):
        yield _of_components(endpoint, name=name, environment=environment)
    elif isinstance(endpoint, AsynchronousEndpoint):
        yield _asynchronous(endpoint, name=name)
    else:
        yield _answering(endpoint, name=name)


def _asynchronous(endpoint: AsynchronousEndpoint, *, name: str) -> Watched:
    def queue(metric: str, statistic: str, label: str) -> Reading:
        return aws_metric("AWS/SageMaker", metric, "EndpointName").of(
            statistic=statistic, label=label, EndpointName=name
        )

    oldest = queue("ApproximateAgeOfOldestRequest", "Maximum", "oldest request (s)")
    latency = _variant("ModelLatency", "Maximum", "longest", name=name)
    failed = _variant("InvocationFailures", "Sum", "failed", name=name)
    errors = _variant("Invocation5XXErrors", "Sum", "5xx", name=name)
    expired = _variant("ExpiredRequests", "Sum", "expired", name=name)
    undelivered = _variant("NotificationFailures", "Sum", "not announced", name=name)
    machine, machine_watches = _machine(endpoint.instance_type, name=name, id=endpoint.logical_name)
    return Watched(
        row=Row(
            title=f"Endpoint {endpoint.name} (asynchronous)",
            text="Requests wait in a queue. Zero instances and an empty queue are normal.",
            graphs=(
                Graph(
                    title="Waiting",
                    lines=(
                        queue("ApproximateBacklogSize", "Maximum", "requests"),
                        queue("ApproximateBacklogSizePerInstance", "Maximum", "requests per instance"),
                        queue("HasBacklogWithoutCapacity", "Maximum", "waiting for the first instance"),
                    ),
                ),
                Graph(title="Oldest request", lines=(oldest,), limit=_OLDEST_REQUEST_SECONDS, unit="s"),
                Graph(
                    title="Outcomes",
                    lines=(
                        _variant("InvocationsProcessed", "Sum", "answered", name=name),
                        failed,
                        errors,
                        expired,
                        undelivered,
                    ),
                ),
                Graph(
                    title="Time in the model",
                    lines=(
                        latency,
                        _variant("ModelLatency", "Average", "average", name=name),
                    ),
                    limit=_SLOW_SECONDS * _MICROSECONDS,
                    unit="µs",
                ),
                Graph(
                    title="Time in the queue",
                    lines=(_variant("TimeInBacklog", "Average", "average", name=name),),
                    unit="ms",
                ),
                *machine,
            ),
        ),
        watches=(
            Watch(
                id=f"{endpoint.logical_name}Oldest",
                happened=f"A request to endpoint {name} has been waiting for an hour.",
                advice="See whether instances start (quota, capacity, a container that fails its /ping), or "
                "raise maximum_instances in the environment file.",
                reading=oldest,
                threshold=_OLDEST_REQUEST_SECONDS,
            ),
            Watch(
                id=f"{endpoint.logical_name}Failures",
                happened=f"Requests to endpoint {name} failed.",
                advice="The answers below failures/ in the result bucket say why; send the requests again "
                "when it is repaired.",
                reading=failed,
                threshold=0,
            ),
            Watch(
                id=f"{endpoint.logical_name}Expired",
                happened=f"Requests to endpoint {name} expired in the queue: nobody will answer them.",
                advice="Find out why no instance took them, then send them again.",
                reading=expired,
                threshold=0,
            ),
            Watch(
                id=f"{endpoint.logical_name}Unannounced",
                happened=f"Endpoint {name} could not announce on its topics that requests ended: nobody "
                "hears of their results, and of those that failed none is noted.",
                advice="See whether the endpoint's role may publish to the topics and use their key. The "
                "answers are in the result bucket, below responses/ and failures/.",
                reading=undelivered,
                threshold=0,
            ),
            *machine_watches,
        ),
    )


def _answering(endpoint: Endpoint, *, name: str) -> Watched:
    """Real-time, multi-model and serverless: the caller waits."""
    id = endpoint.logical_name
    errors = _variant("Invocation5XXErrors", "Sum", "5xx", name=name)
    latency = _variant("ModelLatency", "p99", "p99", name=name)
    graphs = [
        Graph(
            title="Requests",
            lines=(
                _variant("Invocations", "Sum", "requests", name=name),
                _variant("Invocation4XXErrors", "Sum", "4xx", name=name),
                errors,
            ),
        ),
        Graph(
            title="Latency",
            lines=(
                latency,
                _variant("ModelLatency", "p50", "p50", name=name),
                _variant("OverheadLatency", "Average", "overhead", name=name),
            ),
            limit=_SLOW_ANSWER_SECONDS * _MICROSECONDS,
            unit="µs",
        ),
    ]
    watches: list[Watch] = []
    if isinstance(endpoint, ServerlessEndpoint):
        graphs.append(
            Graph(
                title="Cold starts",
                lines=(_variant("ModelSetupTime", "Maximum", "longest", name=name),),
                unit="µs",
            )
        )
    else:
        machine, machine_watches = _machine(endpoint.instance_type, name=name, id=id)
        graphs += machine
        watches += machine_watches
    if isinstance(endpoint, MultiModelEndpoint):
        graphs.append(
            Graph(
                title="Models in memory",
                lines=(
                    _variant("ModelCacheHit", "Average", "found in memory (share)", name=name),
                    _instance("LoadedModelCount", "Average", "loaded per instance", name=name),
                ),
            )
        )
    return Watched(
        row=Row(
            title=f"Endpoint {endpoint.name} ({endpoint.mode})",
            text="The caller waits for the answer: latency is what people feel.",
            graphs=tuple(graphs),
        ),
        watches=tuple(watches),
    )


def _of_components(endpoint: ComponentEndpoint, *, name: str, environment: str) -> Watched:
    components = {model.task: endpoint.component_name(environment, model) for model in endpoint.models}

    def reading(namespace: str, metric: str, statistic: str, task: str) -> Reading:
        return aws_metric(namespace, metric, "InferenceComponentName").of(
            statistic=statistic, label=task, InferenceComponentName=components[task]
        )

    def graph(
        title: str,
        namespace: str,
        metric: str,
        statistic: str,
        *,
        limit: float | None = None,
        unit: str = "",
    ) -> Graph:
        lines = tuple(reading(namespace, metric, statistic, task) for task in components)
        return Graph(title=title, lines=lines, limit=limit, unit=unit)

    own, served = "AWS/SageMaker", "/aws/sagemaker/InferenceComponents"
    watches: list[Watch] = []
    for model in endpoint.models:
        id = f"{endpoint.logical_name}{model.logical_name}"
        if model.accelerators:
            watches.append(
                Watch(
                    id=f"{id}GpuMemory",
                    happened=f"The GPU memory of component {components[model.task]} is nearly full.",
                    advice="Give it a larger share or a larger machine before requests fail.",
                    reading=reading(served, "GPUMemoryUtilizationNormalized", "Maximum", model.task),
                    threshold=_FULL_PERCENT,
                    periods=3,
                )
            )
    machine, machine_watches = _machine(
        endpoint.instance_type, name=name, id=endpoint.logical_name, gpu_alarm=False
    )
    return Watched(
        row=Row(
            title=f"Endpoint {endpoint.name} (inference components)",
            text="Several models share the machines; each has its own numbers.",
            graphs=(
                graph("Requests", own, "Invocations", "Sum"),
                graph("5xx", own, "Invocation5XXErrors", "Sum"),
                graph("Latency p99", own, "ModelLatency", "p99", unit="µs"),
                graph("GPU memory", served, "GPUMemoryUtilizationNormalized", "Maximum", limit=_FULL_PERCENT),
                *machine,
            ),
        ),
        watches=(*watches, *machine_watches),
    )


def _machine(
    instance_type: str, *, name: str, id: str, gpu_alarm: bool = True
) -> tuple[list[Graph], list[Watch]]:
    """The machines behind an endpoint. SageMaker adds up the GPUs of a machine: full is 100 % for each."""
    memory = _instance("MemoryUtilization", "Maximum", "memory", name=name)
    disk = _instance("DiskUtilization", "Maximum", "disk", name=name)
    graphs = [
        Graph(
            title="Machine",
            lines=(memory, disk, _instance("CPUUtilization", "Average", "CPU (sum of cores)", name=name)),
            unit="%",
        ),
        # Each instance sends one sample a minute.
        Graph(
            title="Instances",
            lines=(_instance("CPUUtilization", "SampleCount", "instances", name=name),),
            period_seconds=60,
        ),
    ]
    watches = [
        Watch(
            id=f"{id}Memory",
            happened=f"The memory of endpoint {name} is nearly full.",
            advice="The container is killed when it is: take a larger machine, or send smaller series.",
            reading=memory,
            threshold=_FULL_PERCENT,
            periods=3,
        )
    ]
    if has_nvidia_gpu(instance_type):
        gpu = _instance("GPUMemoryUtilization", "Maximum", "GPU memory", name=name)
        graphs.append(
            Graph(
                title="GPU",
                lines=(gpu, _instance("GPUUtilization", "Average", "GPU", name=name)),
                unit="%",
            )
        )
        if gpu_alarm and not _several_gpus(instance_type):
            watches.append(
                Watch(
                    id=f"{id}GpuMemory",
                    happened=f"The GPU memory of endpoint {name} is nearly full.",
                    advice="Requests fail when it is: a larger machine, or a smaller window of the model.",
                    reading=gpu,
                    threshold=_FULL_PERCENT,
                    periods=3,
                )
            )
    return graphs, watches


def _several_gpus(instance_type: str) -> bool:
    """Whether the sum over the machine's GPUs says nothing about the one that our container uses. Such
    machines are for inference components, which have a figure of their own.
    """
    family, size = instance_type.split(".")[1:]
    return family.startswith("p") or size in ("12xlarge", "24xlarge", "48xlarge")


def _variant(metric: str, statistic: str, label: str, *, name: str) -> Reading:
    return aws_metric("AWS/SageMaker", metric, "EndpointName", "VariantName").of(
        statistic=statistic, label=label, EndpointName=name, VariantName=VARIANT
    )


def _instance(metric: str, statistic: str, label: str, *, name: str) -> Reading:
    return aws_metric("/aws/sagemaker/Endpoints", metric, "EndpointName", "VariantName").of(
        statistic=statistic, label=label, EndpointName=name, VariantName=VARIANT
    )
