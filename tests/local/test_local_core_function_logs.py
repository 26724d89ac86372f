"""What a Python function logs at a level of its own choice is in its log group."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from typing import Any

_PROGRAM = """
import logging
logger = logging.getLogger("mine")
logger.setLevel(logging.INFO)

def handle(event, context):
    logger.info("seen %s", event["what"])
    logging.getLogger("other").info("not asked for")
    return "done"
"""


def test_a_function_logs_at_its_own_level(cloud: Any) -> None:
    name = f"logs-{uuid.uuid4().hex[:8]}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    role = cloud.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("program.py", _PROGRAM)
    client = cloud.client("lambda")
    client.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="program.handle",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": archive.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    what = uuid.uuid4().hex
    answer = client.invoke(FunctionName=name, Payload=json.dumps({"what": what}))
    assert json.loads(answer["Payload"].read()) == "done"
    deadline, lines = time.monotonic() + 20, ""
    while f"seen {what}" not in lines:
        assert time.monotonic() < deadline, lines
        events = cloud.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        lines = "\n".join(event["message"] for event in events)
    assert "[INFO]" in lines
    assert "not asked for" not in lines
