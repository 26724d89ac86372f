"""What the endpoint measures, and that nothing of a patient is in it.

tests/local holds the documents against the specification of CloudWatch.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from runtime.logs import JsonFormatter
from runtime.metrics import METRICS, NAMESPACE, OTHER, PHASES, Metrics, VolumeFigures
from runtime.operators.exchange import Exchange
from runtime.results.answer import ModelIdentity, Result, SegmentVolume, StoredSegmentation
from runtime.serving.request import ImageSetInput

SECRETS = ("a" * 32, "2.25.1", "2.25.2", "e" * 32)
"""Identifiers of the result below: none may become a dimension."""


@pytest.fixture
def documents(caplog: pytest.LogCaptureFixture) -> Any:
    """The lines that were logged since, as CloudWatch Logs gets them."""
    caplog.set_level(logging.INFO, logger="runtime")
    return lambda: [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def result(**seconds: float) -> Result:
    return Result(
        image_set_id=SECRETS[0],
        version_id="1",
        segmentation=StoredSegmentation(
            series_instance_uid=SECRETS[1],
            sop_instance_uid=SECRETS[2],
            image_set_id=SECRETS[3],
            is_primary=True,
            s3_uri=None,
        ),
        segments=(
            SegmentVolume(label="left lung", volume_ml=2012.5),
            SegmentVolume(label="right lung", volume_ml=0.0),
        ),
        model=ModelIdentity(name="m", version="1", sha256="f" * 64),
        seconds=seconds,
    )


def values(documents: list[dict[str, Any]]) -> dict[tuple[str, ...], Any]:
    """(metric, dimension values...) -> value of all documents."""
    found = {}
    for document in documents:
        for directive in document["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == NAMESPACE
            for metric in directive["Metrics"]:
                declared = METRICS[metric["Name"]]
                assert metric["Unit"] == declared.unit
                for dimensions in directive["Dimensions"]:
                    assert tuple(dimensions) in declared.dimensions
                    key = (metric["Name"], *(document[name] for name in dimensions))
                    found[key] = document[metric["Name"]]
    return found


def test_a_computed_result(documents: Any) -> None:
    metrics = Metrics(endpoint="lungs")
    figures = VolumeFigures(modality="CT", slices=120, spacing=(0.7, 0.8, 2.5))
    metrics.segmented(result(queue=0.5, network=2.0, total=2.5), figures)
    lines = documents()
    assert values(lines) == {
        ("StoredResults", "lungs"): 0,
        ("QueueSeconds", "lungs"): 0.5,
        ("NetworkSeconds", "lungs"): 2.0,
        ("TotalSeconds", "lungs"): 2.5,
        ("Volumes", "lungs", "CT"): 1,
        ("Slices", "lungs", "CT"): 120,
        ("ColumnSpacingMillimetres", "lungs", "CT"): 0.7,
        ("RowSpacingMillimetres", "lungs", "CT"): 0.8,
        ("SliceSpacingMillimetres", "lungs", "CT"): 2.5,
        ("SegmentVolumeMillilitres", "lungs", "left lung"): 2012.5,
        ("SegmentVolumeMillilitres", "lungs", "right lung"): 0.0,
    }
    for secret in SECRETS:
        assert secret not in json.dumps(lines)


def test_a_result_of_the_archive_says_nothing_of_the_volume(documents: Any) -> None:
    Metrics(endpoint="lungs").segmented(result(open=0.1, total=0.1), None)
    assert values(documents()) == {
        ("StoredResults", "lungs"): 1,
        ("OpenSeconds", "lungs"): 0.1,
        ("TotalSeconds", "lungs"): 0.1,
    }


@pytest.mark.parametrize(
    ("header", "dimension"), [("PT", "PT"), ("Doe^Jane", OTHER), ("", OTHER), (None, OTHER)]
)
def test_what_a_header_says_is_no_dimension_unless_it_is_a_modality(
    documents: Any, header: str | None, dimension: str
) -> None:
    figures = VolumeFigures(modality=header, slices=1, spacing=(1, 1, 1))
    Metrics(endpoint="lungs").segmented(result(), figures)
    assert ("Volumes", "lungs", dimension) in values(documents())


def test_requests_and_errors(documents: Any) -> None:
    metrics = Metrics(endpoint="lungs")
    metrics.answered(seconds=3.0)
    assert values(documents())[("Errors", "lungs")] == 0, "so that an average is the share of failures"
    metrics.failed(error_type="GeometryError", seconds=1.0)
    assert values(documents()) == {
        ("Requests", "lungs"): 1,
        ("RequestSeconds", "lungs"): 1.0,
        ("Errors", "lungs"): 1,
        ("Errors", "lungs", "GeometryError"): 1,
    }


def test_every_phase_that_an_exchange_times_is_a_metric() -> None:
    exchange = Exchange(
        request=ImageSetInput(datastore_id="d" * 32, image_set_id="a" * 32), seconds={"queue": 0}
    )
    assert exchange.timings().keys() <= PHASES.keys()
    assert set(PHASES.values()) <= set(METRICS)


def test_seconds_are_moved_from_one_phase_to_another_and_never_made() -> None:
    exchange = Exchange(
        request=ImageSetInput(datastore_id="d" * 32, image_set_id="a" * 32), seconds={"fetch": 2.0}
    )
    exchange.move(0.5, of="fetch", to="decode")
    assert exchange.timings() == {"fetch": 1.5, "decode": 0.5, "total": 2.0}
    exchange.move(9.0, of="fetch", to="decode")
    assert exchange.timings() == {"fetch": 0.0, "decode": 2.0, "total": 2.0}


def test_models_of_many_are_measured_besides_their_endpoint(documents: Any) -> None:
    metrics = Metrics(endpoint="lungs", of_models=True)
    metrics.segmented(result(network=2.0), None)
    metrics.failed(error_type="QueueFullError", seconds=0.1, model="m")
    found = values(documents())
    assert found["NetworkSeconds", "lungs"] == found["NetworkSeconds", "lungs", "m"] == 2.0
    assert found["Errors", "lungs"] == found["Errors", "lungs", "m"] == 1
    assert found["Errors", "lungs", "QueueFullError"] == 1
