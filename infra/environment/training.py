"""Section `training`: the models that an environment trains."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.environment.names import Section, Slug, pascal_case


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
    minimum_dice: Annotated[float, Field(ge=0, le=1)]
    """Default of the pipeline parameter MinimumDice: a model below it is not registered."""

    @property
    def logical_name(self) -> str:
        return pascal_case(self.name)


class Training(Section):
    """Every task of the environment."""

    tasks: tuple[Task, ...]
