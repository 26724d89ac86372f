"""A bundle's training configuration with the platform's overlay.

From the bundle come transforms, network, loss, optimizer, schedule, inferers, metrics and the trainer itself.
The overlay replaces datasets and loaders, and the handlers that write files or validate on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from training.configuration.bundle import Bundle
from training.configuration.layout import Engine, find_layout, schedule_handler
from training.configuration.modules import modules_digest
from training.configuration.overrides import change_bundle
from training.configuration.parts import build, components, follow, prepare_for_memory, read_raw, target_name
from training.configuration.references import closure, preparation_digest
from training.errors import BundleError, JobConfigurationError

Section = Literal["train", "validate"]

REPLACED_HANDLERS = frozenset(
    {"ValidationHandler", "CheckpointSaver", "CheckpointLoader", "StatsHandler", "MetricsSaver"}
    | {"TensorBoardHandler", "TensorBoardStatsHandler", "TensorBoardImageHandler", "MLFlowHandler"}
    | {"EarlyStopHandler", "LogfileHandler", "MetricLogger"}
)
"""Handlers whose work the platform does itself, by steps and through SageMaker."""

_DROP_AN_AXIS = frozenset({"SqueezeDimd", "SqueezeDim"})
"""Transforms that make an image of a slice."""

_PLATFORM = "platform"
"""The key below which the platform keeps what a bundle has no place for."""


@dataclass(frozen=True, kw_only=True)
class _Length:
    """How long to train: steps, epochs, or what the bundle says."""

    steps: int | None
    epochs: int | None


class TrainingConfiguration:
    """A bundle's `train.json` (or `.yaml`) with the overrides of a job and the platform's overlay.

    Args:
        bundle: The bundle.
        max_steps: Optimizer steps.
        max_epochs: Times through the training cases. Without either the bundle's own `max_steps` counts, else
            its trainer's `max_epochs`.
        seed: None takes the bundle's own `seed`, else 0.
        batch_size: Items a rank and micro-batch; None takes the bundle's.
        overrides: Values by key of `train.json`, as `network_def#norm`; and `overlays` and `classes`, which
            `training.configuration.overrides` explains.
        amp: Mixed precision: as the bundle says ("auto", on a GPU only), "on" or "off".
        accumulate: Micro-batches an optimizer step.

    Attributes:
        bundle: The bundle, with the channels that this job trains.
        seed: Of initial weights, sampling and augmentation.

    Raises:
        BundleError: The configuration cannot be read, lacks a part or has no place for an override.
        JobConfigurationError: The parameters exclude each other.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        amp: str = "auto",
        accumulate: int = 1,
    ) -> None:
        if max_steps is not None and max_epochs is not None:
            msg = "Give max_steps or max_epochs, not both"
            raise JobConfigurationError(msg)
        if amp == "on" and not torch.cuda.is_available():
            msg = "amp is 'on' and the instance has no GPU: take another instance type, or amp 'auto'"
            raise JobConfigurationError(msg)
        self._length = _Length(steps=max_steps, epochs=max_epochs)
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._built: dict[str, Any] = {}
        changed = change_bundle(bundle, overrides or {})
        self.bundle = changed.bundle
        self._parser = ConfigParser(changed.train)
        prepare_for_memory(self._parser, bundle)
        self._layout = find_layout(self._parser, bundle)
        self.seed = seed if seed is not None else self._number("seed", default=0)
        self._steps = max_steps if max_steps is not None else self._own_steps()
        if self._steps is not None:
            # Schedules of bundles span the training by this key.
            self._set("max_steps", self._steps)
        self._require_volumes()
        self._set_amp(amp)
        code = modules_digest(bundle.root)
        self._fingerprints: dict[str, str] = {}
        for engine in (self._layout.trainer, self._layout.evaluator):
            if engine is not None:
                self._drop_handlers(engine)
                # Now, since objects take the place of configuration later.
                key = engine.preprocessing
                self._fingerprints[key] = preparation_digest(self._parser, key, code=code)

    @property
    def channels(self) -> Mapping[str, int]:
        """Number by name of what is trained: `Bundle.channels` after the overrides."""
        return self.bundle.channels

    @property
    def max_steps(self) -> int:
        """Optimizer steps; where epochs say how long, known once `bring_loaders` was called."""
        if self._steps is None:
            msg = "bring_loaders has not been called: how many steps an epoch has is not known"
            raise RuntimeError(msg)
        return self._steps

    @property
    def batch_size(self) -> int:
        """Items a rank and micro-batch; each may give several patches."""
        if self._batch_size is not None:
            return self._batch_size
        return self._number(f"{self._layout.trainer.loader}#batch_size", default=1)

    @property
    def accumulate(self) -> int:
        """Micro-batches an optimizer step."""
        return self._accumulate

    @property
    def validates(self) -> bool:
        """Whether the bundle says how to validate: an evaluator with a key metric."""
        return self.key_metric_name is not None

    @property
    def key_metric_name(self) -> str | None:
        """The metric by which the best weights are chosen, such as `val_mean_dice`."""
        evaluator = self._layout.evaluator
        if evaluator is None:
            return None
        metrics = self._parser.get(follow(self._parser, f"{evaluator.key}#key_val_metric"))
        return next(iter(metrics), None) if isinstance(metrics, dict) else None

    def use_metric(self, name: str) -> None:
        """Makes an additional metric of the evaluator the key metric, in the place of one that is undefined
        here: there is no area under a ROC curve where all validation cases are of one class.

        Raises:
            BundleError: The evaluator has no such metric.
        """
        evaluator = self._engine("validate")
        keys = [f"{evaluator.key}#{kind}" for kind in ("key_val_metric", "additional_metrics")]
        own, others = (self._parser.get(follow(self._parser, key)) for key in keys)
        known = {**(own or {}), **(others or {})}
        if name not in known:
            msg = f"{self.bundle.name}: the evaluator has no metric {name} (it has {', '.join(known)})"
            raise BundleError(msg)
        self._set(keys[0], {name: known[name]})
        self._set(keys[1], None)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The evaluator's metrics, the key metric first."""
        evaluator = self._layout.evaluator
        if evaluator is None:
            return ()
        keys = (f"{evaluator.key}#{kind}" for kind in ("key_val_metric", "additional_metrics"))
        found = (self._parser.get(follow(self._parser, key)) for key in keys)
        return tuple(name for metrics in found if isinstance(metrics, dict) for name in metrics)

    def preprocessing(self, section: Section) -> Compose:
        """The transforms of training or validation cases, without those that read files.

        Raises:
            BundleError: The bundle has no such section, or the transforms cannot be built.
        """
        key = self._engine(section).preprocessing
        if key not in self._built:
            chain = self.part(key)
            if not isinstance(chain, Compose):
                chain = Compose(chain)
            self._built[key] = chain
            # Inversions look for the very objects that were applied: building anew must not make others.
            self._set(key, chain)
        chain = self._built[key]
        assert isinstance(chain, Compose)
        return chain

    def preparation_fingerprint(self, section: Section) -> str:
        """SHA-256 of all in the bundle that decides what its deterministic transforms make of a case."""
        return self._fingerprints[self._engine(section).preprocessing]

    def bring_loaders(self, *, training: Any, validation: Any | None, steps_per_epoch: int) -> None:
        """Puts ready loaders in the place of the bundle's datasets and loaders.

        Args:
            training: Gives micro-batches.
            validation: Gives cases; None where there is nothing to validate on.
            steps_per_epoch: Optimizer steps of once through the training cases.

        Raises:
            JobConfigurationError: Nobody says how long to train.
        """
        trainer = self._layout.trainer
        epochs = self._length.epochs
        if self._steps is None:
            if epochs is None:
                epochs = self._number(f"{trainer.key}#max_epochs", default=0)
            if epochs < 1:
                msg = (
                    f"Bundle {self.bundle.name} does not say how long to train: give max_steps or max_epochs"
                )
                raise JobConfigurationError(msg)
            self._steps = epochs * steps_per_epoch
            self._set("max_steps", self._steps)
        epochs = -(-self._steps // steps_per_epoch)
        # The key that the trainer refers to: schedules may span the training by it too.
        self._set(follow(self._parser, f"{trainer.key}#max_epochs"), epochs)
        self._set(f"{trainer.key}#max_epochs", epochs)
        self._set(f"{trainer.key}#epoch_length", steps_per_epoch * self._accumulate)
        if self._accumulate > 1:
            self._set(f"{trainer.key}#accumulation_steps", self._accumulate)
            self._schedule_by_steps(trainer)
        self._set(trainer.loader, training)
        self._set(f"{trainer.key}#train_data_loader", training)
        evaluator = self._layout.evaluator
        if evaluator is not None and validation is not None:
            self._set(evaluator.loader, validation)
            self._set(f"{evaluator.key}#val_data_loader", validation)

    def distribute(self, *, rank: int, world_size: int, device: torch.device) -> None:
        """Trains on one device of a rank, and, where there are several ranks, as one of them.

        The trainer's network becomes a DistributedDataParallel; the evaluator keeps the bare network, since
        ranks validate different numbers of cases and must not wait for each other in between.

        Args:
            rank: Of this process.
            world_size: Ranks of the job; a process group must be there when parts are built.
            device: Of this rank.
        """
        if not 0 <= rank < world_size:
            msg = f"rank {rank} of {world_size}"
            raise ValueError(msg)
        self._set("device", device)
        for engine in (self._layout.trainer, self._layout.evaluator):
            if engine is not None:
                self._set(f"{engine.key}#device", device)
        if world_size == 1:
            return
        key = self._layout.trainer.network
        on_gpu = device.type == "cuda"
        bare = self._parser[key]
        self._set(
            _PLATFORM,
            {
                "bare": bare,
                # Each rank alone would normalise by a few patches. SyncBatchNorm is for GPUs only.
                "network": "$torch.nn.SyncBatchNorm.convert_sync_batchnorm(@platform#bare)"
                if on_gpu
                else "@platform#bare",
            },
        )
        self._set(
            key,
            {
                "_target_": "torch.nn.parallel.DistributedDataParallel",
                "module": "@platform#network",
                "device_ids": [device] if on_gpu else None,
                "find_unused_parameters": self._leaves_parameters_unused(),
            },
        )
        if self._layout.evaluator is not None:
            self._set(f"{self._layout.evaluator.key}#network", "@platform#network")

    def part(self, key: str) -> Any:
        """The object that a key of the configuration describes; always the same one.

        `trainer`, `evaluator`, `network`, `optimizer` and `lr_scheduler` are found wherever the bundle keeps
        them.

        Raises:
            BundleError: The bundle has no such key, or it cannot be built.
        """
        return build(self._parser, self.bundle, self._place(key))

    def has(self, key: str) -> bool:
        return self._place(key) in self._parser

    def _place(self, key: str) -> str:
        trainer, evaluator = self._layout.trainer, self._layout.evaluator
        places = {
            "train#trainer": trainer.key,
            "trainer": trainer.key,
            "train#dataloader": trainer.loader,
            "train#preprocessing": trainer.preprocessing,
            "network": trainer.network,
            "optimizer": follow(self._parser, f"{trainer.key}#optimizer"),
        }
        handler = schedule_handler(self._parser, trainer)
        if handler is not None:
            places["lr_scheduler"] = follow(self._parser, f"{handler}#lr_scheduler")
        if evaluator is not None:
            places |= {
                "validate#evaluator": evaluator.key,
                "evaluator": evaluator.key,
                "validate#preprocessing": evaluator.preprocessing,
            }
        return places.get(key, key)

    def _engine(self, section: Section) -> Engine:
        engine = self._layout.trainer if section == "train" else self._layout.evaluator
        if engine is None:
            msg = f"{self.bundle.name}: the configuration has no evaluator, so it cannot validate"
            raise BundleError(msg)
        return engine

    def _set(self, key: str, value: Any) -> None:
        # The parser forgets what it has built whenever something is set: set first, build later.
        self._parser.set(value, key)

    def _number(self, key: str, *, default: int) -> int:
        if self._parser.get(key) is None:
            return default
        value = build(self._parser, self.bundle, key)
        if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
            msg = f"{self.bundle.name}: {key.replace('#', '.')} is {value!r}, not a whole number"
            raise BundleError(msg)
        return int(value)

    def _require_volumes(self) -> None:
        """Refuses networks that look at images, unless the transforms make images of volumes."""
        chain = closure(self._parser, self._layout.trainer.preprocessing)
        if len(self.bundle.input_shape) == 3 and not any(components(list(chain.values()), _DROP_AN_AXIS)):
            msg = (
                f"{self.bundle.name}: the network looks at two-dimensional images, a case is a volume, and "
                f"no transform takes an axis away ({', '.join(sorted(_DROP_AN_AXIS))})"
            )
            raise BundleError(msg)

    def _own_steps(self) -> int | None:
        if self._length.epochs is not None or "max_steps" not in self._parser:
            return None
        return self._number("max_steps", default=0) or None

    def _set_amp(self, amp: str) -> None:
        if amp not in ("auto", "on", "off"):
            msg = f"amp is {amp!r}, not 'auto', 'on' or 'off'"
            raise JobConfigurationError(msg)
        if amp == "auto" and torch.cuda.is_available():
            return
        for engine in (self._layout.trainer, self._layout.evaluator):
            if engine is not None:
                self._set(f"{engine.key}#amp", amp == "on")

    def _drop_handlers(self, engine: Engine) -> None:
        if engine.handlers is None:
            return
        handlers = self._parser.get(engine.handlers)
        if not isinstance(handlers, list):
            place = engine.handlers.replace("#", ".")
            msg = f"{self.bundle.name}: {place} is no list: its handlers are out of sight"
            raise BundleError(msg)
        self._set(engine.handlers, [one for one in handlers if self._handler(one) not in REPLACED_HANDLERS])

    def _handler(self, config: Any) -> str:
        if isinstance(config, str) and config.startswith("@"):
            config = self._parser.get(follow(self._parser, config[1:]))
        return target_name(config)

    def _schedule_by_steps(self, trainer: Engine) -> None:
        key = schedule_handler(self._parser, trainer)
        handler = {} if key is None else self._parser.get(key)
        if handler.get("epoch_level", True) is False:
            handler["_target_"] = "training.configuration.schedule.OptimizerStepSchedule"
            handler["batches_per_step"] = self._accumulate

    def _leaves_parameters_unused(self) -> bool:
        """What the bundle's own overlay for several GPUs says about its network."""
        try:
            network = read_raw(self.bundle, "multi_gpu_train").get("network")
        except BundleError:
            return False
        return isinstance(network, dict) and network.get("find_unused_parameters") is True
