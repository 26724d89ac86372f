"""SageMaker's container contract: where things lie, what the job was asked for, how it says that it failed.

Sources: Amazon SageMaker AI Developer Guide, "How Amazon SageMaker AI Provides Training Information", "How
Amazon SageMaker AI Processes Training Output", "Build Your Own Processing Container", "Save and Access
Metadata Information About Your Processing Job". The SM_* variables are those of the SageMaker Training
Toolkit, which the SDK's ModelTrainer sets too; where one is set it wins over the file.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import JobConfigurationError, TrainingError

FAILURE_CHARACTERS = 1024
"""SageMaker keeps this much of a failure text."""

MANIFEST_CHANNEL = "manifest"


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a training job may be told.

    Attributes:
        bundle: Name of a bundle in this image.
        max_steps: Optimizer steps of the whole training; None leaves it to the bundle.
        seed: Of initial weights, sampling and augmentation; None leaves it to the bundle.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
    """

    bundle: str = "ct_segmentation"
    max_steps: int | None = None
    seed: int | None = None
    validate_every: int = 50
    checkpoint_every: int = 50

    @classmethod
    def from_strings(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Reads hyperparameters as SageMaker passes them: every value is a string.

        The SDK's version 3 writes each value as JSON into the string, so that text arrives in quotes.
        Names that start with `sagemaker_` (the SDK's) or `_` (the tuner's) are not ours and are passed over.

        Raises:
            JobConfigurationError: Unknown names and unusable values, all at once.
        """
        problems: list[str] = []
        read: dict[str, Any] = {}
        for name, text in values.items():
            if name.startswith(("sagemaker_", "_")):
                continue
            value = _unquoted(str(text))
            if name == "bundle":
                read[name] = value
                # The name becomes a path: it must stay in the folder of bundles.
                if not value.replace("_", "").isalnum():
                    problems.append(f"bundle is {value!r}, not letters, digits and underscores")
            elif name in ("max_steps", "seed", "validate_every", "checkpoint_every"):
                lowest = 0 if name == "seed" else 1
                if value.isdecimal() and lowest <= int(value) < 2**31:
                    read[name] = int(value)
                else:
                    problems.append(f"{name} is {value!r}, not a whole number from {lowest}")
            else:
                problems.append(f"{name} is unknown (known: {', '.join(cls.__annotations__)})")
        if problems:
            raise JobConfigurationError("Hyperparameters: " + "; ".join(problems))
        return cls(**read)

    def as_strings(self) -> dict[str, str]:
        """What was decided, for the provenance record; what was left to the bundle is left out."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training job's folders and parameters."""

    name: str
    hyperparameters: Hyperparameters
    manifest_file: Path
    model_dir: Path
    checkpoint_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> TrainingJob:
        """Reads `/opt/ml/input`, or the same below `SAGEMAKER_BASE_DIR`.

        Raises:
            JobConfigurationError: A file is missing or malformed, or the job has more hosts than one.
        """
        base = base_directory(environ)
        config = base / "input" / "config"
        values = (
            _json(environ["SM_HPS"], "SM_HPS")
            if environ.get("SM_HPS")
            else _json_file(config / "hyperparameters.json")
        )
        resources = _json_file(config / "resourceconfig.json")
        hosts = _json(environ["SM_HOSTS"], "SM_HOSTS") if environ.get("SM_HOSTS") else resources.get("hosts")
        if hosts and len(hosts) > 1:
            msg = f"The job has {len(hosts)} hosts; this image trains on one"
            raise JobConfigurationError(msg)
        channel = environ.get(f"SM_CHANNEL_{MANIFEST_CHANNEL.upper()}")
        return cls(
            name=environ.get("TRAINING_JOB_NAME", "training"),
            hyperparameters=Hyperparameters.from_strings(values),
            manifest_file=manifest_file(
                Path(channel) if channel else base / "input" / "data" / MANIFEST_CHANNEL
            ),
            model_dir=Path(environ.get("SM_MODEL_DIR") or base / "model"),
            checkpoint_dir=base / "checkpoints",
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """A processing job's folders, as the pipeline's Evaluate step lays them out."""

    model_dir: Path
    """Holds model.tar.gz, or the bundle unpacked."""
    manifest_file: Path
    output_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> EvaluationJob:
        """Reads `/opt/ml/processing`, or the same below `SAGEMAKER_BASE_DIR`.

        Raises:
            JobConfigurationError: The manifest is not there.
        """
        processing = base_directory(environ) / "processing"
        return cls(
            model_dir=processing / "input" / "model",
            manifest_file=manifest_file(processing / "input" / MANIFEST_CHANNEL),
            output_dir=processing / "output" / "evaluation",
        )


def base_directory(environ: Mapping[str, str] = os.environ) -> Path:
    return Path(environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def manifest_file(folder: Path) -> Path:
    """The one manifest of a channel.

    Raises:
        JobConfigurationError: None, or several.
    """
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        msg = f"The channel {folder.name} must hold one manifest (*.json), it holds {names}"
        raise JobConfigurationError(msg)
    return found[0]


def describe_failure(error: BaseException) -> str:
    """A text for the job's failure reason, at most `FAILURE_CHARACTERS` long.

    Our own errors say what is wrong. Any other error gets the place where it was raised, since its text
    alone ("KeyError: 'x'") helps nobody; a text too long keeps its beginning.
    """
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, TrainingError):
        steps = traceback.extract_tb(error.__traceback__)[-4:]
        text += " | at " + " < ".join(f"{Path(s.filename).name}:{s.lineno} {s.name}" for s in reversed(steps))
    return text if len(text) <= FAILURE_CHARACTERS else text[: FAILURE_CHARACTERS - 3] + "..."


def write_failure(text: str, *, file: Path) -> None:
    """Writes `/opt/ml/output/failure` (training) or `/opt/ml/output/message` (processing)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        msg = f"{where} is not JSON"
        raise JobConfigurationError(msg) from error


def _json_file(file: Path) -> dict[str, Any]:
    """A configuration file's object; a job without hyperparameters may come without the file."""
    if not file.exists():
        return {}
    value = _json(file.read_text(encoding="utf-8"), file.name)
    if not isinstance(value, dict):
        msg = f"{file.name} is not an object"
        raise JobConfigurationError(msg)
    return value
