"""Section `training`: the models that an environment trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from infra.environment.names import Section, Slug, pascal_case

Metric = Literal["mean_dice", "auc", "accuracy", "balanced_accuracy"]
"""What a model can be judged by: keys of `metrics` in evaluation.json, from 0 to 1, of which more is better.
"""


class Task(Section):
    """One model that this environment trains: a MONAI bundle and the machine that trains it."""

    name: Slug
    bundle: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Name of the bundle in the training image."""
    instance_type: str
    other_instance_types: tuple[str, ...] = ()
    """What an execution may choose instead. All with local storage, or all without."""
    instance_count: Annotated[int, Field(ge=1, le=16)]
    spot: bool = False
    """Train on spare capacity: cheaper, and may be interrupted. Training then goes on from its checkpoint."""
    max_wait_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)] | None = None
    """With `spot`: how long waiting for capacity and training may take together."""
    evaluation_instance_type: str
    volume_size_gib: Annotated[int, Field(ge=1, le=16_384)]
    max_runtime_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)]
    max_steps: Annotated[int, Field(ge=1)]
    """Default of the pipeline parameter MaxSteps."""
    metric: Metric
    """What decides whether a model is registered, and whether it is better than the approved one."""
    minimum_score: Annotated[float, Field(ge=0, le=1)]
    """Default of the pipeline parameter MinimumScore: a model with less of `metric` is not registered."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Items that each GPU (or host without one) takes at a time; None: as the bundle says."""
    accumulate: Annotated[int, Field(ge=1)] | None = None
    """Such batches before each step of the optimizer; None: one."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Validations without a better score before training stops early; None: never."""

    @property
    def logical_name(self) -> str:
        return pascal_case(self.name)

    @property
    def hyperparameters(self) -> dict[str, str]:
        """What the task sets for every execution, as SageMaker's hyperparameters: strings."""
        wanted = {"batch_size": self.batch_size, "accumulate": self.accumulate, "patience": self.patience}
        return {name: str(value) for name, value in wanted.items() if value is not None}


class Training(Section):
    """Every task of the environment."""

    tasks: tuple[Task, ...]
