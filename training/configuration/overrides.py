"""Changes that a training job makes to a bundle's configuration, and what they mean for the served model.

An override names a key of `train.json` as MONAI's command line does (`network_def#norm`). Two names stand for
more than one key: `overlays` lists configuration files of the bundle that are laid over `train.json` first,
as `--config_file "['configs/train.json','configs/NAME.json']"` does; `classes` renames what the network
gives.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import merge_kv

from training.configuration.bundle import Bundle, named_channels
from training.configuration.layout import Layout, find_layout
from training.configuration.modules import activate
from training.configuration.parts import follow, read_raw
from training.configuration.references import closure, component_class, touches
from training.errors import BundleError

OVERLAYS = "overlays"
CLASSES = "classes"

_PROGRAM = ("run", "initialize", "finalize")
"""Keys that only `monai.bundle run` looks at."""

_PLATFORMS = (*_PROGRAM, "imports", "bundle_root")
"""Keys that the platform does not use or sets itself: an override would have no effect."""

_LENGTH = ("max_epochs", "epoch_length")
"""Of a trainer: what the platform works out from steps and cases."""


@dataclass(frozen=True, kw_only=True)
class ChangedBundle:
    """A bundle's configuration with a job's overrides in it.

    Attributes:
        bundle: The bundle with the channels that are trained.
        train: Raw configuration for training.
        inference: Raw configuration for serving; what both files said alike they still say alike. None where
            the bundle has no inference configuration.
        classes: Names of the network's outputs in their order, background included, where the job changed
            them.
    """

    bundle: Bundle
    train: dict[str, Any]
    inference: dict[str, Any] | None
    classes: tuple[str, ...] | None


def change_bundle(bundle: Bundle, overrides: Mapping[str, Any]) -> ChangedBundle:
    """Applies overrides to a bundle's configuration, in memory.

    Raises:
        BundleError: Listing every override that has no place in the configuration, with what it may have
            meant, and every one that would train a network or its input differently from how it is served.
    """
    original = read_raw(bundle, "train")
    overlaid = dict(_overlaid(bundle, overrides))
    wanted = {key.replace("::", "#"): value for key, value in overrides.items() if key != OVERLAYS}
    train = ConfigParser(copy.deepcopy(original))
    activate(bundle.root)
    for key, value in overlaid.items():
        merge_kv(train, key, copy.deepcopy(value))
    # What a macro copies has a place of its own only when it is copied.
    late = {key: value for key, value in wanted.items() if not _has_place(train, key)}
    for key, value in wanted.items():
        if key not in late:
            train[key] = copy.deepcopy(value)
    if late:
        train.resolve_macro_and_relative_ids()
    problems = [_near_misses(train, key) for key in late if not _has_place(train, key)]
    problems += [f"{key} is the platform's own" for key in wanted if key.partition("#")[0] in _PLATFORMS]
    _require_places(bundle, problems)
    for key, value in late.items():
        train[key] = copy.deepcopy(value)
    resolved = ConfigParser(copy.deepcopy(train.config))
    resolved.resolve_macro_and_relative_ids()
    layout = find_layout(resolved, bundle)
    _require_places(
        bundle,
        [
            f"{key} is the platform's own{_instead(key)}"
            for key in wanted
            if _is_replaced(resolved, layout, key)
        ],
    )
    changes = overlaid | wanted
    inference = _served(bundle, original, train, layout, changes)
    classes = _classes(bundle, train, layout, changes)
    if classes is not None:
        bundle = _renamed(bundle, classes)
    return ChangedBundle(
        bundle=bundle, train=_without_meta(train.config), inference=inference, classes=classes
    )


def _require_places(bundle: Bundle, problems: Sequence[str]) -> None:
    if problems:
        msg = f"{bundle.name}: overrides cannot be used: {'; '.join(problems)}"
        raise BundleError(msg)


def _is_replaced(resolved: ConfigParser, layout: Layout, key: str) -> bool:
    """Whether a key is of what the platform puts its own in the place of: loaders, data sets, epochs."""
    changed = ReferenceResolver.normalize_id(key)
    for engine in filter(None, (layout.trainer, layout.evaluator)):
        places = {
            follow(resolved, f"{engine.loader}#dataset"): ("transform",),
            engine.loader: ("dataset", "batch_size") if engine is layout.trainer else ("dataset",),
        }
        for place, kept in places.items():
            below = f"{ReferenceResolver.normalize_id(place)}::"
            if changed.startswith(below):
                return changed.removeprefix(below).partition("::")[0] not in kept
    length = [ReferenceResolver.normalize_id(f"{layout.trainer.key}#{name}") for name in _LENGTH]
    return changed in length


def _instead(key: str) -> str:
    name = key.rpartition("#")[2]
    return f" (there is a hyperparameter {name})" if name == "max_epochs" else ""


def _without_meta(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != ConfigParser.meta_key}


def _overlaid(bundle: Bundle, overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys and values of the overlays, the last word last."""
    overlays = overrides.get(OVERLAYS, ())
    for name in [overlays] if isinstance(overlays, str) else overlays:
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            msg = f"{bundle.name}: overlays must name configuration files of the bundle, not {name!r}"
            raise BundleError(msg)
        overlay = read_raw(bundle, name)
        program = [key for key in _PROGRAM if key in overlay or f"+{key}" in overlay]
        if program:
            msg = (
                f"{bundle.name}: {name} is a program of its own (it has {', '.join(program)}) and no "
                "overlay of a training: ranks and evaluation are the platform's"
            )
            raise BundleError(msg)
        yield from overlay.items()


