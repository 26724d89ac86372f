"""What a key of a configuration depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pydoc import locate
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_item import ConfigComponent
from monai.transforms import Compose, RandomizableTrait


def closure(parser: ConfigParser, *keys: str) -> dict[str, Any]:
    """The raw configuration of keys and of all that they refer to, directly or not, by key."""
    return _closure(parser, [ReferenceResolver.normalize_id(key) for key in keys])


def touches(changed: str, keys: Mapping[str, Any]) -> bool:
    """Whether a change of one key changes anything under the others."""
    key = ReferenceResolver.normalize_id(changed)
    return any(_within(key, other) or _within(other, key) for other in keys)


def component_class(parser: ConfigParser, config: Mapping[str, Any]) -> Any:
    """The class or function that a component names; None when it cannot be found."""
    component = ConfigComponent(config=dict(config), id="", locator=parser.locator)
    name = component.resolve_module_name()
    return name if callable(name) else locate(str(name))


def preparation_digest(parser: ConfigParser, key: str, *, code: str) -> str:
    """SHA-256 of all that decides what the deterministic transforms of a chain make of a case.

    Args:
        parser: The configuration, its macros resolved.
        key: A `Compose`, or an expression that adds up lists of transforms, as the model zoo writes it. The
            transforms count up to the first random one, and how the chain is run; where the chain cannot be
            seen through, all of it does.
        code: Digest of the code that the configuration may name.
    """
    chain = _chain(parser, f"{key}#transforms")
    if chain is None:
        relevant: dict[str, Any] = closure(parser, key)
    else:
        deterministic = _deterministic(parser, chain)
        compose = parser.get(key)
        options = {name: value for name, value in compose.items() if name != "transforms"}
        decisive = [options, deterministic]
        relevant = {"": decisive, **_closure(parser, list(_references(decisive)))}
    text = json.dumps(relevant, sort_keys=True, default=repr)
    return hashlib.sha256(f"{code}\n{text}".encode()).hexdigest()


def _closure(parser: ConfigParser, open_keys: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while open_keys:
        key = open_keys.pop()
        if key in found or key not in parser:
            continue
        found[key] = parser[key]
        open_keys.extend(_references(found[key]))
    return found


def _references(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        if config.startswith("%"):
            yield ReferenceResolver.normalize_id(config[1:])
        elif config.startswith(("@", "$")):
            yield from ReferenceResolver.match_refs_pattern(config)
    elif isinstance(config, dict):
        for value in config.values():
            yield from _references(value)
    elif isinstance(config, list):
        for value in config:
            yield from _references(value)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}::")


def _chain(parser: ConfigParser, key: str) -> list[Any] | None:
    """The raw transforms under a key, lists that an expression adds up joined; None for any other form."""
    value = parser.get(key)
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return None
    joined: list[Any] = []
    for term in value.removeprefix("$").split("+"):
        name = term.strip()
        part = parser.get(name[1:]) if name.startswith("@") else None
        if not isinstance(part, list):
            return None
        joined.extend(part)
    return joined


def _deterministic(parser: ConfigParser, chain: Sequence[Any]) -> list[Any]:
    """All that may come before the first random transform.

    Whatever is in doubt counts, since a needless miss costs time and another chain's item a wrong model: what
    expressions make, transforms that may be switched off, and chains within the chain.
    """
    for place, config in enumerate(chain):
        if isinstance(config, dict) and "_target_" in config and not config.get("_disabled_"):
            found = component_class(parser, config)
            if isinstance(found, type) and issubclass(found, RandomizableTrait) and found is not Compose:
                return list(chain[:place])
    return list(chain)
