"""A kill -9 while CloudFormation deploys an endpoint: nothing is left that no stack knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cloudformation_steps import deploy, settled
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench, wait_for

from local.cloudformation import Unrecorded, unrecorded
from local.cloudformation.sagemaker import Endpoint
from local.service import ServiceError


def template(config: str) -> dict[str, Any]:
    endpoint = {"Type": "AWS::SageMaker::Endpoint", "Properties": {"EndpointConfigName": config}}
    return {"Resources": {"Endpoint": endpoint}}


def test_an_endpoint_of_an_interrupted_stack_does_not_stay(own_cloud: Any, tmp_path: Path) -> None:
    bench = Workbench(own_cloud)
    hosting = Hosting(bench, bench.image(tmp_path, SERVER, tag="server"))
    never = hosting.config("never", model=hosting.model("never", sick=True))
    good = hosting.config("good", model=hosting.model("good"))
    stack = f"{bench.name}-stack"
    client = own_cloud.client("cloudformation")
    deploy(own_cloud, stack, {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    own_cloud.restart()  # everything so far is on disk
    client.update_stack(StackName=stack, TemplateBody=json.dumps(template(never)))

    def endpoints() -> list[str]:
        return [each["EndpointName"] for each in bench.sagemaker.list_endpoints()["Endpoints"]]

    wait_for(endpoints)
    own_cloud.kill()
    own_cloud.start()

    # The first where the kill came before the beginning of the update was on disk.
    assert settled(own_cloud, stack)["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
    assert not endpoints(), "it was gone before the cloud was ready"
    assert not list((own_cloud.root / "containers").glob("*.json")), "no container runs"
    done = deploy(own_cloud, stack, template(good), update=True)
    assert done["StackStatus"] == "UPDATE_COMPLETE"
    own_cloud.restart()
    assert len(endpoints()) == 1, "what a stack records stays"


class Hosts:
    """The calls of endpoints, without endpoints, and the power switch: whatever is on disk and in the service
    at a kill is copied at every step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "unrecorded.json"
        self.unrecorded = Unrecorded(self.file)
        self.there: dict[str, str] = {}
        self.killed: list[tuple[Path, dict[str, str]]] = []

    def moment(self) -> None:
        copy = self.folder / f"killed-{len(self.killed)}.json"
        if self.file.exists():
            shutil.copy(self.file, copy)
        self.killed.append((copy, dict(self.there)))

    def invoke(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        name = params["EndpointName"]
        self.moment()
        if operation == "CreateEndpoint":
            if name in self.there:
                raise ServiceError("ValidationException", f"Cannot create already existing endpoint {name}")
            self.there[name] = "Creating"
        elif name not in self.there:
            raise ServiceError("ValidationException", f"Could not find endpoint {name}")
        elif operation == "DescribeEndpoint" and self.there[name] == "Creating":
            self.there[name] = "InService"
            self.moment()
            return self.described(name, "Creating")
        elif operation == "DeleteEndpoint":
            del self.there[name]
        self.moment()
        return self.described(name, self.there.get(name, ""))

    def described(self, name: str, status: str) -> dict[str, Any]:
        return {"EndpointName": name, "EndpointArn": f"arn:aws:x:::endpoint/{name}", "EndpointStatus": status}


@pytest.mark.parametrize("name", [None, "Chosen"])
def test_at_whatever_moment_the_cloud_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Before, within and after every call that makes an endpoint: nothing of it stays."""
    monkeypatch.setattr(unrecorded, "_records", lambda: (set(), True))
    hosts = Hosts(tmp_path)
    hosts.there["theirs"] = "InService"
    properties = {"EndpointConfigName": "c"} | ({"EndpointName": name} if name else {})
    kind = Endpoint(calls=hosts)  # type: ignore[arg-type]  # the two members of ServiceCalls that it uses
    kind.create(stack="stack", logical_id="Endpoint", properties=properties)
    hosts.moment()
    with pytest.raises(ServiceError, match="already existing"):
        kind.create(stack="stack", logical_id="Other", properties=properties | {"EndpointName": "theirs"})
    hosts.moment()
    assert any(len(there) == 2 for _, there in hosts.killed)
    for number, (file, there) in enumerate(hosts.killed):
        again = Hosts(tmp_path / f"again-{number}")
        again.folder.mkdir()
        again.there = there
        Unrecorded(file).delete_left_over({"AWS::SageMaker::Endpoint": Endpoint(calls=again)})  # type: ignore[arg-type]  # as above
        assert again.there == {"theirs": "InService"}, f"kill {number}"
        assert not file.exists() or json.loads(file.read_text()) == []


class Types:
    """A resource type that notes what it deletes."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete(self, *, physical_id: str, properties: Any) -> None:
        if physical_id == "stuck":
            raise RuntimeError("it does not go")
        self.deleted.append(physical_id)


def test_what_a_snapshot_records_is_kept_and_the_rest_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: set[tuple[str, str]] = set()
    working = True
    monkeypatch.setattr(unrecorded, "_records", lambda: (records, working))
    file = tmp_path / "unrecorded.json"
    noted = Unrecorded(file)
    for name in ("recorded", "lost", "stuck"):
        with noted.keeping("A::B::C", name):
            pass
    with pytest.raises(RuntimeError), noted.keeping("A::B::C", "failed"):
        raise RuntimeError("deleted again by its type")
    records = {("A::B::C", "recorded")}
    noted.covered()()
    types = Types()
    left = Unrecorded(file)
    left.delete_left_over({"A::B::C": types})
    assert types.deleted == ["lost"]
    Unrecorded(file).delete_left_over({"A::B::C": types})
    assert types.deleted == ["lost"], "once"

    working = False
    with noted.keeping("A::B::C", "rolled-back"):
        pass
    noted.covered()()
    Unrecorded(file).delete_left_over({"A::B::C": types})
    assert "rolled-back" not in types.deleted
