"""Section `inference`: how models are served, and which arriving images go to which endpoint.

One class a mode (https://docs.aws.amazon.com/sagemaker/latest/dg/deploy-model-options.html), with the
settings that the mode has and no others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.environment.names import Section, Slug, pascal_case

Output = Literal["measurement-report", "snapshot", "nifti"]
"""What a container can make of a segmentation (runtime/results/outputs.py)."""


class _Served(Section):
    name: Slug
    outputs: tuple[Output, ...] = ()
    """What is made besides each DICOM SEG: `measurement-report`, a DICOM SR with the volume of each segment;
    `snapshot`, a secondary capture with its contours; `nifti`, the masks as NIfTI in the bucket of results.
    A classification is one DICOM SR, whatever is named here.
    """

    @property
    def logical_name(self) -> str:
        return pascal_case(self.name)


class _OnInstances(_Served):
    """Machines that scale between two numbers."""

    instance_type: str
    minimum_instances: Annotated[int, Field(ge=0, le=32)]
    maximum_instances: Annotated[int, Field(ge=1, le=32)]

    def endpoint_name(self, environment: str) -> str:
        """The endpoint's name.

        SageMaker refuses to change the instance type of an endpoint that scales
        (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html), so another type is
        another endpoint with another name; a new model is an update in place.
        """
        machine = self.instance_type.removeprefix("ml.").replace(".", "-")
        return f"monai-{environment}-{self.name}-{machine}"


class AsynchronousEndpoint(_OnInstances):
    """Requests wait in a queue, answers go to S3: for volumes, and the default."""

    mode: Literal["asynchronous"]
    task: Slug
    concurrent_invocations: Annotated[int, Field(ge=1, le=64)]
    """Requests that one instance works on at the same time."""
    backlog_per_instance: Annotated[float, Field(gt=0)]
    """Queued requests per instance that scaling aims at."""


class RealTimeEndpoint(_OnInstances):
    """Answers while the caller waits, within 60 seconds."""

    mode: Literal["real-time"]
    task: Slug
    minimum_instances: Annotated[int, Field(ge=1, le=32)]
    """Two or more are spread over two zones."""
    invocations_per_instance: Annotated[float, Field(gt=0)]
    """Requests a minute and instance that scaling aims at."""


class MultiModelEndpoint(_OnInstances):
    """Many models on the same CPU machines, loaded when they are first asked for. SageMaker offers GPUs for
    this mode only with another container than ours.
    """

    mode: Literal["multi-model"]
    minimum_instances: Annotated[int, Field(ge=1, le=32)]
    invocations_per_instance: Annotated[float, Field(gt=0)]


class ModelComponent(Section):
    """One model of an endpoint with inference components: its share of the machine."""

    task: Slug
    accelerators: Annotated[float, Field(ge=0, le=16)]
    memory_mib: Annotated[int, Field(ge=128)]
    copies: Annotated[int, Field(ge=1, le=32)]
    """Where the endpoint may have no machine at all, the copies at the start: they then go down to none."""
    maximum_copies: Annotated[int, Field(ge=1, le=32)]
    invocations_per_copy: Annotated[float, Field(gt=0)]
    """Requests a minute and copy that scaling aims at."""

    @property
    def logical_name(self) -> str:
        return pascal_case(self.task)


class ComponentEndpoint(_OnInstances):
    """Several models on one GPU, each with its share."""

    mode: Literal["inference-components"]
    models: Annotated[tuple[ModelComponent, ...], Field(min_length=1)]

    def component_name(self, environment: str, model: ModelComponent) -> str:
        """The name of the inference component that runs a model of this endpoint. It cannot move to another
        endpoint, so its name contains what makes another endpoint.
        """
        machine = self.instance_type.removeprefix("ml.").replace(".", "-")
        return f"monai-{environment}-{self.name}-{model.task}-{machine}"


class ServerlessEndpoint(_Served):
    """No machines of one's own: CPU, at most 6 GiB, no VPC. Only where no patient data is."""

    mode: Literal["serverless"]
    task: Slug
    memory_mib: Literal[1024, 2048, 3072, 4096, 5120, 6144]
    maximum_concurrency: Annotated[int, Field(ge=1, le=200)]

    def endpoint_name(self, environment: str) -> str:
        """The endpoint's name."""
        return f"monai-{environment}-{self.name}"


class BatchTransform(_Served):
    """A model for batch transform jobs, which are started by hand and leave nothing running."""

    mode: Literal["batch"]
    task: Slug
    instance_type: str
    instance_count: Annotated[int, Field(ge=1, le=16)]


Endpoint = Annotated[
    AsynchronousEndpoint
    | RealTimeEndpoint
    | MultiModelEndpoint
    | ComponentEndpoint
    | ServerlessEndpoint
    | BatchTransform,
    Field(discriminator="mode"),
]
"""A way to serve a model."""


class Rule(Section):
    """Which arriving image sets go to an endpoint. All conditions that are given have to hold."""

    name: Slug
    endpoint: Slug
    """An asynchronous endpoint."""
    modality: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")], ...], Field(min_length=1)]
    """Modality (0008,0060), any of these."""
    body_part: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")], ...] = ()
    """BodyPartExamined (0018,0015), any of these. Scanners often leave it out: an image set without it does
    not match.
    """
    series_description: Annotated[str, Field(min_length=1)] | None = None
    """Regular expression that SeriesDescription (0008,103E) contains, whatever its case."""
    minimum_instances: Annotated[int, Field(ge=1)] = 1
    """Localizers and scouts have few. An instance of several frames counts as many as it has frames."""


class Reconcile(Section):
    """The job that finds arriving image sets which no event brought to their endpoint."""

    every_minutes: Annotated[int, Field(ge=5, le=1440)] = 60
    after_minutes: Annotated[int, Field(ge=0, le=1440)] = 15
    """How long after the quiet period an image set that was not dispatched counts as missed. Long enough for
    the queue to work off a large import; too short costs nothing but requests that find themselves done.
    """
    days: Annotated[int, Field(ge=1, le=25)] = 7
    """How far it looks back. What has been dispatched is recorded for 30 days."""


class Inference(Section):
    """Every way in which models are served, and the rules of the event path."""

    quiet_seconds: Annotated[int, Field(ge=0, le=900)] = 60
    """An image set that arrives in parts is run when it has been left alone for so long. The most is SQS's
    longest delay.
    """
    reconcile: Reconcile = Reconcile()
    endpoints: tuple[Endpoint, ...]
    rules: tuple[Rule, ...] = ()
