"""A serving process with many models, over HTTP, against the local cloud."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from running_endpoint import Archive, Endpoint, start_endpoint
from synthetic_bundle import metadata, write_bundle
from synthetic_patient import make_patient


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud, "multi-model")


@pytest.fixture(scope="module")
def endpoint(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    base = tmp_path_factory.mktemp("multi-model")
    lung, liver = {"0": "background", "1": "lung"}, {"0": "background", "1": "liver"}
    write_bundle(base / "models/lung/model", meta=metadata(lung, name="lungs"))
    write_bundle(base / "models/liver/model", meta=metadata(liver, name="livers"), seed=7)
    write_bundle(base / "models/broken/model")
    (base / "models/broken/model/configs/metadata.json").write_text("{}")
    started = start_endpoint(base, {**cloud.environment, "SAGEMAKER_MULTI_MODEL": "true"})
    yield started
    started.stop()


def _load(endpoint: Endpoint, name: str, *, of: str) -> httpx.Response:
    url = endpoint.log_file.parent / "models" / of / "model"
    return httpx.post(
        f"{endpoint.url}/models", json={"model_name": name, "url": str(url)}, timeout=120, trust_env=False
    )


def _invoke(endpoint: Endpoint, name: str, document: Any) -> httpx.Response:
    return httpx.post(f"{endpoint.url}/models/{name}/invoke", json=document, timeout=120, trust_env=False)


def test_models_come_and_go_and_never_mix_until_sigterm(endpoint: Endpoint, archive: Archive) -> None:
    first = [one for one in endpoint.pings if one]
    assert first[0] == 200, "at once: no model is needed"
    image_sets = [archive.store(make_patient(f"M-{seed}", seed=seed)) for seed in (31, 32)]

    broken = _load(endpoint, "b", of="broken")
    assert (broken.status_code, broken.json()["error"]["type"]) == (422, "BundleError")
    for name, of in (("1", "lung"), ("2", "liver"), ("3", "lung")):
        assert _load(endpoint, name, of=of).status_code == 200

    with ThreadPoolExecutor(4) as pool:
        pending = {
            (name, one): pool.submit(_invoke, endpoint, name, archive.request(one))
            for one in image_sets
            for name in ("1", "2")
        }
        results = {}
        for key, answer in pending.items():
            assert answer.result().status_code == 200, answer.result().text
            (results[key],) = answer.result().json()["results"]
    assert len({one["segmentation"]["seriesInstanceUid"] for one in results.values()}) == 4
    for (name, image_set), one in results.items():
        assert one["imageSetId"] == image_set
        assert one["model"]["name"] == {"1": "lungs", "2": "livers"}[name]
        assert [part["label"] for part in one["segments"]] == [{"1": "lung", "2": "liver"}[name]]

    (again,) = _invoke(endpoint, "3", archive.request(image_sets[0])).json()["results"]
    assert again["segmentation"] == results["1", image_sets[0]]["segmentation"], (
        "the same model by another name"
    )
    assert "network" not in again["seconds"]

    assert httpx.delete(f"{endpoint.url}/models/1", trust_env=False, timeout=60).status_code == 200
    gone = _invoke(endpoint, "1", archive.request(image_sets[0]))
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "ModelNotLoadedError")
    assert _invoke(endpoint, "3", archive.request(image_sets[1])).status_code == 200

    lines = [json.loads(line) for line in endpoint.log.splitlines()]
    costs = [line["mebibytes"] for line in lines if line["message"] == "model is loaded"]
    assert len(costs) == 3
    assert all(cost < 400 for cost in costs), "what torch itself takes is no part of a model"
    modelled = {line["Model"] for line in lines if "NetworkSeconds" in line}
    assert modelled == {"lungs", "livers"}

    endpoint.process.send_signal(signal.SIGTERM)
    assert endpoint.process.wait(timeout=20) == 0, endpoint.log[-2000:]
