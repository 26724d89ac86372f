"""A bundle's configuration file, changed before anything of it is built, and its parts, built when asked for.

Only what is asked for is built, with what it refers to: the bundle's own datasets, which name files that are
not there, are never made. A configuration is code: its `$` expressions are evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser

from training.configuration.bundle import Bundle, config_file, read_metadata
from training.configuration.modules import activate
from training.errors import BundleError, TrainingError
from training.stopping import StoppedError

FILE_TRANSFORMS = frozenset(
    {"LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict"}
    | {"EnsureChannelFirst", "EnsureChannelFirstd", "EnsureChannelFirstD", "EnsureChannelFirstDict"}
    | {"SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict"}
)
"""Transforms that read or write files: cases arrive as tensors, channel-first."""

_REFERENCE = re.compile(r"@[\w.]+(?:(?:#|::)[\w.]+)*")
"""A value that is nothing but a reference to another key."""

_CUDA_DEVICE = re.compile(r"""torch\.device\(\s*(['"])cuda(:\d+)?\1\s*\)""")


def read_raw(bundle: Bundle, name: str) -> dict[str, Any]:
    """What a configuration file says, unchanged.

    Args:
        bundle: The bundle.
        name: Of the file, without suffix.

    Raises:
        BundleError: There is none, or it cannot be read.
    """
    file = config_file(bundle.root, name)
    if file is None:
        msg = f"{bundle.name}: there is no configs/{name}.json and no configs/{name}.yaml"
        raise BundleError(msg)
    try:
        config = ConfigParser.load_config_file(str(file))
    except Exception as error:
        msg = f"{bundle.name}: configs/{file.name} cannot be read: {type(error).__name__}"
        raise BundleError(msg) from error
    if not isinstance(config, dict):
        msg = f"{bundle.name}: configs/{file.name} is no object with keys"
        raise BundleError(msg)
    return config


def prepare_for_memory(parser: ConfigParser, bundle: Bundle) -> None:
    """Makes a configuration usable here: macros resolved, metadata under `_meta_`, the bundle's real folder,
    no transform that touches files, and no device that this machine does not have.
    """
    parser["bundle_root"] = str(bundle.root)
    parser[ConfigParser.meta_key] = dict(read_metadata(bundle.root))
    # Macros copy what they find, so nothing may be left out before.
    parser.resolve_macro_and_relative_ids()
    for component in components(parser.config, FILE_TRANSFORMS):
        component["_disabled_"] = True
    if not torch.cuda.is_available():
        parser.set(_without_cuda(parser.config))


def build(parser: ConfigParser, bundle: Bundle, key: str) -> Any:
    """The object that a key of the configuration describes; always the same one.

    Raises:
        BundleError: The bundle has no such key, or it cannot be built.
    """
    if key not in parser:
        msg = f"{bundle.name}: the configuration has no {key.replace('#', '.')}"
        raise BundleError(msg)
    activate(bundle.root)
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        # Building a part may read cases; what went wrong with them lies below MONAI's own errors.
        for cause in _causes(error):
            if isinstance(cause, TrainingError | StoppedError):
                raise cause from None
        msg = f"{bundle.name}: {key.replace('#', '.')} cannot be built: {_reason(error)}{_age(parser)}"
        raise BundleError(msg) from error


def follow(parser: ConfigParser, key: str) -> str:
    """The key at the end of a chain of plain references: `train#trainer#network` leads to `network`."""
    seen = {key}
    while isinstance(value := parser.get(key), str) and _REFERENCE.fullmatch(value):
        key = value[1:]
        if key in seen:
            break
        seen.add(key)
    return key


def target_name(value: Any) -> str:
    """The class name of a component's raw configuration; empty for anything else."""
    target = value.get("_target_") if isinstance(value, dict) else None
    return target.rpartition(".")[2] if isinstance(target, str) else ""


def components(config: Any, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every component of a raw configuration whose class has one of the names."""
    if target_name(config) in names:
        yield config
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for child in children:
        yield from components(child, names)


def _without_cuda(config: Any) -> Any:
    """Devices that are written out as CUDA become the CPU."""
    if isinstance(config, str):
        return _CUDA_DEVICE.sub("torch.device('cpu')", config)
    if isinstance(config, dict):
        return {key: _without_cuda(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_cuda(value) for value in config]
    return config


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what lies below it: MONAI wraps what a component raises into its own description."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # pydoc.ErrorDuringImport keeps what it wraps in an attribute of its own.
        wrapped = getattr(cause, "value", None)
        cause = wrapped if isinstance(wrapped, BaseException) else cause.__cause__


def _reason(error: BaseException) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return f"the Python package {cause.name.partition('.')[0]!r} is not in this image"
    last = causes[-1]
    return f"{type(last).__name__}: {' '.join(str(last).split())[:300]}"


def _age(parser: ConfigParser) -> str:
    """Says it when the bundle was made with another MONAI: arguments come and go."""
    made_with = parser.get("_meta_", {}).get("monai_version")
    if made_with in (None, monai.__version__):
        return ""
    return f" (made with MONAI {made_with}; this is {monai.__version__})"
