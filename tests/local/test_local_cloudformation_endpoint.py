"""AWS::SageMaker::Endpoint waits until the endpoint is settled, and says why it is not in service."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from local.cloudformation import calls
from local.cloudformation.calls import ServiceCalls
from local.cloudformation.sagemaker import Endpoint
from local.service import Call, ServiceError

ACCOUNT = "000000000000"


class Endpoints:
    """SageMaker with endpoints that take two looks to settle; a configuration named "bad" never serves."""

    name = "sagemaker"

    def __init__(self) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.updates: list[dict[str, Any]] = []

    def handlers(self) -> dict[str, Any]:
        return {
            "CreateEndpoint": self._create,
            "UpdateEndpoint": self._update,
            "DescribeEndpoint": self._describe,
            "DeleteEndpoint": self._delete,
        }

    def resources(self, operation: str, params: Any, caller: Any) -> list[str]:
        return ["*"]

    def condition_keys(self, operation: str, params: Any) -> dict[str, str]:
        return {}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def _create(self, call: Call) -> dict[str, Any]:
        name = call.params["EndpointName"]
        self.endpoints[name] = {"config": call.params["EndpointConfigName"], "looks": 2, "status": "Creating"}
        return {"EndpointArn": self._arn(name)}

    def _update(self, call: Call) -> dict[str, Any]:
        self.updates.append(call.params)
        name = call.params["EndpointName"]
        self.endpoints[name] |= {
            "config": call.params["EndpointConfigName"],
            "looks": 2,
            "status": "Updating",
        }
        return {"EndpointArn": self._arn(name)}

    def _describe(self, call: Call) -> dict[str, Any]:
        name = call.params["EndpointName"]
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise ServiceError("ValidationException", f'Could not find endpoint "{self._arn(name)}".')
        endpoint["looks"] -= 1
        bad = endpoint["config"] == "bad"
        if endpoint["looks"] < 0:
            failed = bad and endpoint["status"] in ("Creating", "Failed")
            endpoint["status"] = "Failed" if failed else "InService"
        now = dt.datetime.now(dt.UTC)
        settled = endpoint["looks"] < 0
        return {
            "EndpointName": name,
            "EndpointArn": self._arn(name),
            "EndpointStatus": endpoint["status"],
            "CreationTime": now,
            "LastModifiedTime": now,
            "FailureReason": "the container ended: no module named model" if bad and settled else None,
        }

    def _delete(self, call: Call) -> dict[str, Any]:
        if self.endpoints.pop(call.params["EndpointName"], None) is None:
            raise ServiceError("ValidationException", "Could not find endpoint.")
        return {}

    def _arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{name.lower()}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Endpoints:
    monkeypatch.setattr(calls, "_POLL_SECONDS", 0)
    return Endpoints()


@pytest.fixture
def endpoint(service: Endpoints) -> Endpoint:
    return Endpoint(calls=ServiceCalls(service=service, account_id=ACCOUNT, region="us-east-1"))


def test_created_when_in_service(service: Endpoints, endpoint: Endpoint) -> None:
    made = endpoint.create(stack="s", logical_id="E", properties={"EndpointConfigName": "good"})
    name = made.attributes["EndpointName"]
    assert name.startswith("s-e-")
    assert made.physical_id == f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{name}"
    attributes = endpoint.update(
        physical_id=made.physical_id,
        old={"EndpointConfigName": "good"},
        new={"EndpointConfigName": "better", "RetainAllVariantProperties": True},
    )
    assert attributes["EndpointName"] == name
    assert service.updates == [
        {"EndpointName": name, "EndpointConfigName": "better", "RetainAllVariantProperties": True}
    ]
    endpoint.delete(physical_id=made.physical_id, properties={"EndpointConfigName": "better"})
    assert service.endpoints == {}
    endpoint.delete(physical_id=made.physical_id, properties={})


def test_failed_creation_is_cleaned_up(service: Endpoints, endpoint: Endpoint) -> None:
    with pytest.raises(RuntimeError, match="is Failed: the container ended: no module named model"):
        endpoint.create(
            stack="s", logical_id="E", properties={"EndpointConfigName": "bad", "EndpointName": "Mine"}
        )
    assert service.endpoints == {}


def test_failed_update_is_a_failure_though_the_old_one_serves(endpoint: Endpoint) -> None:
    made = endpoint.create(stack="s", logical_id="E", properties={"EndpointConfigName": "good"})
    with pytest.raises(RuntimeError, match="the container ended"):
        endpoint.update(
            physical_id=made.physical_id,
            old={"EndpointConfigName": "good"},
            new={"EndpointConfigName": "bad"},
        )
