"""The bundle's trainer with the platform's validation, checkpoints, reporting and stopping."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from torch.nn.parallel import DistributedDataParallel

from training.configuration.training import TrainingConfiguration
from training.data.sampling import StepLoader
from training.errors import DivergenceError, JobConfigurationError
from training.loop.checkpoint import Checkpoints
from training.loop.random_state import random_state, restore_random_state
from training.loop.ranks import Ranks
from training.loop.reporting import InputClock, report
from training.stopping import StoppedError, StopRequest

_LOG = logging.getLogger(__name__)

REPORT_EVERY = 10
"""Optimizer steps between two lines with the training loss."""

EPOCHS_TOLD = 3
"""How many epochs get a line of their own where they are shorter than `REPORT_EVERY` batches."""


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """What happens how often, in optimizer steps.

    Attributes:
        validate_every: Steps between validations; None where there is nothing to validate on.
        checkpoint_every: Steps between checkpoints.
        patience: Validations without a better key metric after which training ends; 0: never.
    """

    validate_every: int | None
    checkpoint_every: int
    patience: int


class TrainingLoop:
    """Trains by optimizer steps. All ranks do the same; the first one speaks and writes.

    Args:
        configuration: With loaders.
        loader: Of the training cases.
        checkpoints: Where state is kept; the newest is resumed.
        ranks: This process among the others.
        stop: Looked at after every step.
        rhythm: What happens how often.

    Attributes:
        step_of_weights: The step whose weights `best_network` has.
        last_step: The step after which training ended; below the configuration's where patience ended it.
    """

    def __init__(
        self,
        configuration: TrainingConfiguration,
        *,
        loader: StepLoader,
        checkpoints: Checkpoints,
        ranks: Ranks,
        stop: StopRequest,
        rhythm: Rhythm,
    ) -> None:
        self._max_steps = configuration.max_steps
        self._accumulate = configuration.accumulate
        self._loader = loader
        self._checkpoints = checkpoints
        self._ranks = ranks
        self._stop = stop
        self._rhythm = rhythm
        network = configuration.part("network")
        self._network: torch.nn.Module = (
            network.module if isinstance(network, DistributedDataParallel) else network
        )
        self._optimizer = configuration.part("optimizer")
        self._scheduler = configuration.part("lr_scheduler") if configuration.has("lr_scheduler") else None
        self._evaluator: Any = configuration.part("evaluator") if rhythm.validate_every else None
        self._trainer = configuration.part("trainer")
        self._clock = InputClock(loader=loader)
        self._losses: list[float] = []
        self._micro_losses: list[float] = []
        self._best: dict[str, Any] | None = None
        self._without_better = 0
        self._to_validate = False
        self._finished = False
        self._stopping = self._asked_to_stop = False
        self._epoch_began = time.perf_counter()
        self.last_step = 0
        self.step_of_weights = 0
        self._trainer.add_event_handler(Events.STARTED, self._start)
        self._trainer.add_event_handler(Events.ITERATION_STARTED, lambda engine: self._begin_micro())
        self._trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_micro)
        # Added last: schedules of the bundle that count epochs have done their step by then.
        self._trainer.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        self._scaler_state: Any = None
        self._resume()

    def run(self) -> None:
        """Trains up to the last step.

        Raises:
            DivergenceError: The loss or the validation's key metric is not finite.
            StoppedError: Stopped; a checkpoint of the last step was saved.
        """
        if self._to_validate and not self._finished:
            # It was due when the training was interrupted.
            self._validate(self.last_step)
        if self.last_step < self._max_steps and not self._finished:
            self._trainer.run()
        if self._stopping:
            raise StoppedError
        if self.last_step < self._max_steps and not self._finished:
            msg = f"The bundle's trainer ended at step {self.last_step} of {self._max_steps}"
            raise JobConfigurationError(msg)

    def best_network(self) -> torch.nn.Module:
        """The network with the best validated weights, or the last ones where nothing was validated."""
        self.step_of_weights = self.last_step
        if self._best is not None:
            self._network.load_state_dict(self._best["network"])
            self.step_of_weights = int(self._best["step"])
        return self._network

    def _start(self, engine: Engine) -> None:
        # The trainer makes its scaler when it starts.
        if self._scaler_state is not None and engine.scaler is not None:
            engine.scaler.load_state_dict(self._scaler_state)
        self._epoch_began = time.perf_counter()

    def _begin_micro(self) -> None:
        if not self._micro_losses:
            self._clock.begin()

    def _after_micro(self, engine: Engine) -> None:
        self._micro_losses.append(float(from_engine(["loss"], first=True)(engine.state.output)))
        if engine.state.iteration % self._accumulate:
            return
        step = engine.state.iteration // self._accumulate
        loss = math.fsum(self._micro_losses) / len(self._micro_losses)
        self._micro_losses.clear()
        self._clock.end()
        asked, loss = self._ranks.agree(stop=self._stop.requested, loss=loss)
        if not math.isfinite(loss):
            msg = (
                f"The loss is {loss} at step {step}: training diverged. Try a lower learning rate in the "
                "bundle, or look for voxels that are not finite"
            )
            raise DivergenceError(msg)
        self._losses.append(loss)
        self._asked_to_stop = asked
        # The last step of an epoch is over when the epoch is: what a checkpoint holds must have all of it.
        if engine.state.iteration % engine.state.epoch_length:
            self._after_step(engine, step, asked_to_stop=asked)

    def _after_step(self, engine: Engine, step: int, *, asked_to_stop: bool) -> None:
        self.last_step = step
        last = step >= self._max_steps
        self._stopping = asked_to_stop and not last
        if step % REPORT_EVERY == 0 or last:
            self._report(step, train_loss=math.fsum(self._losses) / len(self._losses))
            if self._ranks.is_first:
                self._clock.tell(step)
            self._losses.clear()
        every = self._rhythm.validate_every
        self._to_validate = bool(every) and (step % (every or 1) == 0 or last)
        if self._to_validate or self._stopping or step % self._rhythm.checkpoint_every == 0 or last:
            # Before validating, which may take longer than a machine that is reclaimed has.
            self._save(engine, step)
        if self._stopping:
            engine.terminate()
        elif self._to_validate:
            self._validate(step)
            if self._finished:
                _LOG.info("no better validation for %d times: training ends", self._rhythm.patience)
        if last or self._finished:
            self._finished = True
            self._save(engine, step)
            engine.terminate()

    def _after_epoch(self, engine: Engine) -> None:
        seconds = time.perf_counter() - self._epoch_began
        # With a few cases an epoch is a step, and the log would be nothing but epochs.
        telling = engine.state.epoch <= EPOCHS_TOLD or engine.state.epoch_length >= REPORT_EVERY
        if self._ranks.is_first and telling:
            waited = self._clock.epoch_waited
            told = f"seconds={seconds:.2f} input_wait_seconds={waited:.3f}"
            print(f"epoch={engine.state.epoch} {told}", flush=True)
        self._clock.epoch_waited = 0.0
        step = engine.state.iteration // self._accumulate
        self._after_step(engine, step, asked_to_stop=self._asked_to_stop)
        self._epoch_began = time.perf_counter()

    def _validate(self, step: int) -> None:
        self._evaluator.run()
        self._to_validate = False
        state = self._evaluator.state
        self._report(step, **_numbers(state.metrics))
        metric = float(state.metrics[state.key_metric_name])
        if not math.isfinite(metric):
            msg = (
                f"{state.key_metric_name} is {metric} at step {step}: no weights can be called the best by it"
            )
            raise DivergenceError(msg)
        if self._best is None or self._evaluator.metric_cmp_fn(metric, self._best["metric"]):
            weights = {name: value.cpu() for name, value in self._network.state_dict().items()}
            self._best = {"metric": metric, "step": step, "network": deepcopy(weights)}
            self._without_better = 0
        else:
            self._without_better += 1
        self._finished = 0 < self._rhythm.patience <= self._without_better

    def _report(self, step: int, **metrics: float) -> None:
        if self._ranks.is_first:
            report(step, **metrics)

    def _save(self, engine: Engine, step: int) -> None:
        if not self._ranks.is_first:
            return
        scaler = engine.scaler
        file = self._checkpoints.save(
            step,
            {
                "network": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "random": random_state(),
                "best": self._best,
                "without_better": self._without_better,
                "to_validate": self._to_validate,
                "finished": self._finished,
                "losses": self._losses,
            },
        )
        if file is not None:
            _LOG.info("checkpoint %s", file.name)

    def _resume(self) -> None:
        # The hosts' folders may differ, as each was copied at its own time: the first rank's counts.
        state = self._ranks.from_first(self._checkpoints.load_newest() if self._ranks.is_first else None)
        if state is None:
            return
        step = self.last_step = int(state["step"])
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self._scaler_state = state["scaler"]
        restore_random_state(state["random"])
        self._best = state["best"]
        self._without_better = int(state["without_better"])
        self._to_validate = bool(state["to_validate"]) and self._evaluator is not None
        self._finished = bool(state["finished"])
        self._losses = list(state["losses"])
        self._loader.set_step(step)
        trainer = self._trainer.state
        self._trainer.load_state_dict(
            {
                "iteration": step * self._accumulate,
                "epoch_length": trainer.epoch_length,
                "max_epochs": trainer.max_epochs,
            }
        )
        if self._ranks.is_first:
            _LOG.info("resumed after step %d", step)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that are one number; others, such as those of each class, are the bundle's own affair."""
    found = {}
    for name, value in metrics.items():
        if (isinstance(value, torch.Tensor) and value.numel() == 1) or isinstance(value, int | float):
            found[name] = float(value)
    return found
