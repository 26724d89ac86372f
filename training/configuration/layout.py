"""Where a training configuration keeps its pieces: found by following references from the trainer.

The model zoo has two habits, `train#trainer` with `validate#evaluator` and `trainer` with `evaluator` at the
top. What a trainer uses is told by its arguments, whatever the keys are called.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai.bundle import ConfigParser

from training.configuration.bundle import Bundle
from training.configuration.parts import follow, target_name
from training.errors import BundleError

TRAINERS = ("train#trainer", "trainer")
EVALUATORS = ("validate#evaluator", "evaluator")
SCHEDULES = ("LrScheduleHandler", "OptimizerStepSchedule")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Keys of an engine (trainer or evaluator) and of what it uses.

    Attributes:
        key: The engine.
        loader: Its data loader.
        preprocessing: The transforms of its data.
        handlers: Its handlers; None where it has none.
        network: Its network.
    """

    key: str
    loader: str
    preprocessing: str
    handlers: str | None
    network: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Keys of the trainer and, where the bundle validates, of the evaluator."""

    trainer: Engine
    evaluator: Engine | None


def find_layout(parser: ConfigParser, bundle: Bundle) -> Layout:
    """Finds the engines of a configuration whose macros are resolved.

    Raises:
        BundleError: There is no trainer, an engine is not MONAI's own, or its transforms are out of sight.
    """
    trainer = next((key for key in TRAINERS if key in parser), None)
    if trainer is None:
        msg = f"{bundle.name}: the configuration has neither train.trainer nor trainer"
        raise BundleError(msg)
    evaluator = next((key for key in EVALUATORS if parser.get(key)), None)
    return Layout(
        trainer=_engine(parser, bundle, trainer, "SupervisedTrainer", "train"),
        evaluator=None
        if evaluator is None
        else _engine(parser, bundle, evaluator, "SupervisedEvaluator", "val"),
    )


def schedule_handler(parser: ConfigParser, trainer: Engine) -> str | None:
    """The key of the handler that moves the learning rate; None where the trainer has none."""
    handlers = trainer.handlers or ""
    for place in range(len(parser.get(handlers, None) or ())):
        key = follow(parser, f"{handlers}#{place}")
        if target_name(parser.get(key)) in SCHEDULES:
            return key
    return None


def _engine(parser: ConfigParser, bundle: Bundle, key: str, kind: str, prefix: str) -> Engine:
    config = parser.get(key)
    if target_name(config) != kind:
        named = target_name(config) or "an expression"
        msg = f"{bundle.name}: {_dotted(key)} is {named}; the platform drives MONAI's {kind}"
        raise BundleError(msg)
    loader = follow(parser, f"{key}#{prefix}_data_loader")
    dataset = follow(parser, f"{loader}#dataset")
    preprocessing = follow(parser, f"{dataset}#transform")
    if preprocessing not in parser:
        msg = (
            f"{bundle.name}: the transforms of {_dotted(key)} cannot be found: its data loader must be a "
            f"component with a dataset, and that one a component with a transform"
        )
        raise BundleError(msg)
    handlers = f"{key}#{prefix}_handlers"
    return Engine(
        key=key,
        loader=loader,
        preprocessing=preprocessing,
        handlers=follow(parser, handlers) if parser.get(handlers) is not None else None,
        network=follow(parser, f"{key}#network"),
    )


def _dotted(key: str) -> str:
    return key.replace("#", ".")
