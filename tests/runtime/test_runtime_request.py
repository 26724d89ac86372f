"""Requests, settings, selection rules and identities: everything that is decided before a pixel is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset

from runtime.errors import (
    InvalidRequestError,
    NoMatchingSeriesError,
    SettingsError,
    SeveralMatchingSeriesError,
)
from runtime.operators.image_set_loader import identified
from runtime.operators.series_rules import SeriesRule, select_series
from runtime.results.identity import ResultIdentity
from runtime.serving.request import MAXIMUM_INPUTS, parse_request
from runtime.settings import S3Prefix, Settings

STORE, SET = "d" * 32, "0123456789abcdef" * 2
ONE = {"datastoreId": STORE, "imageSetId": SET}


def _parse(document: Any) -> Any:
    return parse_request(json.dumps(document).encode())


def test_both_forms_of_a_request() -> None:
    (alone,) = _parse(ONE)
    assert (alone.datastore_id, alone.image_set_id, alone.version_id) == (STORE, SET, None)
    first, second = _parse({"inputs": [ONE, ONE | {"versionId": "3"}]})
    assert (first.version_id, second.version_id) == (None, "3")
    assert _parse(ONE | {"versionId": 2})[0].version_id == "2"
    assert _parse(ONE | {"versionId": None})[0].version_id is None


def test_how_the_workshop_names_an_image_set() -> None:
    """aws-samples/monai-on-aws-workshop: Lab-3 and Lab-4 of ModelInference, and NIMonSageMaker."""
    for document in (ONE, {"inputs": [ONE]}, {"image": f"ahi://{STORE}/{SET}"}):
        (one,) = _parse(document)
        assert (one.datastore_id, one.image_set_id, one.version_id) == (STORE, SET, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a JSON document"),
        (b"{", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"{}", "datastoreId: Field required; imageSetId: Field required"),
        (json.dumps(ONE | {"datastoreId": 7}).encode(), "datastoreId"),
        (json.dumps(ONE | {"imageSetId": "UPPER" + SET[5:]}).encode(), "imageSetId"),
        (json.dumps(ONE | {"imageSetId": SET + "\n"}).encode(), "imageSetId"),
        (json.dumps(ONE | {"imageSetId": "../" + SET[3:]}).encode(), "imageSetId"),
        (json.dumps(ONE | {"versionId": "latest"}).encode(), "versionId"),
        (json.dumps(ONE | {"versionId": -1}).encode(), "versionId"),
        (json.dumps(ONE | {"versionId": True}).encode(), "versionId"),
        (json.dumps(ONE | {"versionId": 1.0}).encode(), "versionId"),
        (json.dumps(ONE | {"patient": "x"}).encode(), "a member that is not known: Extra inputs"),
        (json.dumps({"inputs": []}).encode(), "inputs: List should have at least 1"),
        (json.dumps({"inputs": ONE}).encode(), "inputs"),
        (json.dumps({"inputs": [ONE, {}]}).encode(), "inputs.1.datastoreId"),
        (json.dumps({"inputs": [ONE], **ONE}).encode(), "Extra inputs"),
        (json.dumps({"image": f"ahi://{STORE}"}).encode(), "image: String should match"),
        (json.dumps({"image": f"ahi://{STORE}/{SET}/1"}).encode(), "image: String should match"),
        (json.dumps({"image": f"s3://{STORE}/{SET}"}).encode(), "image: String should match"),
        (json.dumps({"image": 7}).encode(), "image: Input should be a valid string"),
        (json.dumps({"image": f"ahi://{STORE}/{SET}", "prompts": {}}).encode(), "not known: Extra inputs"),
        (json.dumps({"image": f"ahi://{STORE}/{SET}", "inputs": [ONE]}).encode(), "not known: Extra inputs"),
        (f'{{"datastoreId": "{STORE}", "imageSetId": "{SET}", "imageSetId": "{STORE}"}}'.encode(), "twice"),
        (json.dumps({"inputs": [ONE] * (MAXIMUM_INPUTS + 1)}).encode(), "at most 100"),
    ],
)
def test_bad_requests_are_explained(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        parse_request(body)


def test_identity_depends_on_everything_and_nothing_else() -> None:
    base = {"image_set_id": SET, "version_id": "1", "model_fingerprint": "f" * 64}
    identity = ResultIdentity(**base)
    assert identity == ResultIdentity(**base)
    uids = {identity.series_instance_uid, identity.sop_instance_uid}
    for change in ({"image_set_id": STORE}, {"version_id": "2"}, {"model_fingerprint": "e" * 64}):
        other = ResultIdentity(**(base | change))
        uids |= {other.series_instance_uid, other.sop_instance_uid}
    assert len(uids) == 8
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    # Stored results are found by these UIDs: they may not change from one release to the next.
    assert identity.series_instance_uid == "2.25.34206854231467391057608817293539801556"


def _image_set(*series: str) -> Any:
    def header(uid: str) -> Dataset:
        made = Dataset()
        made.SeriesInstanceUID, made.Modality, made.NumberOfFrames = uid, "CT", 9
        made.SeriesDescription = f"series {uid}"
        return made

    return SimpleNamespace(
        ref=SimpleNamespace(image_set_id=SET, version_id="1"),
        metadata=SimpleNamespace(series=dict.fromkeys(series)),
        datasets=lambda *, pixels: [header(uid) for uid in series],
    )


def test_other_rules_never_find_the_result_of_another_series() -> None:
    """An image set of several series: what the archive holds of one is no answer for the other."""

    def identity(image_set: Any, description: str) -> ResultIdentity:
        rules = [SeriesRule(modality="CT", description=description)]
        return identified(image_set, model_fingerprint="f" * 64, rules=rules).identity

    both = _image_set("1.2.1", "1.2.2")
    first, second = identity(both, "1$"), identity(both, "2$")
    assert first.series_instance_uid != second.series_instance_uid
    assert first == identity(both, r"1\.2\.1")
    with pytest.raises(SeveralMatchingSeriesError):
        identity(both, "series")
    # The rules have no choice here: other words for it are the same result.
    alone = _image_set("1.2.1")
    assert identity(alone, "1$") == identity(alone, "series") != first


def test_settings_come_from_the_environment() -> None:
    container = Settings.from_environment({})
    assert str(container.model_directory) == "/opt/ml/model"
    assert container.host != "127.0.0.1"
    assert Settings.from_environment({"SAGEMAKER_BASE_DIR": "/somewhere"}).host == "127.0.0.1"
    settings = Settings.from_environment(
        {
            "SAGEMAKER_BASE_DIR": "/somewhere",
            "SAGEMAKER_BIND_TO_PORT": "9000",
            "RUNTIME_BIND_HOST": "10.0.0.1",
            "RUNTIME_QUEUE_LENGTH": "2",
            "RUNTIME_ARCHIVE_WAIT_SECONDS": "1.5",
            "RUNTIME_DRAIN_SECONDS": "10",
            "SAGEMAKER_MULTI_MODEL": "true",
            "RUNTIME_MODEL_MEMORY_MIB": "2048",
            "RUNTIME_SERIES_RULES": '[{"modality": "CT", "imageType": ["AXIAL"], "minimumSlices": 10}]',
            "RUNTIME_SEGMENTATION_S3_URI": "s3://results/seg/",
        }
    )
    assert settings == Settings(
        base_directory=settings.base_directory,
        port=9000,
        host="10.0.0.1",
        queue_length=2,
        archive_wait_seconds=1.5,
        drain_seconds=10.0,
        multi_model=True,
        model_memory_mib=2048,
        series_rules=(SeriesRule(modality="CT", image_type=("AXIAL",), minimum_slices=10),),
        segmentation_copy=S3Prefix(bucket="results", key="seg"),
    )


_SERVED = """
import os, sys
import runtime.__main__ as program, runtime.serving.serve as serving
serving.serve = lambda settings: print(os.environ["AWS_DEFAULT_REGION"], file=sys.__stdout__) or 0
sys.exit(program.main(["serve"]))
"""


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, "us-east-1"),
    ],
)
def test_the_region_is_found_by_either_name(named: dict[str, str], wanted: str) -> None:
    others = {name: value for name, value in os.environ.items() if not name.endswith("_REGION")}
    ended = subprocess.run(
        [sys.executable, "-c", _SERVED], env=others | named, capture_output=True, text=True, check=True
    )
    assert wanted in ended.stdout.splitlines()


def test_a_transform_job_never_finds_the_queue_full() -> None:
    def length(**environment: str) -> int:
        return Settings.from_environment(environment).queue_length

    assert length(SAGEMAKER_BATCH="true", SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="1") == 4
    assert length(SAGEMAKER_BATCH="true", SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="20") == 19
    assert length(SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="20", RUNTIME_QUEUE_LENGTH="50") == 50


def test_every_bad_setting_is_reported() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(
            {
                "SAGEMAKER_BIND_TO_PORT": "99999",
                "RUNTIME_QUEUE_LENGTH": "many",
                "RUNTIME_DRAIN_SECONDS": "0",
                "SAGEMAKER_MULTI_MODEL": "1",
                "RUNTIME_MODEL_MEMORY_MIB": "-5",
                "RUNTIME_ARCHIVE_WAIT_SECONDS": "nan",
                "RUNTIME_SERIES_RULES": '[{"modalty": "CT"}]',
                "RUNTIME_SEGMENTATION_S3_URI": "results/seg",
            }
        )
    for part in (
        "BIND_TO_PORT: '99999'",
        "LENGTH: 'many'",
        "DRAIN_SECONDS: '0'",
        "MULTI_MODEL: '1'",
        "MEMORY_MIB: '-5'",
        "SECONDS: 'nan'",
        "condition modalty",
        "s3://bucket",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "rules",
    ["{", "{}", "[]", "[1]", '[{"description": "("}]', '[{"modality": 1}]', '[{"minimumSlices": true}]'],
)
def test_bad_rules_are_refused(rules: str) -> None:
    with pytest.raises(SettingsError, match="RUNTIME_SERIES_RULES"):
        Settings.from_environment({"RUNTIME_SERIES_RULES": rules})


def _series(modality: str = "CT", slices: int = 30, **attributes: Any) -> list[Dataset]:
    headers = []
    for _ in range(slices):
        header = Dataset()
        header.Modality = modality
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
        headers.append(header)
    return headers


def test_the_first_rule_that_matches_decides() -> None:
    candidates = {
        "1.1": _series(SeriesDescription="Localizer", slices=2),
        "1.2": _series(SeriesDescription="Lung 1.0 B60f", BodyPartExamined="chest "),
        "1.3": _series(SeriesDescription="Abdomen 3.0", BodyPartExamined="ABDOMEN"),
    }
    lung = SeriesRule(modality="ct", description=r"\blung\b", minimum_slices=10)
    assert select_series(candidates, [lung], image_set_id=SET) == "1.2"
    body_part = SeriesRule(body_part="CHEST")
    assert select_series(candidates, [SeriesRule(modality="MR"), body_part], image_set_id=SET) == "1.2"


def test_no_match_says_why_without_quoting_the_header() -> None:
    candidates = {"1.1": _series(modality="SEG", SeriesDescription="Smith^John", slices=1)}
    rule = SeriesRule(modality="CT", description="lung", image_type=("DERIVED",), body_part="CHEST")
    with pytest.raises(NoMatchingSeriesError) as raised:
        select_series(candidates, [rule], image_set_id=SET)
    text = str(raised.value)
    for part in ("1.1", "modality is not CT", "description", "lacks DERIVED", "body part", "1 slices"):
        assert part in text
    assert "Smith" not in text
    with pytest.raises(NoMatchingSeriesError, match="holds no series"):
        select_series({}, [rule], image_set_id=SET)


def test_several_matches_are_refused() -> None:
    candidates = {"1.2": _series(), "1.1": _series()}
    with pytest.raises(SeveralMatchingSeriesError, match=r"2 series match: 1\.1, 1\.2"):
        select_series(candidates, [SeriesRule(modality="CT")], image_set_id=SET)


def test_frames_of_multi_frame_instances_count_as_slices() -> None:
    candidates = {"1.1": _series(slices=1, NumberOfFrames=40)}
    rule = SeriesRule(modality="CT", minimum_slices=40)
    assert select_series(candidates, [rule], image_set_id=SET) == "1.1"
