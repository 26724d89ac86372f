"""A learning rate schedule that counts optimizer steps, where a step takes several batches."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler


class OptimizerStepSchedule(LrScheduleHandler):  # type: ignore[misc]  # monai exports it without types
    """MONAI's handler at every optimizer step instead of every batch.

    Args:
        batches_per_step: Batches whose gradients an optimizer step adds up.
        options: Of `LrScheduleHandler`.
    """

    def __init__(self, *, batches_per_step: int, **options: Any) -> None:
        super().__init__(**options)
        self._batches_per_step = batches_per_step

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self._batches_per_step), self)
