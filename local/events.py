"""Events of services ("aws.medical-imaging") on MiniStack's EventBridge.

PutEvents refuses sources that begin with "aws.", as on AWS: services do not come through that door.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local import identity
from local.service import Caller, ServiceError

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30


def publish(
    *,
    source: str,
    detail_type: str,
    detail: Mapping[str, Any],
    resources: Sequence[str],
    account_id: str,
    region: str,
) -> None:
    """Match an event of a service against the rules of the default bus and hand it to their targets.

    Returns when queues have the message; functions that are direct targets run on their own.
    """
    from ministack.core.responses import request_scope
    from ministack.services import eventbridge

    entry = {
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": list(resources),
        "EventBusName": "default",
    }

    def put() -> None:
        with request_scope(account_id, region):
            status, _, body = eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
            failed = json.loads(body).get("FailedEntryCount") if status == 200 else True
            if failed:
                raise RuntimeError(f"EventBridge did not take {source} {detail_type}: {body!r}")

    on_event_loop(put)
    logger.info("published %s %s", source, detail_type)


def install() -> None:
    """Make rules ask a queue's policy before they send, and schedules their role, as AWS does; MiniStack
    sends to any target."""
    from ministack.services import eventbridge

    invoke = eventbridge._invoke_target

    def invoke_if_allowed(
        target: Mapping[str, Any], event: Mapping[str, Any], rule: Mapping[str, Any], view: Any = None
    ) -> None:
        arn = target.get("Arn", "")
        if rule["Arn"].startswith("arn:aws:scheduler:"):
            try:
                _ask_role_of_schedule(arn, target["RoleArn"], rule["Arn"])
            except ServiceError as error:
                logger.warning("schedule %s may not reach %s: %s", rule["Name"], arn, error.message)
                return
        elif arn.split(":")[2:3] == ["sqs"] and not _may_send(arn, rule):
            logger.warning(
                "rule %s may not send to %s: the queue's policy does not allow it", rule["Name"], arn
            )
            return
        invoke(target, event, rule, view)

    eventbridge._invoke_target = invoke_if_allowed


_OF_SCHEDULES = {"sqs": "sqs:SendMessage", "lambda": "lambda:InvokeFunction", "sns": "sns:Publish"}
"""What a schedule's role must be allowed to do to a target."""


def _ask_role_of_schedule(target_arn: str, role_arn: str, schedule_arn: str) -> None:
    """Raise `ServiceError` unless the role trusts EventBridge Scheduler and may reach the target."""
    _, _, _, region, account_id, _ = schedule_arn.split(":", 5)
    session = identity.assume(
        role_arn=role_arn,
        principal="scheduler.amazonaws.com",
        session_name="scheduler",
        account_id=account_id,
        region=region,
        source_arn=schedule_arn,
    )
    action = _OF_SCHEDULES.get(target_arn.split(":")[2])
    if action is not None:
        role = f"arn:aws:sts::{account_id}:assumed-role/{role_arn.rsplit('/', 1)[-1]}/scheduler"
        caller = Caller(account_id=account_id, region=region, access_key_id=session.access_key_id, arn=role)
        identity.authorize(caller=caller, action=action, resources=[target_arn])


def _may_send(queue_arn: str, rule: Mapping[str, Any]) -> bool:
    from ministack.core.iam_evaluator import pin_request_origin
    from ministack.services import sqs

    def ask() -> bool:
        # AWS services call each other over TLS: a queue that refuses plain HTTP takes their messages.
        pin_request_origin("127.0.0.1", True)
        account_id = str(rule["Arn"]).split(":")[4]
        return bool(sqs.queue_policy_allows(queue_arn, "events.amazonaws.com", rule["Arn"], account_id))

    return contextvars.copy_context().run(ask)


def on_event_loop(work: Callable[[], None]) -> None:
    """Run work on MiniStack's event loop, where its handlers run, and wait for it.

    MiniStack changes its state on that loop alone, so a worker thread that changes it there cannot disturb
    a handler.
    """
    from ministack import app

    loop: asyncio.AbstractEventLoop | None = app._MAIN_LOOP
    if loop is None or _runs_here(loop):
        work()
        return
    done = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            failure.append(error)
        finally:
            done.set()

    loop.call_soon_threadsafe(run)
    if not done.wait(_TIMEOUT_SECONDS):
        raise TimeoutError(f"the event loop did not answer within {_TIMEOUT_SECONDS} s")
    if failure:
        raise failure[0]


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
