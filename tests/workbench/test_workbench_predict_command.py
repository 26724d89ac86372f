"""`monai-aws predict` and `monai-aws dead-letters`: what they take, what they print, and their exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_workbench_dead_letters import World
from test_workbench_predict import RESULT
from typer.testing import CliRunner

from healthimaging.reference import ImageSetRef
from workbench import main
from workbench.dead_letters import command as dead_letters_command
from workbench.predicting import command as predict_command
from workbench.predicting.answer import read_answer
from workbench.predicting.batch import BatchFailure, BatchResult

IMAGE = ImageSetRef(datastore_id="d" * 32, image_set_id="a" * 32, version_id="4")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the commands would ask, without a cloud."""
    found: dict[str, Any] = {}

    def predict(_deployment: object, image: ImageSetRef, **options: Any) -> Any:
        found.update(image=image, **options)
        return read_answer({"results": [RESULT]})

    def batch(_deployment: object, images: Any, **options: Any) -> BatchResult:
        found.update(images=list(images), **options)
        failure = BatchFailure(image_set_id="b" * 32, version_id="1", reason="MissingSliceError: slice 7")
        return BatchResult(
            job="job",
            status="Failed",
            seconds=90.0,
            results=(read_answer({"results": [RESULT]}),),
            failures=(failure,),
            log=("last words",),
        )

    for name, stand_in in {
        "deployment_of": lambda _env: None,
        "reference": lambda _deployment, one, _version: ImageSetRef(
            datastore_id="d" * 32, image_set_id=one, version_id="4"
        ),
        "predict": predict,
        "predict_batch": batch,
        "images_of_manifest": lambda _deployment, uri: [f"of {uri}"],
        "images_of_query": lambda _deployment, sql: [f"of {sql}"],
    }.items():
        monkeypatch.setattr(predict_command, name, stand_in)
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main.app, list(arguments))


def test_one_image_set_and_its_results(asked: dict[str, Any]) -> None:
    answer = run("predict", "a" * 32, "--endpoint", "lung-now", "--model", "lung")
    assert answer.exit_code == 0
    assert (asked["image"], asked["endpoint"], asked["model"]) == (IMAGE, "lung-now", "lung")
    for text in ("lung: 4000.5 ml", "image set s", "measurement-report: image set r, NOT PRIMARY"):
        assert text in answer.output
    document = json.loads(run("predict", "a" * 32, "--json").output)
    assert document == RESULT


def test_a_batch_prints_one_result_a_line_and_fails_with_its_failures(asked: dict[str, Any]) -> None:
    answer = run("predict", "--batch", "a" * 32, "b" * 32, "--endpoint", "lung-batch")
    assert answer.exit_code == 1
    assert [one.image_set_id[0] for one in asked["images"]] == ["a", "b"]
    lines = answer.output.splitlines()
    assert lines[0] == "i version 2: lung 4000.5 ml -> image set s, NOT PRIMARY"
    assert lines[1] == f"FAILED {'b' * 32} version 1: MissingSliceError: slice 7"
    assert "last words" in lines[2]
    assert "name the failed image sets again" in answer.output
    document = json.loads(run("predict", "--batch", "a" * 32, "--json").output)
    assert (document["ok"], len(document["results"]), len(document["failures"])) == (False, 1, 1)


def test_a_batch_takes_a_manifest_or_a_query(asked: dict[str, Any]) -> None:
    run("predict", "--batch", "s3://models/manifests/a.json")
    assert asked["images"] == ["of s3://models/manifests/a.json"]
    run("predict", "--batch", "--query", "SELECT * FROM series")
    assert asked["images"] == ["of SELECT * FROM series"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "a", "b"],
        ["predict", "--query", "SELECT"],
        ["predict", "--batch"],
        ["predict", "--batch", "a", "--query", "SELECT"],
        ["predict", "--batch", "s3://one", "s3://two"],
        ["predict", "--batch", "a", "s3://two"],
        ["predict", "--batch", "a", "--image-version", "2"],
        ["predict", "--batch", "a", "--model", "m"],
        ["dead-letters", "replay"],
        ["dead-letters", "replay", "run-1", "--all"],
    ],
)
def test_what_is_not_clear_is_not_done(asked: dict[str, Any], arguments: list[str]) -> None:
    answer = run(*arguments, "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.output)["error"]["advice"]
    assert not asked


def test_dead_letters_are_listed_and_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(dead_letters_command, "deployment_of", lambda _env: world.deployment)
    listed = run("dead-letters", "list").output
    assert "why: MissingSliceError" in listed
    assert "Canary" not in listed
    found = json.loads(run("dead-letters", "list", "--json").output)["deadLetters"]
    assert [one["place"] for one in found] == ["dispatch", "dispatch", "request", "dispatch"]
    assert "2 letters sent again" in run("dead-letters", "replay", "run-1", "message-1").output
    assert "1 letter thrown away" in run("dead-letters", "discard", "message-2").output
    assert len(json.loads(run("dead-letters", "replay", "--all", "--json").output)["replayed"]) == 2
