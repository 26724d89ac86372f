"""Which series go where: properties of the rules, whatever the headers hold."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from dispatch_documents import route
from hypothesis import given
from hypothesis import strategies as st

from runtime.functions.dispatch.errors import RoutesError
from runtime.functions.dispatch.rules import Route, Rule, Series, destinations, read_routes

codes = st.sampled_from(["CT", "MR", "SEG", "CHEST", "HEAD_NECK", "ABDOMEN"])
headers = st.none() | codes | st.text(max_size=20)
texts = st.none() | st.text(max_size=64)


@st.composite
def some_series(draw: Any) -> Series:
    return Series(
        series_instance_uid="1.2.3",
        modality=draw(headers),
        body_part=draw(headers),
        description=draw(texts),
        images=draw(st.integers(0, 2000)),
    )


@st.composite
def rules(draw: Any) -> Rule:
    pattern = draw(st.none() | st.text(min_size=1, max_size=8).map(re.escape))
    return Rule(
        name=draw(st.sampled_from(["a", "b"])),
        modality=frozenset(draw(st.lists(codes, min_size=1, max_size=3))),
        body_part=frozenset(draw(st.lists(codes, max_size=3))),
        series_description=None if pattern is None else re.compile(pattern, re.IGNORECASE),
        minimum_instances=draw(st.integers(1, 2000)),
    )


@st.composite
def some_routes(draw: Any) -> list[Route]:
    return [
        Route(
            rule=draw(rules()),
            endpoint=draw(st.sampled_from(["one", "two", "three"])),
            model=draw(st.sampled_from(["", "arn:1", "arn:2"])),
        )
        for _ in range(draw(st.integers(0, 6)))
    ]


@given(rules(), some_series())
def test_a_match_fulfils_every_condition(rule: Rule, series: Series) -> None:
    holds = [
        (series.modality or "").strip().upper() in rule.modality,
        not rule.body_part or (series.body_part or "").strip().upper() in rule.body_part,
        rule.series_description is None or bool(rule.series_description.search(series.description or "")),
        series.images >= rule.minimum_instances,
    ]
    assert rule.matches(series) is all(holds)


@given(rules(), some_series())
def test_more_images_never_unmatch(rule: Rule, series: Series) -> None:
    more = Series(
        series_instance_uid=series.series_instance_uid,
        modality=series.modality,
        body_part=series.body_part,
        description=series.description,
        images=series.images + 1,
    )
    assert rule.matches(more) or not rule.matches(series)


@given(rules())
def test_a_series_of_which_nothing_is_known_matches_nothing(rule: Rule) -> None:
    unknown = Series(
        series_instance_uid="1.2.3", modality=None, body_part=None, description=None, images=10**6
    )
    assert not rule.matches(unknown)


@given(some_routes(), st.lists(some_series(), max_size=4))
def test_destinations(routes: list[Route], series: list[Series]) -> None:
    found = destinations(series, routes)
    endpoints = [one.endpoint for one in found]
    assert len(set(endpoints)) == len(endpoints), "one request an endpoint, however many rules lead there"
    for one in found:
        assert one.is_open
        assert any(one.rule.matches(candidate) for candidate in series)
    for one in routes:
        if one.is_open and any(one.rule.matches(candidate) for candidate in series):
            assert one.endpoint in endpoints, "no endpoint that a rule names is left out"
    assert list(found) == [one for one in routes if any(one is chosen for chosen in found)], "in their order"


@given(st.lists(some_series(), max_size=4), some_routes())
def test_destinations_do_not_depend_on_the_order_of_series(series: list[Series], routes: list[Route]) -> None:
    assert destinations(series, routes) == destinations(list(reversed(series)), routes)


@pytest.mark.parametrize(
    ("changed", "header", "matches"),
    [
        ({}, {}, True),
        ({"modality": ["MR", "CT"]}, {}, True),
        ({"modality": ["MR"]}, {}, False),
        ({}, {"modality": "ct "}, True),
        ({"bodyPart": ["CHEST"]}, {"body_part": "Chest"}, True),
        ({"bodyPart": ["CHEST"]}, {"body_part": None}, False),
        ({"seriesDescription": "lung|thorax"}, {"description": "LUNG 1.5"}, True),
        ({"seriesDescription": "^lung$"}, {"description": "LUNG 1.5"}, False),
        ({"seriesDescription": "lung"}, {"description": None}, False),
        ({"minimumInstances": 20}, {"images": 19}, False),
        ({"minimumInstances": 20}, {"images": 20}, True),
    ],
)
def test_examples(changed: dict[str, Any], header: dict[str, Any], matches: bool) -> None:
    (read,) = read_routes(json.dumps([route(**changed)]))
    known: dict[str, Any] = {"modality": "CT", "body_part": "CHEST", "description": "Lung", "images": 30}
    series = Series(series_instance_uid="1.2.3", **(known | header))
    assert read.rule.matches(series) is matches


def test_a_rule_need_not_speak_of_the_description() -> None:
    short = {name: value for name, value in route().items() if name != "seriesDescription"}
    assert read_routes(json.dumps([short])) == read_routes(json.dumps([route()]))


def test_an_endpoint_without_a_model_is_closed() -> None:
    closed, opened = read_routes(json.dumps([route(model=""), route(endpoint="other")]))
    series = Series(series_instance_uid="1", modality="CT", body_part=None, description=None, images=5)
    assert destinations([series], [closed, opened]) == (opened,)


@pytest.mark.parametrize(
    "text",
    ["", "{}x", "7", "[7]", '[{"rule": "a"}]', json.dumps([route(seriesDescription="(")])],
)
def test_routes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(RoutesError, match="deploy the inference stack again"):
        read_routes(text)


def test_a_series_does_not_show_its_description() -> None:
    series = Series(
        series_instance_uid="1.2", modality="CT", body_part=None, description="Anna's chest", images=1
    )
    assert "Anna" not in repr(series)
