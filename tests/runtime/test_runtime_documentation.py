"""docs/inference.md says what the code does: settings, errors, metrics, requests, answers, events, UIDs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from fastapi.testclient import TestClient
from pydicom.datadict import dictionary_description

from healthimaging import errors as healthimaging_errors
from healthimaging.grouping import GROUPING_ATTRIBUTES
from healthimaging.reference import ImageSetRef
from runtime.errors import InferenceError, RequestAbandonedError, SettingsError, report
from runtime.functions.announce.notifications import Notification
from runtime.functions.announce.results import FAILED, SOURCE, STORED, failed, stored
from runtime.functions.dispatch.runs import Run
from runtime.metrics import METRICS, NAMESPACE, PHASES
from runtime.operators.series_rules import SeriesRule
from runtime.reports import equipment
from runtime.results.answer import (
    Answer,
    ClassProbability,
    ModelIdentity,
    Result,
    SegmentVolume,
    StoredReport,
    StoredSegmentation,
    to_document,
)
from runtime.results.outputs import CLASSIFICATION_REPORT, Output
from runtime.serving.bodies import BODY_SECONDS, MAXIMUM_BODY_BYTES
from runtime.serving.memory import SHARE
from runtime.serving.request import MAXIMUM_INPUTS, parse_request
from runtime.serving.server import base_app
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")

NOTHING = "\N{EN DASH}"
"""In a cell of a table."""

NEVER_ANSWERED = {RequestAbandonedError, SettingsError}
"""The caller has left; the process has not begun to serve."""

NOT_OF_A_REQUEST = {
    "ServiceError",
    "StudyNotFoundError",
    "MixedPatientsError",
    "DuplicateInstanceError",
    "ManifestError",
}
"""Errors of healthimaging that are of studies and data sets, which the container does not read; and
ServiceError, which is answered by its code."""


def section(title: str) -> str:
    """The text below a heading, to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert match, f"docs/inference.md has no section {title!r}"
    text = match[2]
    return text if match[1] == "##" else re.split(r"^### ", text, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of every table, without headings."""
    found: list[list[str]] = []
    table: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        else:
            found += table[2:]
            table = []
    return found


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def examples(title: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section(title), re.DOTALL)]


class _Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


def test_every_variable_of_the_container_is_explained() -> None:
    asked = _Asked()
    settings = Settings.from_environment(asked)
    table = {quoted(name)[0]: (default, by) for name, default, _, by in rows(section("Settings"))}
    assert set(table) == asked.names
    assert {name: table[name][0].strip("`") for name in table} == {
        "SAGEMAKER_BASE_DIR": str(settings.base_directory),
        "SAGEMAKER_BIND_TO_PORT": str(settings.port),
        "SAGEMAKER_MULTI_MODEL": str(settings.multi_model).lower(),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "1",
        "RUNTIME_BIND_HOST": settings.host,
        "RUNTIME_ENDPOINT_NAME": settings.endpoint_name,
        "RUNTIME_SEGMENTATION_S3_URI": "no copies",
        "RUNTIME_OUTPUTS": "nothing",
        "RUNTIME_SERIES_RULES": "the bundle's modality",
        "RUNTIME_QUEUE_LENGTH": str(settings.queue_length),
        "RUNTIME_ARCHIVE_WAIT_SECONDS": f"{settings.archive_wait_seconds:.0f}",
        "RUNTIME_DRAIN_SECONDS": f"{settings.drain_seconds:.0f}",
        "RUNTIME_MODEL_MEMORY_MIB": f"{SHARE:.0%} of the container's".replace("%", " %"),
    }
    assert (settings.segmentation_copy, settings.outputs, settings.series_rules) == (None, frozenset(), ())
    elsewhere = Settings.from_environment({"SAGEMAKER_BASE_DIR": "/home/ml"})
    assert f"where `SAGEMAKER_BASE_DIR` says another folder, `{elsewhere.host}`" in section("Settings")
    by_platform = {name for name, (_, by) in table.items() if by not in (NOTHING, "SageMaker")}
    written = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "infra").rglob("*.py"))
    assert by_platform == set(re.findall(r'"(RUNTIME_\w+)"', written))


def _kinds(base: type[Any]) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _answered(error: BaseException) -> tuple[str, tuple[int, str]]:
    description = report(error)
    again = NOTHING if description.retry_after is None else str(description.retry_after)
    return description.type, (description.status, again)


def _made(kind: type[healthimaging_errors.HealthImagingError]) -> BaseException:
    """An error of this kind, whatever it wants to be told."""
    error = BaseException.__new__(kind)
    healthimaging_errors.HealthImagingError.__init__(error, "?")
    return error


def test_every_error_has_its_status_and_what_to_do() -> None:
    said = {}
    for types, status, again, advice in rows(section("Errors")):
        assert advice
        said |= {kind: (int(status), again) for kind in quoted(types)}
    wanted = dict(
        _answered(BaseException.__new__(kind))
        for kind in _kinds(InferenceError)
        if kind not in NEVER_ANSWERED and kind.__module__ == "runtime.errors"
    )
    assert len(wanted) > 20
    wanted |= dict(
        _answered(_made(kind))
        for kind in _kinds(healthimaging_errors.HealthImagingError)
        if kind.__name__ not in NOT_OF_A_REQUEST and kind.__module__ == healthimaging_errors.__name__
    )
    for code in (
        *("AccessDeniedException", "ConflictException", "ResourceNotFoundException", "ThrottlingException"),
        "ValidationException",
    ):
        wanted |= dict([_answered(ClientError({"Error": {"Code": code, "Message": "?"}}, "GetImageSet"))])
    wanted |= dict([_answered(KeyError("?"))])
    client = TestClient(base_app(lambda: True))
    for answer in (client.get("/nowhere"), client.post("/ping")):
        wanted[answer.json()["error"]["type"]] = (answer.status_code, NOTHING)
    assert said == wanted
    assert _answered(ClientError({"Error": {"Code": "Other", "Message": "?"}}, "X")) == (
        "Other",
        (502, NOTHING),
    )


def test_every_metric_is_explained() -> None:
    text = section("Metrics and log")
    assert f"`{NAMESPACE}`" in text
    said = {}
    for names, _, by in rows(text):
        for name in quoted(names):
            said[name] = (set(quoted(by)), by.endswith("alone"))
    assert said == {
        name: (
            {one for names in metric.dimensions for one in names} - {"Endpoint", "Model"},
            ("Endpoint",) not in metric.dimensions,
        )
        for name, metric in METRICS.items()
    }


def test_every_phase_is_a_step() -> None:
    steps = rows(section("What happens to a request"))
    named = [phase for _, _, phases in (row for row in steps if len(row) == 3) for phase in quoted(phases)]
    assert sorted([*named, "total"]) == sorted(PHASES)


def test_the_forms_of_a_request_are_taken() -> None:
    text = section("The request")
    assert f"at most {MAXIMUM_BODY_BYTES // 2**20} MiB" in text
    assert f"1 to {MAXIMUM_INPUTS}" in text
    assert f"within {BODY_SECONDS:.0f} s" in section("Errors")
    bodies = [quoted(body)[0] for body, _ in rows(text)]
    assert len(bodies) == 4
    for body in bodies:
        body = body.replace("[those]", f"[{bodies[0]}, {bodies[1]}]")
        body = body.replace(": D", f': "{"d" * 32}"').replace(": I", f': "{"a" * 32}"')
        body = body.replace("ahi://D/I", f"ahi://{'d' * 32}/{'a' * 32}")
        found = parse_request(body.encode())
        assert {(one.datastore_id, one.image_set_id) for one in found} == {("d" * 32, "a" * 32)}


def _result(document: Any) -> Result:
    def report_of(one: Any) -> StoredReport:
        return StoredReport(
            kind=one["kind"],
            series_instance_uid=one["seriesInstanceUid"],
            sop_instance_uid=one["sopInstanceUid"],
            image_set_id=one["imageSetId"],
            is_primary=one["isPrimary"],
            s3_uri=one["s3Uri"],
        )

    segmentation = document["segmentation"]
    return Result(
        image_set_id=document["imageSetId"],
        version_id=document["versionId"],
        segmentation=StoredSegmentation(
            series_instance_uid=segmentation["seriesInstanceUid"],
            sop_instance_uid=segmentation["sopInstanceUid"],
            image_set_id=segmentation["imageSetId"],
            is_primary=segmentation["isPrimary"],
            s3_uri=segmentation["s3Uri"],
        ),
        segments=tuple(
            SegmentVolume(label=one["label"], volume_ml=one["volumeMl"]) for one in document["segments"]
        ),
        classes=tuple(ClassProbability(**one) for one in document["classes"]),
        reports=tuple(report_of(one) for one in document["reports"]),
        model=ModelIdentity(**document["model"]),
        seconds=document["seconds"],
    )


def test_the_answer_has_the_form_that_is_shown() -> None:
    (example,) = examples("The answer")
    results = tuple(_result(document) for document in example["results"])
    assert to_document(Answer(results=results)) == example
    assert set(results[0].seconds) == set(PHASES)
    assert f"`{CLASSIFICATION_REPORT}`" in section("The answer")


def test_the_events_are_those_of_that_answer() -> None:
    (answer,) = examples("The answer")
    success, failure = examples("Result events")
    text = section("Result events")
    for word in (SOURCE, STORED, FAILED):
        assert word in text
    (image_set,) = failure["imageSets"]
    of = Notification(
        run_id=success["runId"],
        endpoint=success["endpoint"],
        completed=True,
        request_uri=failure["request"],
        output_uri=success["answer"],
        ended="2026-01-01T00:00:00Z",
        reason=None,
    )
    (detail,) = stored(answer, of=of, datastore_id=success["datastoreId"])
    assert re.fullmatch(r"[0-9a-f]{32}", detail["id"])
    assert detail | {"id": "EVENT_ID"} == success
    told = failed(image_set, of=of, failure_uri=failure["failure"], error_type=failure["error"]["type"])
    assert told | {"id": "EVENT_ID"} == failure
    assert failure["runId"] == success["runId"]
    assert len(success["runId"]) == len(_run_id()), "as the event path names its runs"


def _run_id() -> str:
    image_set = ImageSetRef(datastore_id="d" * 32, image_set_id="a" * 32, version_id="1")
    return Run(image_set=image_set, images="0", endpoint="e", model="m").id


def test_every_stored_object_is_listed_with_its_series_number() -> None:
    table = {row[0].strip("`"): row for row in rows(section("What is stored"))}
    numbers = {
        "SEG": equipment.SEGMENTATION_SERIES_NUMBER,
        CLASSIFICATION_REPORT: equipment.CLASSIFICATION_SERIES_NUMBER,
        Output.MEASUREMENT_REPORT.value: equipment.MEASUREMENT_SERIES_NUMBER,
        Output.SNAPSHOT.value: equipment.SNAPSHOT_SERIES_NUMBER,
    }
    assert set(table) == {*numbers, Output.NIFTI.value} == {"SEG", CLASSIFICATION_REPORT, *Output}
    assert {name: int(table[name][3]) for name in numbers} == numbers
    assert set(quoted(next(row for row in rows(section("Settings")) if "OUTPUTS" in row[0])[2])) == set(
        Output
    )
    text = section("What is stored").replace("\n  ", " ")
    for keyword in GROUPING_ATTRIBUTES:
        assert dictionary_description(keyword) in text
    assert f"Manufacturer is `{equipment.MANUFACTURER}`" in text


def test_the_rules_that_are_shown_are_rules() -> None:
    (example,) = examples("Which series")
    rules = [SeriesRule.from_document(document) for document in example]
    assert rules[0] == SeriesRule(modality="CT", body_part="CHEST", image_type=("AXIAL",), minimum_slices=40)
    conditions = {key for document in example for key in document}
    assert conditions == {"modality", "bodyPart", "description", "imageType", "minimumSlices"}