def _has_place(parser: ConfigParser, key: str) -> bool:
    """Whether the configuration has the key, or it is an argument that its component takes."""
    if key in parser:
        return True
    parent, _, name = key.rpartition("#")
    config = parser.get(parent) if parent else None
    if not isinstance(config, dict) or "_target_" not in config:
        return False
    try:
        return _takes(component_class(parser, config), name)
    except (TypeError, ValueError, ImportError):
        return False


def _takes(component: Any, name: str) -> bool:
    """Whether a class or function has an argument of this name, or hands it on to the class it is made of."""
    makers = component.__mro__[:-1] if isinstance(component, type) else (component,)
    for maker in makers:
        parameters = inspect.signature(maker).parameters
        if name in parameters:
            return True
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


def _near_misses(parser: ConfigParser, key: str) -> str:
    known = list(_keys(parser.config, ""))
    near = get_close_matches(key, known, n=3, cutoff=0.6)
    if not near:
        last = key.rpartition("#")[2]
        near = [one for one in known if one.rpartition("#")[2] == last][:3]
    return f"there is no {key}" + (f" (is it {' or '.join(near)}?)" if near else "")


def _keys(config: Any, prefix: str) -> Iterator[str]:
    members = (
        config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    )
    for name, value in members:
        key = f"{prefix}{name}"
        yield key
        yield from _keys(value, f"{key}#")


def _served(
    bundle: Bundle,
    original: dict[str, Any],
    train: ConfigParser,
    layout: Layout,
    changes: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The inference configuration with the changes of the keys that it shares with `train.json`."""
    try:
        raw = read_raw(bundle, "inference")
    except BundleError:
        return None
    served = ConfigParser(copy.deepcopy(raw))
    engine = layout.evaluator or layout.trainer
    # Before macros are resolved: a change of what they copy is a change of the copy.
    decisive = closure(train, layout.trainer.network, engine.preprocessing)
    stranded = []
    for key, value in changes.items():
        name = key.lstrip("+")
        root = name.partition("#")[0]
        alike = root in raw and raw[root] == original.get(root)
        matters = touches(name, decisive)
        # What is replaced as a whole is the same in both files afterwards, whatever they said before.
        if alike or (matters and key == root and root in raw):
            merge_kv(served, key, copy.deepcopy(value))
        elif matters:
            stranded.append(name)
    if stranded:
        msg = (
            f"{bundle.name}: {', '.join(stranded)} would change the network or what it is given in training, "
            "and inference.json does not share the key: change both files in a bundle of your own"
        )
        raise BundleError(msg)
    return _without_meta(served.config)


def _classes(
    bundle: Bundle, train: ConfigParser, layout: Layout, changes: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """The names of what the network gives, where an override or an overlay changed them."""
    if CLASSES not in {key.lstrip("+").replace("::", "#").partition("#")[0] for key in changes}:
        return None
    names = train[CLASSES]
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        msg = f"{bundle.name}: classes must be a list of at least two names, not {names!r}"
        raise BundleError(msg)
    follows = CLASSES in closure(train, layout.trainer.network)
    if len(names) != bundle.outputs and not follows:
        msg = f"{bundle.name}: classes has {len(names)} names and the network {bundle.outputs} outputs"
        raise BundleError(msg)
    return tuple(names)


def _renamed(bundle: Bundle, names: Sequence[str]) -> Bundle:
    try:
        channels = named_channels(names, bundle.task)
    except ValueError as error:
        msg = f"{bundle.name}: classes: {error}"
        raise BundleError(msg) from error
    return replace(bundle, channels=channels, outputs=len(names))
