"""SageMaker's container contract, kept by the built inference image.

Source: docs.aws.amazon.com/sagemaker/latest/dg, "Use Your Own Inference Code with Hosting Services", "...
with Batch Transform", "Build Your Own Container for SageMaker AI Multi-Model Endpoints".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloud_under_test import free_port
from container_under_test import ContainerUnderTest, ImageUnderTest
from running_endpoint import Archive
from synthetic_bundle import write_bundle
from synthetic_patient import make_patient

START_LIMIT = 240
"""Seconds: what SageMaker gives a container before it is called unhealthy."""


@pytest.fixture(scope="module")
def image_set_id(archive: Archive) -> str:
    return archive.store(make_patient("IMAGE-1", seed=21))


@pytest.fixture(scope="module")
def serving(
    runtime_image: ImageUnderTest,
    cloud: Any,
    tmp_path_factory: pytest.TempPathFactory,
    record: dict[str, Any],
) -> Iterator[ContainerUnderTest]:
    base = tmp_path_factory.mktemp("serving") / "ml"
    write_bundle(base / "model")
    port = free_port()
    with runtime_image.started(
        "serve",
        base=base,
        port=port,
        environment={**cloud.environment, "SAGEMAKER_BIND_TO_PORT": str(port)},
        read_only=["model"],
    ) as container:
        container.wait_until_healthy()
        record["startSeconds"] = {
            "firstAnswer": round(container.seconds_to_first_answer, 1),
            "healthy": round(container.seconds_to_healthy, 1),
        }
        yield container


def _one(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert isinstance(result, dict)
    return result


def test_it_answers_503_while_the_model_loads_and_200_then(serving: ContainerUnderTest) -> None:
    answers = [status for status in serving.pings if status]
    assert answers[0] == 503
    assert answers[-1] == 200
    assert serving.seconds_to_healthy < START_LIMIT
    started = time.monotonic()
    assert serving.request("GET", "/ping").content == b""
    assert time.monotonic() - started < 2


def test_the_port_is_the_one_that_sagemaker_names(serving: ContainerUnderTest) -> None:
    assert serving.ping() == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:8080/ping", timeout=5, trust_env=False)


def test_a_request_stores_a_segmentation(
    serving: ContainerUnderTest, archive: Archive, image_set_id: str
) -> None:
    result = _one(serving.invoke(archive.request(image_set_id)))
    (summary,) = archive.image_sets(result["segmentation"]["seriesInstanceUid"])
    assert (summary["imageSetId"], summary["isPrimary"]) == (result["segmentation"]["imageSetId"], True)
    assert archive.segmentation(result).PatientID == "IMAGE-1"
    assert result["segments"][0]["volumeMl"] > 0


def test_an_asynchronous_invocation_is_the_same_request(
    serving: ContainerUnderTest, archive: Archive, image_set_id: str
) -> None:
    first = _one(serving.invoke(archive.request(image_set_id)))
    again = _one(
        serving.invoke(
            archive.request(image_set_id),
            X_Amzn_SageMaker_Inference_Id="asynchronous-1",
            X_Amzn_SageMaker_InvocationTimeoutSeconds="900",
        )
    )
    assert again["segmentation"] == first["segmentation"]


def test_batch_transform_learns_how_to_call_and_sends_several(
    serving: ContainerUnderTest, archive: Archive, image_set_id: str
) -> None:
    parameters = serving.request("GET", "/execution-parameters").json()
    assert parameters["BatchStrategy"] == "SINGLE_RECORD"
    assert 0 < parameters["MaxConcurrentTransforms"] * parameters["MaxPayloadInMB"] <= 100
    other = archive.store(make_patient("IMAGE-2", seed=22))
    answer = serving.invoke({"inputs": [archive.request(image_set_id), archive.request(other)]})
    assert [one["imageSetId"] for one in answer.json()["results"]] == [image_set_id, other]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe not text", 400),
        (b"[]", 400),
        (b'{"inputs": []}', 400),
        (b'{"datastoreId": "short", "imageSetId": "../../etc/passwd"}', 400),
        (b'{"inputs": [{}], "inputs": 1', 400),
    ],
)
def test_wrong_input_is_the_callers_error(serving: ContainerUnderTest, body: bytes, status: int) -> None:
    answer = serving.request(
        "POST", "/invocations", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"type", "message"}
    assert serving.ping() == 200


def test_what_is_not_there_is_an_error_and_the_next_request_is_good(
    serving: ContainerUnderTest, archive: Archive, image_set_id: str
) -> None:
    assert serving.invoke(archive.request("0" * 32)).status_code == 404
    assert serving.request("GET", "/nowhere").status_code == 404
    assert serving.request("GET", "/invocations").status_code == 405
    assert _one(serving.invoke(archive.request(image_set_id)))["imageSetId"] == image_set_id


def test_logs_are_json_without_the_patient(serving: ContainerUnderTest) -> None:
    # Lines that buildah writes are not the container's.
    lines = [json.loads(line) for line in serving.log.splitlines() if line.startswith("{")]
    assert any(line.get("message") == "answered" for line in lines)
    assert "IMAGE-1" not in serving.log


def test_sigterm_answers_the_request_in_flight(
    runtime_image: ImageUnderTest, cloud: Any, archive: Archive, tmp_path: Path
) -> None:
    """On port 8080, because SageMaker names none unless the container is one of several."""
    waiting = [archive.store(make_patient(f"IMAGE-{seed}", seed=seed)) for seed in (31, 32)]
    write_bundle(tmp_path / "ml" / "model", seed=3)
    with (
        runtime_image.started(
            "serve", base=tmp_path / "ml", environment=cloud.environment, read_only=["model"]
        ) as container,
        ThreadPoolExecutor(2) as pool,
    ):
        container.wait_until_healthy()
        pending = [pool.submit(container.invoke, archive.request(one)) for one in waiting]
        time.sleep(0.3)
        container.terminate()
        assert [_one(answer.result())["imageSetId"] for answer in pending] == waiting
        assert container.wait(30) == 0
        assert container.ping() == 0


def test_many_models_are_loaded_listed_invoked_and_unloaded(
    runtime_image: ImageUnderTest, cloud: Any, archive: Archive, image_set_id: str, tmp_path: Path
) -> None:
    base, port = tmp_path / "ml", free_port()
    for name, seed in (("first", 4), ("second", 5)):
        write_bundle(base / "models" / name / "model", seed=seed)
    environment = {
        **cloud.environment,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_MULTI_MODEL": "true",
    }
    with runtime_image.started(
        "serve", base=base, port=port, environment=environment, read_only=["models"]
    ) as container:
        container.wait_until_healthy()

        def load(name: str) -> int:
            document = {"model_name": name, "url": f"/opt/ml/models/{name}/model"}
            return container.request("POST", "/models", json=document).status_code

        def invoke(name: str) -> httpx.Response:
            return container.request("POST", f"/models/{name}/invoke", json=archive.request(image_set_id))

        assert invoke("first").status_code == 404
        assert [load("first"), load("second"), load("first")] == [200, 200, 409]
        listed = container.request("GET", "/models").json()["models"]
        assert {one["modelName"] for one in listed} == {"first", "second"}
        results = [_one(invoke(name)) for name in ("first", "second")]
        assert len({one["segmentation"]["seriesInstanceUid"] for one in results}) == 2
        assert container.request("DELETE", "/models/first").status_code == 200
        assert [invoke("first").status_code, invoke("second").status_code] == [404, 200]


def test_any_other_argument_is_refused(runtime_image: ImageUnderTest, cloud: Any, tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    with runtime_image.started("train", base=tmp_path / "ml", environment=cloud.environment) as container:
        assert container.wait(60) != 0
        assert "usage: python -m runtime serve" in container.log


def test_a_model_that_cannot_be_served_ends_the_container(
    runtime_image: ImageUnderTest, cloud: Any, tmp_path: Path
) -> None:
    (tmp_path / "ml" / "model").mkdir(parents=True)
    with runtime_image.started("serve", base=tmp_path / "ml", environment=cloud.environment) as container:
        assert container.wait(120) != 0
        assert "the model cannot be served" in container.log
