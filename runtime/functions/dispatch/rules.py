"""Which series go to which endpoint. Pure: no service, no clock, nothing of the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.functions.dispatch.errors import RoutesError


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a rule may ask of a series."""

    series_instance_uid: str
    modality: str | None
    """(0008,0060)"""
    body_part: str | None
    """(0018,0015)"""
    description: str | None
    """(0008,103E)"""
    images: int
    """Instances that hold an image. One of several frames counts as many as it has frames: an enhanced CT is
    a single instance.
    """

    def __repr__(self) -> str:
        return f"Series({self.series_instance_uid})"  # without the description, which logs may not have


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Conditions of the environment file (`inference.rules`). All that are given have to hold."""

    name: str
    modality: frozenset[str]
    """Any of these."""
    body_part: frozenset[str] = frozenset()
    """Any of these; empty: whatever it is."""
    series_description: re.Pattern[str] | None = None
    """Found somewhere in the description."""
    minimum_instances: int = 1

    def matches(self, series: Series) -> bool:
        """Whether every condition holds. A header that a condition asks for and the series lacks does not."""
        if _code(series.modality) not in self.modality:
            return False
        if self.body_part and _code(series.body_part) not in self.body_part:
            return False
        pattern = self.series_description
        if pattern is not None and not pattern.search(series.description or ""):
            return False
        return series.images >= self.minimum_instances


@dataclass(frozen=True, kw_only=True)
class Route:
    """A rule, and where it leads."""

    rule: Rule
    endpoint: str
    """The endpoint's name in SageMaker."""
    model: str
    """ARN of the model package that the endpoint runs; empty: it is not deployed."""

    @property
    def is_open(self) -> bool:
        return bool(self.model)


def destinations(series: Iterable[Series], routes: Iterable[Route]) -> tuple[Route, ...]:
    """The open routes whose rule some series fulfils, at most one for each endpoint: the first."""
    found: dict[str, Route] = {}
    candidates = tuple(series)
    for route in routes:
        if not route.is_open or route.endpoint in found:
            continue
        if any(route.rule.matches(one) for one in candidates):
            found[route.endpoint] = route
    return tuple(found.values())


def read_routes(text: str) -> tuple[Route, ...]:
    """The routes, in their order, from the JSON that the infrastructure wrote.

    Raises:
        RoutesError: It is not what this version of the function reads.
    """
    try:
        return tuple(_route(document) for document in json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        msg = f"The routes cannot be read ({type(error).__name__}): deploy the inference stack again"
        raise RoutesError(msg) from error


def _route(document: Mapping[str, Any]) -> Route:
    description = document.get("seriesDescription")
    return Route(
        rule=Rule(
            name=document["rule"],
            modality=frozenset(document["modality"]),
            body_part=frozenset(document["bodyPart"]),
            series_description=None if description is None else re.compile(description, re.IGNORECASE),
            minimum_instances=int(document["minimumInstances"]),
        ),
        endpoint=document["endpoint"],
        model=document["model"],
    )


def _code(value: str | None) -> str:
    """A value of representation CS, in which case and padding say nothing (PS3.5 section 6.2)."""
    return (value or "").strip().upper()
