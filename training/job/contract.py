"""SageMaker's container contract: where things lie and what the job was asked for.

Sources: Amazon SageMaker AI Developer Guide, "How Amazon SageMaker AI Provides Training Information", "How
Amazon SageMaker AI Processes Training Output", "Build Your Own Processing Container", "Save and Access
Metadata Information About Your Processing Job". The SM_* variables are those of the SageMaker Training
Toolkit, which the SDK's ModelTrainer sets too; where one is set it wins over the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import JobConfigurationError
from training.job.cluster import Cluster
from training.job.hyperparameters import Hyperparameters

MANIFEST_CHANNEL = "manifest"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training job's folders and parameters."""

    name: str
    hyperparameters: Hyperparameters
    cluster: Cluster
    manifest_file: Path
    model_dir: Path
    checkpoint_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> TrainingJob:
        """Reads `/opt/ml/input`, or the same below `SAGEMAKER_BASE_DIR`.

        Raises:
            JobConfigurationError: A file is missing or malformed.
        """
        base = base_directory(environ)
        config = base / "input" / "config"
        values = (
            _json(environ["SM_HPS"], "SM_HPS")
            if environ.get("SM_HPS")
            else _json_file(config / "hyperparameters.json")
        )
        hyperparameters = Hyperparameters.from_strings(values)
        channel = environ.get(f"SM_CHANNEL_{MANIFEST_CHANNEL.upper()}")
        return cls(
            name=environ.get("TRAINING_JOB_NAME", "training"),
            hyperparameters=hyperparameters,
            cluster=Cluster.from_resources(
                _json_file(config / "resourceconfig.json"),
                processes_per_host=hyperparameters.processes_per_host,
                environ=environ,
            ),
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
