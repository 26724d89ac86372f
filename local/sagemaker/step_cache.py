"""Step caching: a step that ran before with the same inputs is not run again.

What counts as the same is what SageMaker looks at, and no more: the URIs of inputs, but not the objects
behind them, and nothing of the machines, the outputs, the role or the limits of a job.

Source: docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching.html, pipelines-caching-enabling.html and
pipelines-default-keys.html
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from local.sagemaker.errors import validation
from local.sagemaker.store import Document

_KEYS: Mapping[str, tuple[str, ...]] = {
    "Training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
}
"""Step type -> "Default cache key attributes"."""
_DURATION = re.compile(
    r"^P?(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?)?$",
    re.IGNORECASE,
)
_UNITS = {
    "years": timedelta(days=365),
    "months": timedelta(days=30),
    "weeks": timedelta(weeks=1),
    "days": timedelta(days=1),
    "hours": timedelta(hours=1),
    "minutes": timedelta(minutes=1),
}


def read_cache_config(*, step: str, kind: str, config: Any) -> timedelta | None:
    """How old a run may be whose results are used again; None when the step always runs."""
    if not isinstance(config, dict) or set(config) - {"Enabled", "ExpireAfter"}:
        raise validation(f"Step {step!r}: CacheConfig has Enabled and ExpireAfter.")
    enabled = config.get("Enabled", False)
    if not isinstance(enabled, bool):
        raise validation(f"Step {step!r}: CacheConfig.Enabled must be true or false.")
    if kind not in _KEYS:
        raise validation(f"Step {step!r}: a {kind} step has no CacheConfig.")
    if not enabled:
        return None
    return _duration(step, config.get("ExpireAfter"))


def cache_key(kind: str, arguments: Mapping[str, Any]) -> str:
    """A hash of what must be the same; `arguments` have values in the place of references."""
    counted = {name: arguments[name] for name in _KEYS[kind] if name in arguments}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def is_cacheable(kind: str) -> bool:
    """Whether steps of this type have results to use again."""
    return kind in _KEYS


def earlier_run(
    executions: Iterable[Document], *, step: str, key: str, since: datetime
) -> tuple[str, Mapping[str, Any]] | None:
    """The newest run of a step with this key that ended well: its execution's ARN, and the step.

    A step that took its results from the cache did not run, and does not make them younger.
    """
    found = [
        (execution["PipelineExecutionArn"], entry)
        for execution in executions
        for entry in execution["_Steps"]
        if entry["StepName"] == step
        and entry["StepStatus"] == "Succeeded"
        and entry.get("_CacheKey") == key
        and "CacheHitResult" not in entry
        and entry["EndTime"] >= since
    ]
    return max(found, key=lambda run: run[1]["EndTime"], default=None)


def _duration(step: str, text: Any) -> timedelta:
    match = _DURATION.match(text) if isinstance(text, str) else None
    given = {unit: int(value) for unit, value in match.groupdict().items() if value} if match else {}
    if not given:
        raise validation(
            f"Step {step!r}: CacheConfig.ExpireAfter must be an ISO 8601 duration of years, months, weeks, "
            f"days, hours or minutes (P30D, PT12H), got {text!r}."
        )
    return sum((_UNITS[unit] * value for unit, value in given.items()), timedelta())
