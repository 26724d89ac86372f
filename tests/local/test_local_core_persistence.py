"""State survives a restart and kill -9."""

from __future__ import annotations

import asyncio
import json
import time

import pytest


def _fill(cloud) -> str:
    cloud.client("s3").create_bucket(Bucket="kept")
    cloud.client("s3").put_object(Bucket="kept", Key="a/b.txt", Body=b"text", Metadata={"who": "me"})
    queue = cloud.client("sqs").create_queue(QueueName="kept")["QueueUrl"]
    cloud.client("sqs").send_message(QueueUrl=queue, MessageBody="first")
    cloud.client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument='{"Statement": []}')
    cloud.client("logs").create_log_group(logGroupName="/kept")
    cloud.client("glue").create_database(DatabaseInput={"Name": "kept"})
    return str(queue)


def _check(cloud, queue: str) -> None:
    kept = cloud.client("s3").get_object(Bucket="kept", Key="a/b.txt")
    assert kept["Body"].read() == b"text"
    assert kept["Metadata"] == {"who": "me"}
    messages = cloud.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0)["Messages"]
    assert [message["Body"] for message in messages] == ["first"]
    assert cloud.client("iam").get_role(RoleName="kept")["Role"]["Arn"].endswith(":role/kept")
    assert [group["logGroupName"] for group in cloud.client("logs").describe_log_groups()["logGroups"]] == [
        "/kept"
    ]
    assert cloud.client("glue").get_database(Name="kept")["Database"]["Name"] == "kept"


def test_state_survives_restart_and_kill(own_cloud) -> None:
    queue = _fill(own_cloud)
    own_cloud.restart()
    _check(own_cloud, queue)
    own_cloud.client("s3").put_object(Bucket="kept", Key="later", Body=b"x")
    own_cloud.client("sqs").create_queue(QueueName="later")
    time.sleep(1.5)  # longer than a save waits for quiet
    own_cloud.kill()
    own_cloud.start()
    _check(own_cloud, queue)
    assert own_cloud.client("s3").get_object(Bucket="kept", Key="later")["Body"].read() == b"x"
    assert len(own_cloud.client("sqs").list_queues()["QueueUrls"]) == 2


def test_a_snapshot_that_fails_does_not_end_the_saving(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from local import persistence

    monkeypatch.setattr(persistence, "_QUIET_SECONDS", 0.01)
    monkeypatch.setattr(persistence, "_TRAILING_SECONDS", 0.01)
    saving = persistence.Persistence(
        tmp_path / "state", covering=lambda: lambda: None, covering_stacks=lambda: lambda: None
    )
    taken: list[str] = []

    def snapshot() -> object:
        taken.append("asked")
        if len(taken) == 1:
            raise KeyError("a service's state that nobody expected")
        return {}, []

    monkeypatch.setattr(saving, "_snapshot", snapshot)

    async def ask_twice() -> None:
        task = asyncio.create_task(saving.run())
        await asyncio.sleep(0)
        for _ in range(2):
            saving.request_save()
            await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()

    asyncio.run(ask_twice())
    assert len(taken) >= 2


@pytest.mark.parametrize("committed", [True, False])
def test_half_written_snapshot(tmp_path, committed: bool) -> None:
    from local.persistence import complete

    state, journal = tmp_path / "state", tmp_path / "state.journal"
    state.mkdir()
    journal.mkdir()
    (state / "sqs.json").write_text("old")
    (journal / "sqs.json").write_text("new")
    if committed:
        (journal / "commit").touch()
    complete(state)
    assert (state / "sqs.json").read_text() == ("new" if committed else "old")
    assert not journal.exists()


def test_interrupted_stack_can_be_deployed_again(own_cloud) -> None:
    """A custom resource whose answer never comes keeps the stack in progress while the cloud is killed."""
    client = own_cloud.client("cloudformation")
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "first"}}
    body = json.dumps({"Resources": {"Topic": topic}})
    client.create_stack(StackName="hangs", TemplateBody=body)
    client.get_waiter("stack_create_complete").wait(StackName="hangs", WaiterConfig={"Delay": 1})
    never = {
        "Resources": {
            "Topic": {**topic, "Properties": {"DisplayName": "second"}},
            "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
            "Wait": {
                "Type": "AWS::CloudFormation::WaitCondition",
                "DependsOn": "Topic",
                "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "600"},
            },
        }
    }
    client.update_stack(StackName="hangs", TemplateBody=json.dumps(never))
    client.create_stack(StackName="fresh", TemplateBody=json.dumps(never))
    time.sleep(2.5)
    assert client.describe_stacks(StackName="hangs")["Stacks"][0]["StackStatus"] == "UPDATE_IN_PROGRESS"
    own_cloud.kill()
    own_cloud.start()

    status = {stack["StackName"]: stack["StackStatus"] for stack in client.describe_stacks()["Stacks"]}
    assert status == {"hangs": "UPDATE_ROLLBACK_COMPLETE", "fresh": "ROLLBACK_FAILED"}
    assert client.get_template(StackName="hangs")["TemplateBody"]["Resources"].keys() == {"Topic"}
    del never["Resources"]["Wait"]
    client.update_stack(StackName="hangs", TemplateBody=json.dumps(never))
    client.get_waiter("stack_update_complete").wait(StackName="hangs", WaiterConfig={"Delay": 1})
    client.delete_stack(StackName="fresh")
    client.get_waiter("stack_delete_complete").wait(StackName="fresh", WaiterConfig={"Delay": 1})
    topics = own_cloud.client("sns").list_topics()["Topics"]
    assert len(topics) == 1
    attributes = own_cloud.client("sns").get_topic_attributes(TopicArn=topics[0]["TopicArn"])["Attributes"]
    assert attributes["DisplayName"] == "second"


def test_event_is_kept_until_a_save_contains_it(tmp_path) -> None:
    from local.event_journal import EventJournal

    file = tmp_path / "events.jsonl"
    journal = EventJournal(file)
    with journal.keeping({"n": 1}):
        covers_nothing = journal.covered()
    covers_nothing()
    assert EventJournal(file).left_over() == [{"n": 1}], "the snapshot was taken before the event was out"

    with pytest.raises(TimeoutError), journal.keeping({"n": 0}):
        raise TimeoutError("who publishes it knows, and tries again")
    assert EventJournal(file).left_over() == [{"n": 1}]

    file.unlink()
    journal = EventJournal(file)
    with journal.keeping({"n": 2}):
        pass
    saved = journal.covered()
    with journal.keeping({"n": 3}):
        pass
    saved()
    restarted = EventJournal(file)
    assert restarted.left_over() == [{"n": 3}]
    with restarted.keeping({"n": 3}):
        pass
    restarted.covered()()
    assert EventJournal(file).left_over() == []

    file.write_text('{"n": 4}\n{"n": ')
    assert EventJournal(file).left_over() == [{"n": 4}]
