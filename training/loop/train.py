"""A training job from manifest to model folder: the bundle's trainer, driven by steps."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import set_determinism

from training.configuration.bundle import Bundle, TrainingConfiguration, named_bundle
from training.data.cases import CaseReader, LazyCases, check_cases, read_manifest
from training.errors import DataError, DivergenceError, JobConfigurationError
from training.export.export import Provenance, export_model
from training.job.contract import TrainingJob
from training.loop.checkpoint import Checkpoints
from training.stopping import StopRequest

_LOG = logging.getLogger(__name__)

REPORT_EVERY = 10
"""Steps between two lines with the training loss."""

OpenReader = Callable[[Mapping[str, int]], CaseReader]
"""Makes the reader of cases for a bundle's channels."""


def train(job: TrainingJob, *, open_reader: OpenReader, stop: StopRequest) -> None:
    """Trains, and leaves a model folder that can be served.

    Args:
        job: Folders and hyperparameters.
        open_reader: Where cases come from.
        stop: Looked at between cases and between steps.

    Raises:
        TrainingError: The job cannot be done as asked.
        StoppedError: The job was stopped; its state is in the checkpoints.
    """
    started = time.monotonic()
    parameters = job.hyperparameters
    manifest = read_manifest(job.manifest_file)
    bundle = named_bundle(parameters.bundle)
    configuration = TrainingConfiguration(bundle, max_steps=parameters.max_steps, seed=parameters.seed)
    training, validation = manifest.split("train"), manifest.split("validation")
    if not training:
        msg = f"Manifest {job.manifest_file.name} has no case in its training split"
        raise DataError(msg)
    reader = open_reader(bundle.channels)
    check_cases([*training, *validation], reader)
    manifest_digest = hashlib.sha256(job.manifest_file.read_bytes()).hexdigest()
    _LOG.info(
        "bundle %s %s, %d training cases, %d validation cases, %d steps, seed %d",
        *(bundle.name, bundle.version, len(training), len(validation)),
        *(configuration.max_steps, configuration.seed),
    )

    set_determinism(configuration.seed)
    configuration.bring_data(
        training=LazyCases(training, reader, stop),
        validation=LazyCases(validation, reader, stop),
        steps_per_epoch=-(-len(training) // configuration.batch_size),
    )
    checkpoints = Checkpoints(
        job.checkpoint_dir,
        fingerprint=_fingerprint(manifest_digest, bundle, configuration),
    )
    loop = TrainingLoop(
        configuration,
        checkpoints,
        stop,
        validate_every=parameters.validate_every if validation else None,
        checkpoint_every=parameters.checkpoint_every,
    )
    _LOG.info("data ready after %.1f s", time.monotonic() - started)
    loop.run()
    export_model(
        bundle=bundle,
        network=loop.best_network(),
        folder=job.model_dir,
        provenance=Provenance(
            training_job=job.name,
            manifest_name=job.manifest_file.name,
            manifest_sha256=manifest_digest,
            datastore_id=manifest.datastore_id,
            cases={"train": len(training), "validation": len(validation)},
            bundle_sha256=bundle.digest(),
            hyperparameters=parameters.as_strings(),
            seed=configuration.seed,
            steps=configuration.max_steps,
            step_of_weights=loop.step_of_weights,
            device=str(loop.device),
        ),
    )
    _LOG.info("done after %.1f s", time.monotonic() - started)


class TrainingLoop:
    """The bundle's trainer with the platform's reporting, validation, checkpoints and stopping.

    Args:
        configuration: With data.
        checkpoints: Where state is kept; the newest is resumed.
        stop: Looked at after every step.
        validate_every: Steps between validations; None when there is nothing to validate on.
        checkpoint_every: Steps between checkpoints.

    Attributes:
        step_of_weights: The step whose weights `best_network` has; known after `run`.
    """

    def __init__(
        self,
        configuration: TrainingConfiguration,
        checkpoints: Checkpoints,
        stop: StopRequest,
        *,
        validate_every: int | None,
        checkpoint_every: int,
    ) -> None:
        self._max_steps = configuration.max_steps
        self._checkpoints = checkpoints
        self._stop = stop
        self._validate_every = validate_every
        self._checkpoint_every = checkpoint_every
        self._network: torch.nn.Module = configuration.part("network")
        self._optimizer = configuration.part("optimizer")
        self._scheduler = configuration.part("lr_scheduler") if configuration.has("lr_scheduler") else None
        self._loader = configuration.part("train#dataloader")
        self._evaluator: Any = configuration.part("validate#evaluator") if validate_every else None
        self._trainer = configuration.part("train#trainer")
        self._losses: list[float] = []
        self._best: float | None = None
        self.step_of_weights = configuration.max_steps
        self.device: torch.device = self._trainer.state.device
        self._trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        self._resume()

    def run(self) -> None:
        """Trains up to the last step.

        Raises:
            DivergenceError: The loss or the validation's key metric is not finite.
            StoppedError: Stopped; a checkpoint of the last step was saved.
        """
        if self._trainer.state.iteration < self._max_steps:
            self._trainer.run()
        step = self._trainer.state.iteration
        if step < self._max_steps:
            self._stop.check()
            msg = f"The bundle's trainer ended at step {step} of {self._max_steps}"
            raise JobConfigurationError(msg)

    def best_network(self) -> torch.nn.Module:
        """The network with the best validated weights, or the last ones where nothing was validated."""
        best = self._checkpoints.load_best() if self._best is not None else None
        if best is not None:
            self._network.load_state_dict(best["network"])
            self.step_of_weights = int(best["step"])
        return self._network

    def _after_step(self, engine: Engine) -> None:
        step = engine.state.iteration
        loss = float(from_engine(["loss"], first=True)(engine.state.output))
        if not math.isfinite(loss):
            msg = (
                f"The loss is {loss} at step {step}: training diverged. Try a lower learning rate in the "
                "bundle, or look for voxels that are not finite"
            )
            raise DivergenceError(msg)
        self._losses.append(loss)
        last = step >= self._max_steps
        if step % REPORT_EVERY == 0 or last:
            report(step, train_loss=math.fsum(self._losses) / len(self._losses))
            self._losses.clear()
        stopping = self._stop.requested and not last
        if self._validate_every and not stopping and (step % self._validate_every == 0 or last):
            self._validate(step)
        if step % self._checkpoint_every == 0 or last or stopping:
            self._save(step)
        if last or stopping:
            engine.terminate()

    def _validate(self, step: int) -> None:
        self._evaluator.run()
        state = self._evaluator.state
        report(step, **{name: float(value) for name, value in state.metrics.items()})
        metric = float(state.metrics[state.key_metric_name])
        if not math.isfinite(metric):
            msg = (
                f"{state.key_metric_name} is {metric} at step {step}: no weights can be called the best by it"
            )
            raise DivergenceError(msg)
        if self._best is None or self._evaluator.metric_cmp_fn(metric, self._best):
            self._best = metric
            self._checkpoints.save_best(step, {"network": self._network.state_dict()})

    def _save(self, step: int) -> None:
        scaler = self._trainer.scaler
        file = self._checkpoints.save(
            step,
            {
                "network": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "best": self._best,
                "losses": self._losses,
            },
        )
        _LOG.info("checkpoint %s", file.name)

    def _resume(self) -> None:
        state = self._checkpoints.load_newest()
        if state is None:
            return
        step = int(state["step"])
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        if state["scaler"] is not None:
            # The trainer makes its scaler when it starts.
            self._trainer.add_event_handler(
                Events.STARTED, lambda engine: engine.scaler.load_state_dict(state["scaler"])
            )
        self._best = state["best"]
        self._losses = list(state["losses"])
        self._loader.step = step
        epoch_length = self._trainer.state.epoch_length
        self._trainer.load_state_dict(
            {
                "iteration": step,
                "epoch_length": epoch_length,
                "max_epochs": self._trainer.state.max_epochs,
            }
        )
        _LOG.info("resumed after step %d", step)


def report(step: int, **metrics: float) -> None:
    """Prints metrics in the form that the job's metric definitions look for, one a line."""
    for name, value in metrics.items():
        print(f"step={step} {name}={value:.6g}", flush=True)


def _fingerprint(manifest_digest: str, bundle: Bundle, configuration: TrainingConfiguration) -> str:
    """What a checkpoint must agree with to be continued: anything else gives another training."""
    parts = (manifest_digest, bundle.name, bundle.digest(), configuration.max_steps, configuration.seed)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
