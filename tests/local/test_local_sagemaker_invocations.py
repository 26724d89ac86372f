"""What InvokeEndpoint passes on and where it draws the line, for every kind of real-time endpoint."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench

from local.sagemaker.hosting import ModelTimeoutError, Reply
from local.sagemaker.multi_model import (
    ModelNotLoadedError,
    MultiModelServer,
)
from local.sagemaker.runtime import SageMakerRuntimeService
from local.service import Call, Caller, ServiceError

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def bench(cloud: Any) -> Workbench:
    return Workbench(cloud)


@pytest.fixture(scope="module")
def hosting(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Hosting:
    return Hosting(bench, bench.image(tmp_path_factory.mktemp("server"), SERVER, tag="server"))


def test_headers_variants_and_the_size_of_a_request(bench: Workbench, hosting: Hosting) -> None:
    variants = [
        {
            "VariantName": name,
            "ModelName": hosting.model(name),
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": weight,
        }
        for name, weight in (("always", 1.0), ("never", 0.0))
    ]
    name = f"{bench.name}-two"
    bench.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert hosting.settled(name)["EndpointStatus"] == "InService"
    assert {hosting.invoke(name, b"x")["model"] for _ in range(5)} == {"always"}
    answer = bench.runtime.invoke_endpoint(
        EndpointName=name, Body=b"x", TargetVariant="never", CustomAttributes="trace=1", InferenceId="i-1"
    )
    assert answer["InvokedProductionVariant"] == "never"
    assert answer["CustomAttributes"] == "seen"
    assert json.loads(answer["Body"].read())["headers"] == {
        "custom-attributes": "trace=1",
        "inference-id": "i-1",
        "target-variant": "never",
    }
    with pytest.raises(bench.runtime.exceptions.ValidationError, match="length less than or equal to"):
        hosting.invoke(name, bytes(25 * MEGABYTE + 1))
    with pytest.raises(bench.runtime.exceptions.ValidationError, match="'EndpointName' failed"):
        hosting.invoke("no name", b"x")
    for member in ("TargetContainerHostname", "SessionId"):
        with pytest.raises(ClientError, match=f"{member} is not supported"):
            hosting.invoke(name, b"x", **{member: "x"})


def test_a_serverless_variant_has_limits_of_its_own(bench: Workbench, hosting: Hosting) -> None:
    def config(name: str, *, model: str, memory: int = 2048, **more: Any) -> str:
        full = f"{bench.name}-{name}"
        variant = {
            "VariantName": "main",
            "ModelName": model,
            "ServerlessConfig": {"MemorySizeInMB": memory, "MaxConcurrency": 1},
        }
        bench.sagemaker.create_endpoint_config(
            EndpointConfigName=full, ProductionVariants=[variant | more.pop("variant", {})], **more
        )
        return full

    model = hosting.model("serverless")
    name = f"{bench.name}-serverless"
    bench.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config("serverless", model=model))
    described = hosting.settled(name)
    assert described["EndpointStatus"] == "InService"
    summary = described["ProductionVariants"][0]
    assert summary["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    assert "CurrentInstanceCount" not in summary
    assert hosting.invoke(name, b"x")["model"] == "serverless"
    with pytest.raises(bench.runtime.exceptions.ValidationError, match=str(4 * MEGABYTE)):
        hosting.invoke(name, bytes(4 * MEGABYTE + 1))
    # Without a retry of the client's, which would wait until there is room again.
    once = bench.cloud.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(hosting.invoke, name, b"sleep 2")
        time.sleep(0.7)
        with pytest.raises(ClientError, match="MaxConcurrency=1"):
            once.invoke_endpoint(EndpointName=name, Body=b"x")
        assert slow.result()["body"] == "sleep 2"
    assert hosting.invoke(name, b"y")["body"] == "y"

    output = {"OutputConfig": {"S3OutputPath": bench.uri("responses")}}
    for number, (text, more) in enumerate(
        (
            ("InstanceType", {"variant": {"InstanceType": "ml.m5.large"}}),
            ("AsyncInferenceConfig", {"AsyncInferenceConfig": output}),
            ("1024 to 6144 by 1024", {"memory": 1500}),
            ("ProvisionedConcurrency is not supported", {"variant": {"ServerlessConfig": PROVISIONED}}),
        )
    ):
        with pytest.raises(ClientError, match=text):
            config(f"refused-{number}", model=model, **more)


PROVISIONED = {"MemorySizeInMB": 1024, "MaxConcurrency": 1, "ProvisionedConcurrency": 1}


def runtime_of(server: Any) -> SageMakerRuntimeService:
    """The data plane of one endpoint, "e", that this server answers for."""
    config = {"ProductionVariants": [{"VariantName": "main", "ModelName": "m"}]}
    document = {"EndpointName": "e", "EndpointStatus": "InService", "_Snapshot": {"Config": config}}
    sagemaker = SimpleNamespace(
        foundation=SimpleNamespace(
            store=SimpleNamespace(get=lambda kind, name: document),
            cloud=SimpleNamespace(account_id="000000000000", region="us-east-1"),
        ),
        endpoints=SimpleNamespace(server=lambda name, variant: server),
    )
    return SageMakerRuntimeService(sagemaker)  # type: ignore[arg-type]  # the parts that it asks


def call(**params: Any) -> Call:
    caller = Caller(account_id="0", region="us-east-1", access_key_id="", arn="arn:aws:iam::0:root")
    params = {"EndpointName": "e", "Body": b"x", **params}
    return Call(operation="InvokeEndpoint", params=params, caller=caller, request_id="r-1")


def test_a_model_that_takes_more_than_a_minute_is_a_model_error() -> None:
    seconds = []

    def invoke(body: bytes, **options: Any) -> Reply:
        seconds.append(options["seconds"])
        raise ModelTimeoutError("late")

    server = SimpleNamespace(variant="main", log_group="/aws/sagemaker/Endpoints/e", invoke=invoke)
    with pytest.raises(ServiceError, match="Your invocation timed out while waiting") as caught:
        runtime_of(server).invoke(call())
    assert (caught.value.code, caught.value.status) == ("ModelError", 424)
    assert caught.value.fields["OriginalStatusCode"] == 0
    assert seconds == [60.0]


class SlowLoader(MultiModelServer):
    """A multi-model container with room for one model, which loads when it is allowed to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            None,  # type: ignore[arg-type]  # nothing is started
            name="slow",
            variant="main",
            role_arn="arn",
            container={"Image": "i", "ModelDataUrl": "s3://b/p"},
            folder=folder,
            log_group="g",
            log_stream="s",
        )
        self.may_load = threading.Event()
        self.may_answer = threading.Event()
        self.models: list[str] = []

    def _fetch(self, model: Any) -> None: ...

    def request(self, method: str, path: str, *, seconds: float, document: Any = None) -> Reply:
        if method == "DELETE":
            self.models.remove(path.rpartition("/")[2])
            return Reply(status=200, body=b"", content_type="")
        self.may_load.wait(30)
        if self.models:
            return Reply(status=507, body=b"full", content_type="")
        self.models.append(document["model_name"])
        return Reply(status=200, body=b"", content_type="")

    def invoke(self, body: bytes, **options: Any) -> Reply:
        self.may_answer.wait(30)
        assert options["path"].split("/")[2] in self.models
        return Reply(status=200, body=body, content_type="text/plain")


