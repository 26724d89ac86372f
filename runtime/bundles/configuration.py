"""A bundle's inference configuration, ready to be built piece by piece.

Only what a volume in memory needs is built: steps that read or write files are left out, and the evaluator,
its handlers and its data are never made. A configuration is code: its ``$`` expressions are evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import monai
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    SaveImage,
    SaveImaged,
)

from runtime.bundles.modules import BundleModules
from runtime.errors import BundleError

LOADING = frozenset({"LoadImage", "LoadImaged", "LoadImageD", "LoadImageDict"})
_CHANNEL_FIRST = frozenset(
    {"EnsureChannelFirst", "EnsureChannelFirstd", "EnsureChannelFirstD", "EnsureChannelFirstDict"}
)
"""A volume arrives in memory and channel-first."""

_SAVING = frozenset({"SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict"})
"""Results leave through the result writers."""

_FILE_STEPS = (LoadImage, LoadImaged, EnsureChannelFirst, EnsureChannelFirstd, SaveImage, SaveImaged)

_CUDA_DEVICE = re.compile(r"""torch\.device\(\s*(['"])cuda(:\d+)?\1\s*\)""")

_ARRAYS = [
    np.ndarray,
    np.dtype,
    cast(Any, np)._core.multiarray._reconstruct,
    *(type(np.dtype(code)) for code in "bBhHiIlLqQefd?"),
]
"""What ``torch.load`` may make besides tensors, for configurations that read arrays: numbers, and no code."""

_REQUIRED = object()


@dataclass(frozen=True, kw_only=True, eq=False)
class Configuration:
    """The parsed inference configuration of a bundle."""

    file: Path
    root: Path
    parser: ConfigParser
    modules: BundleModules

    def __contains__(self, key: str) -> bool:
        return key in self.parser

    def content(self, key: str, *, default: Any = _REQUIRED) -> Any:
        """Build what stands under a key (``a#b`` is ``b`` within ``a``).

        Raises
        ------
        BundleError
            When the key is missing and there is no default, or when it cannot be built, and why.
        """
        if key not in self.parser:
            if default is _REQUIRED:
                raise BundleError(f"{self.file}: {key} is missing")
            return default
        try:
            with self.modules.importable(), torch.serialization.safe_globals(_ARRAYS):
                return self.parser.get_parsed_content(key)
        except Exception as error:
            raise BundleError(f"{self.file}: {key} cannot be built: {reason(error)}{self._age()}") from error

    def _age(self) -> str:
        """Say it when the bundle was made with another MONAI: arguments come and go."""
        made_with = self.parser.get("_meta_", {}).get("monai_version")
        if made_with in (None, monai.__version__):
            return ""
        return f" (made with MONAI {made_with}; this is {monai.__version__})"

    def chain(self, *keys: str) -> Compose:
        """Build the transforms under the first of the keys that exists, without those that touch files.

        Raises
        ------
        BundleError
            When there is no such key, or it does not hold a ``Compose``.
        """
        key = next((key for key in keys if key in self.parser), keys[0])
        value = self.content(key)
        if not isinstance(value, Compose):
            raise BundleError(f"{self.file}: {key} must be a Compose, not {type(value).__name__}")
        _leave_out_file_steps(value)
        return value

    def components(self, names: frozenset[str], *, under: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Find the components whose class has one of the names: key and raw configuration."""
        yield from _components(self.parser.get(under) if under else self.parser.config, names, under)


def read_configuration(root: Path, *, inference: Path, metadata: Path) -> Configuration:
    """Read a configuration; nothing of it is built yet.

    Raises
    ------
    BundleError
        When a file is not one.
    """
    parser = ConfigParser()
    try:
        parser.read_config(str(inference))
        parser.read_meta(str(metadata))
    except Exception as error:
        raise BundleError(f"{inference}: cannot be read: {reason(error)}") from error
    parser["bundle_root"] = str(root)
    for _, component in _components(parser.config, LOADING | _CHANNEL_FIRST | _SAVING, ""):
        component["_disabled_"] = True
    if not torch.cuda.is_available():
        parser.set(_without_cuda(parser.config))
    return Configuration(file=inference, root=root, parser=parser, modules=BundleModules(root))


def reason(error: BaseException) -> str:
    """Say in one line what is behind an exception that MONAI has wrapped, a missing package first."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return f"the Python package {cause.name.partition('.')[0]!r} is not installed"
    last = causes[-1]
    text = " ".join(str(last).split())
    return f"{type(last).__name__}: {text[:300]}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # pydoc.ErrorDuringImport keeps what it wraps in an attribute of its own.
        wrapped = getattr(error, "value", None)
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__


def _components(config: Any, names: frozenset[str], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and target.rpartition(".")[2] in names:
            yield key, config
        members = config.items()
    elif isinstance(config, list):
        members = {str(position): value for position, value in enumerate(config)}.items()
    else:
        return
    for name, value in members:
        yield from _components(value, names, f"{key}#{name}" if key else str(name))


def _without_cuda(config: Any) -> Any:
    """Replace devices that are written out as CUDA: a machine without a GPU has none to offer."""
    if isinstance(config, str):
        return _CUDA_DEVICE.sub("torch.device('cpu')", config)
    if isinstance(config, dict):
        return {key: _without_cuda(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_cuda(value) for value in config]
    return config


def _leave_out_file_steps(chain: Compose) -> None:
    """Take out steps that an expression has built; in place, since an inversion may refer to this chain."""
    chain.transforms = tuple(step for step in chain.transforms if not isinstance(step, _FILE_STEPS))
    for step in chain.transforms:
        if isinstance(step, Compose):
            _leave_out_file_steps(step)
