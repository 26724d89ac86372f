"""What the environment of the container sets. Every wrong value is reported at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from runtime.errors import SettingsError
from runtime.operators.series_rules import SeriesRule
from runtime.results.outputs import Output

_T = TypeVar("_T")

_EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - inside a container; the platform decides who reaches the port


@dataclass(frozen=True, kw_only=True)
class S3Prefix:
    """A place in S3: ``s3://bucket/key/prefix``; ``key`` has no slash at either end and may be empty."""

    bucket: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The runtime's settings, each with the environment variable it comes from."""

    base_directory: Path = Path("/opt/ml")
    """``SAGEMAKER_BASE_DIR``: SageMaker's folder layout; the bundle is unpacked in ``model`` below it."""

    port: int = 8080
    """``SAGEMAKER_BIND_TO_PORT``."""

    host: str = "127.0.0.1"
    """``RUNTIME_BIND_HOST``. Unset, a container is reached from outside (SageMaker mounts ``/opt/ml`` there),
    and a process with its folders elsewhere from its own machine alone."""

    queue_length: int = 4
    """``RUNTIME_QUEUE_LENGTH``: requests that may wait behind the running one before 503 is answered."""

    archive_wait_seconds: float = 60.0
    """``RUNTIME_ARCHIVE_WAIT_SECONDS``: how long a stored SEG may take to appear in SearchImageSets."""

    series_rules: tuple[SeriesRule, ...] = field(default=())
    """``RUNTIME_SERIES_RULES``: JSON list of rules; empty = the modality that the bundle's metadata names."""

    segmentation_copy: S3Prefix | None = None
    """``RUNTIME_SEGMENTATION_S3_URI``: where a copy of every stored result is put; unset = no copy."""

    outputs: frozenset[Output] = frozenset()
    """``RUNTIME_OUTPUTS``: what is made of every SEG, a comma between two; unset = nothing besides it."""

    drain_seconds: float = 25.0
    """``RUNTIME_DRAIN_SECONDS``: how long requests that were accepted may still take after SIGTERM; SageMaker
    kills the container after 30 s."""

    multi_model: bool = False
    """``SAGEMAKER_MULTI_MODEL``: SageMaker loads and unloads models below ``models`` by requests."""

    model_memory_mib: int | None = None
    """``RUNTIME_MODEL_MEMORY_MIB``: what all models of a multi-model endpoint may take together; unset = a
    share of the container's memory (`runtime.serving.memory`)."""

    endpoint_name: str = "unnamed"
    """``RUNTIME_ENDPOINT_NAME``: what the metrics of this container are told apart by."""

    @property
    def model_directory(self) -> Path:
        return self.base_directory / "model"

    @property
    def models_directory(self) -> Path:
        """Where SageMaker unpacks the models of a multi-model endpoint, each in ``{name}/model``."""
        return self.base_directory / "models"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises
        ------
        SettingsError
            Naming each variable that holds an unusable value.
        """
        problems: list[str] = []

        def read(name: str, default: _T, convert: Callable[[str], _T]) -> _T:
            text = environment.get(name, "").strip()
            if not text:
                return default
            try:
                return convert(text)
            except ValueError as error:
                problems.append(f"{name}: {error}")
                return default

        base_directory = read("SAGEMAKER_BASE_DIR", cls.base_directory, Path)
        default_host = _EVERY_INTERFACE if base_directory == cls.base_directory else cls.host
        queue_length = read("RUNTIME_QUEUE_LENGTH", cls.queue_length, lambda text: _integer(text, 1, 1000))
        # A transform job sends so many at once, and a refusal would fail the whole job.
        at_once = read("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", 1, lambda text: _integer(text, 0, 100_000))
        settings = cls(
            base_directory=base_directory,
            port=read("SAGEMAKER_BIND_TO_PORT", cls.port, lambda text: _integer(text, 1, 65535)),
            host=read("RUNTIME_BIND_HOST", default_host, str),
            queue_length=max(queue_length, at_once - 1),
            archive_wait_seconds=read(
                "RUNTIME_ARCHIVE_WAIT_SECONDS", cls.archive_wait_seconds, lambda text: _seconds(text)
            ),
            series_rules=read("RUNTIME_SERIES_RULES", (), _rules),
            segmentation_copy=read("RUNTIME_SEGMENTATION_S3_URI", None, _s3_prefix),
            outputs=read("RUNTIME_OUTPUTS", cls.outputs, _outputs),
            drain_seconds=read("RUNTIME_DRAIN_SECONDS", cls.drain_seconds, _seconds),
            multi_model=read("SAGEMAKER_MULTI_MODEL", cls.multi_model, _boolean),
            model_memory_mib=read(
                "RUNTIME_MODEL_MEMORY_MIB", None, lambda text: _integer(text, 1, 10_000_000)
            ),
            endpoint_name=read("RUNTIME_ENDPOINT_NAME", cls.endpoint_name, _name),
        )
        if Output.NIFTI in settings.outputs and settings.segmentation_copy is None:
            problems.append(f"RUNTIME_OUTPUTS: {Output.NIFTI} files need RUNTIME_SEGMENTATION_S3_URI")
        if problems:
            raise SettingsError("; ".join(problems))
        return settings


def _integer(text: str, lowest: int, highest: int) -> int:
    value = int(text) if text.isdecimal() else None
    if value is None or not lowest <= value <= highest:
        msg = f"{text!r} is not a whole number from {lowest} to {highest}"
        raise ValueError(msg)
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        msg = f"{text!r} is neither true nor false"
        raise ValueError(msg)
    return text.lower() == "true"


def _name(text: str) -> str:
    if len(text) > 63 or not text.replace("-", "").isalnum() or not text.isascii():
        msg = f"{text!r} is not a name of at most 63 letters, digits and hyphens"
        raise ValueError(msg)
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        msg = f"{text!r} is not a number of seconds from 0 to 3600"
        raise ValueError(msg)
    return value


def _rules(text: str) -> tuple[SeriesRule, ...]:
    try:
        documents = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"not JSON ({error.msg} at character {error.pos})"
        raise ValueError(msg) from error
    if not isinstance(documents, list) or not documents:
        msg = "must be a JSON list with at least one rule"
        raise ValueError(msg)
    return tuple(SeriesRule.from_document(document) for document in documents)


def _outputs(text: str) -> frozenset[Output]:
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(Output))
    if unknown:
        msg = f"unknown output {', '.join(map(repr, unknown))}; known are {', '.join(Output)}"
        raise ValueError(msg)
    return frozenset(Output(name) for name in names)


def _s3_prefix(text: str) -> S3Prefix:
    parts = urlsplit(text)
    if parts.scheme != "s3" or not parts.netloc:
        msg = f"{text!r} is not of the form s3://bucket/prefix"
        raise ValueError(msg)
    return S3Prefix(bucket=parts.netloc, key=parts.path.strip("/"))
