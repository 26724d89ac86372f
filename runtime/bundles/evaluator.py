"""What a configuration's evaluator does beyond network, inferer and postprocessing.

A bundle is run as MONAI's ``SupervisedEvaluator`` runs it, without making one: an engine keeps the last
request's data, and its handlers write files and logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.bundles.configuration import Configuration
from runtime.errors import BundleError

_KNOWN = "SupervisedEvaluator"
_PLAIN = frozenset({"PrepareBatchDefault"})


@dataclass(frozen=True, kw_only=True)
class EvaluatorOptions:
    """How the network is called."""

    mixed_precision: bool = False
    autocast: Mapping[str, Any] = field(default_factory=dict)
    """Options of ``torch.autocast`` (``amp_kwargs``)."""


def evaluator_options(configuration: Configuration) -> EvaluatorOptions:
    """Read the evaluator's options.

    Raises
    ------
    BundleError
        When the evaluator is more than MONAI's own: what it adds would be left out.
    """
    section = configuration.parser.get("evaluator")
    if not isinstance(section, dict):
        return EvaluatorOptions()
    kind = str(section.get("_target_", _KNOWN)).rpartition(".")[2]
    if kind != _KNOWN:
        msg = f"{configuration.file}: has an evaluator of its own ({kind}); served is what {_KNOWN} runs"
        raise BundleError(msg)
    if section.get("iteration_update") is not None:
        msg = f"{configuration.file}: evaluator.iteration_update replaces the step that is served here"
        raise BundleError(msg)
    prepare = section.get("prepare_batch")
    if prepare is not None:
        target = str(prepare.get("_target_", "")) if isinstance(prepare, dict) else str(prepare)
        if target.rpartition(".")[2] not in _PLAIN:
            msg = (
                f"{configuration.file}: evaluator.prepare_batch gives the network more than the image, "
                "and a request has nothing more"
            )
            raise BundleError(msg)
    return EvaluatorOptions(
        mixed_precision=bool(configuration.content("evaluator#amp", default=False)),
        autocast=dict(configuration.content("evaluator#amp_kwargs", default=None) or {}),
    )
