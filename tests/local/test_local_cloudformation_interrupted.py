"""A kill -9 while CloudFormation deploys an endpoint: nothing is left that no stack knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cloudformation_steps import deploy, settled
from sagemaker_server import SERVER
from sagemaker_workbench import Hosting, Workbench, wait_for

from local.cloudformation import Unrecorded, unrecorded


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
    wait_for(lambda: not endpoints())
    assert not list((own_cloud.root / "containers").glob("*.json")), "no container runs"
    done = deploy(own_cloud, stack, template(good), update=True)
    assert done["StackStatus"] == "UPDATE_COMPLETE"
    own_cloud.restart()
    assert len(endpoints()) == 1, "what a stack records stays"


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