def test_a_model_that_is_not_ready_goes_on_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SlowLoader(tmp_path)
    monkeypatch.setattr("local.sagemaker.runtime._ANSWER_SECONDS", 0.1)
    with pytest.raises(ServiceError) as caught:
        runtime_of(server).invoke(call(TargetModel="a.tar.gz"))
    assert (caught.value.code, caught.value.status) == ("ModelNotReadyException", 429)
    server.may_load.set()
    server.may_answer.set()
    assert server.invoke_model("a.tar.gz", b"x", seconds=30, headers={}).body == b"x"
    assert server.loaded() == ["a.tar.gz"]


def test_a_model_at_work_is_not_unloaded_under_it(tmp_path: Path) -> None:
    server = SlowLoader(tmp_path)
    server.may_load.set()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.invoke_model, "a.tar.gz", b"a", seconds=30, headers={})
        while not server.models:
            time.sleep(0.01)
        second = pool.submit(server.invoke_model, "b.tar.gz", b"b", seconds=30, headers={})
        time.sleep(0.3)
        assert len(server.models) == 1
        server.may_answer.set()
        assert (first.result().body, second.result().body) == (b"a", b"b")
    assert server.loaded() == ["b.tar.gz"]


def test_a_model_that_does_not_fit_alone_is_an_error(tmp_path: Path) -> None:
    server = SlowLoader(tmp_path)
    server.may_load.set()
    server.models.append("somebody else's")
    with pytest.raises(ModelNotLoadedError, match="full"):
        server.invoke_model("a.tar.gz", b"x", seconds=30, headers={})
    assert server.loaded() == []
