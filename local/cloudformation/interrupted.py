"""Stack operations that a crash interrupted: brought to a state from which the next deployment goes on.

MiniStack restores a stack as it was saved, "in progress", and nothing would ever finish it.
"""

from __future__ import annotations

import json
import logging
from typing import Any

logger = logging.getLogger(__name__)

_REASON = "Interrupted by a restart of the local cloud; deploy again."
_WAITING = "REVIEW_IN_PROGRESS"
"""A stack that has only a change set yet: nothing works on it."""


def settle_interrupted() -> None:
    """Run when the state has been restored, before the first request."""
    from ministack.core.responses import request_scope
    from ministack.services import cloudformation

    for (account_id, region, name), stack in cloudformation._stacks._data.items():
        status = stack.get("StackStatus", "")
        if not status.endswith("_IN_PROGRESS") or status == _WAITING:
            continue
        ends = _end_of(status)
        logger.warning("stack %s was %s when the cloud went down; now %s", name, status, ends)
        with request_scope(account_id, region):
            if ends.startswith("UPDATE_"):
                _restore_description(stack)
            _record(stack, name, ends)
    for change_set in cloudformation._change_sets._data.values():
        if change_set.get("ExecutionStatus") == "EXECUTE_IN_PROGRESS":
            change_set["ExecutionStatus"] = "EXECUTE_FAILED"


def _end_of(status: str) -> str:
    """Statuses that CloudFormation has for a failure of the kind, and from which a client knows the way
    out."""
    if status.startswith("UPDATE_"):
        # What the update did is on the records of its resources, so the next update starts from there.
        return "UPDATE_ROLLBACK_COMPLETE"
    if status.startswith("DELETE_"):
        return "DELETE_FAILED"
    return "ROLLBACK_FAILED"


def _restore_description(stack: dict[str, Any]) -> None:
    """An update writes the new template and parameters on the stack before it works; take the old ones
    back."""
    from ministack.services.cloudformation.engine import _evaluate_conditions

    parameters = stack.get("_resolved_params", {})
    stack["_template_body"] = json.dumps(stack.get("_template", {}))
    stack["_conditions"] = _evaluate_conditions(stack.get("_template", {}), parameters)
    stack["Parameters"] = [
        {"ParameterKey": key, "ParameterValue": value["Value"], "NoEcho": value["NoEcho"]}
        for key, value in parameters.items()
    ]


def _record(stack: dict[str, Any], name: str, status: str) -> None:
    from ministack.services.cloudformation.stacks import _add_event

    stack["StackStatus"] = status
    stack["StackStatusReason"] = _REASON
    _add_event(stack["StackId"], name, name, "AWS::CloudFormation::Stack", status, _REASON, stack["StackId"])
