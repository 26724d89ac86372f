"""What requests to MiniStack's services are authorised against, where its own answer is not AWS's.

Each difference would refuse a role what AWS grants it, or grant what AWS refuses. Sources: the Service
Authorization Reference pages of Amazon ECR, AWS Glue, Amazon Athena, Amazon CloudWatch Logs, Amazon
EventBridge and Amazon SQS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Extract = Callable[..., str]


def install() -> None:
    """Correct MiniStack's request authorisation. It looks the functions up for each request."""
    from ministack.core import iam_actions, iam_evaluator

    extract: Extract = iam_actions.extract_resource_arn
    enforce = iam_evaluator.enforce
    tag_keys: Callable[..., dict[str, Any]] = iam_actions.request_tag_context

    def corrected_arn(
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        query_params: Mapping[str, Any],
        region: str,
        account_id: str,
    ) -> str:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        prefix = f"arn:aws:{service}:{region}:{account_id}:"
        found = _CORRECTIONS[service](action, _json(body)) if service in _CORRECTIONS else None
        if found is not None:
            return prefix + found
        return extract(service, method, path, headers, body, query_params, region, account_id)

    def enforce_all(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        action = _ACTIONS.get(iam_action, iam_action)
        for arn in (*_containers(service, resource_arn), resource_arn):
            denied = enforce(
                access_key_id, action, service, region, resource_arn=arn, service_context=service_context
            )
            if denied is not None:
                return denied
        return None

    def condition_keys(service: str, iam_action: str, body: bytes, params: dict[str, Any]) -> dict[str, Any]:
        own = _event_keys(_json(body)) if iam_action == "events:PutEvents" else {}
        return {**tag_keys(service, iam_action, body, params), **own}

    iam_actions.extract_resource_arn = corrected_arn
    iam_actions.request_tag_context = condition_keys
    iam_evaluator.enforce = enforce_all


_ACTIONS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
}
"""Calls that are authorised by another action: IAM has none of their own name."""


def _containers(service: str, resource_arn: str) -> tuple[str, ...]:
    """A Glue call on a table also needs its database and the catalog; one on a database, the catalog."""
    prefix, _, resource = resource_arn.partition(":database/")
    if service == "glue" and resource:
        return (f"{prefix}:catalog",)
    prefix, _, resource = resource_arn.partition(":table/")
    if service == "glue" and resource:
        return (f"{prefix}:catalog", f"{prefix}:database/{resource.partition('/')[0]}")
    return ()


def _event_keys(request: Mapping[str, Any]) -> dict[str, str]:
    """What the events of a request say of themselves. AWS asks for each event; here those of a request that
    differ have no key, so that a condition on it refuses them all.
    """
    found = {}
    for key, member in {"events:source": "Source", "events:detail-type": "DetailType"}.items():
        values = {str(entry.get(member)) for entry in request.get("Entries") or [] if isinstance(entry, dict)}
        if len(values) == 1:
            found[key] = values.pop()
    return found


def _ecr(action: str, request: Mapping[str, Any]) -> str | None:
    names = request.get("repositoryNames") or []
    if action == "DescribeRepositories" and len(names) == 1:
        return f"repository/{names[0]}"
    return None


def _glue(action: str, request: Mapping[str, Any]) -> str | None:
    database = request.get("DatabaseName")
    if not database and "Database" in action and request.get("Name"):
        return f"database/{request['Name']}"
    inner = request.get("TableInput") or {}
    table = request.get("TableName") or inner.get("Name") or request.get("Name")
    if database and table and ("Table" in action or "Partition" in action):
        return f"table/{database}/{table}"
    if "Crawler" in action and (request.get("Name") or request.get("CrawlerName")):
        return f"crawler/{request.get('Name') or request.get('CrawlerName')}"
    return None


def _athena(action: str, request: Mapping[str, Any]) -> str | None:
    """Calls on a query are calls on the workgroup that it ran in."""
    from ministack.services import athena

    if request.get("QueryExecutionId"):
        execution = athena._executions.get(request["QueryExecutionId"]) or {}
        return f"workgroup/{execution.get('WorkGroup', 'primary')}"
    named = request.get("NamedQueryId") or next(iter(request.get("NamedQueryIds") or ()), None)
    if named:
        # Of several, the first one's: they are asked for as a workgroup lists them.
        query = athena._named_queries.get(named) or {}
        return f"workgroup/{query.get('WorkGroup', 'primary')}"
    if action in ("StartQueryExecution", "ListNamedQueries"):
        return f"workgroup/{request.get('WorkGroup') or 'primary'}"
    return None


def _logs(action: str, request: Mapping[str, Any]) -> str | None:
    """A log group is authorised as its streams are: `log-group:NAME:log-stream:STREAM`, the stream often
    empty."""
    group = request.get("logGroupName")
    return f"log-group:{group}:log-stream:{request.get('logStreamName') or ''}" if group else None


_CORRECTIONS: dict[str, Callable[[str, Mapping[str, Any]], str | None]] = {
    "ecr": _ecr,
    "glue": _glue,
    "athena": _athena,
    "logs": _logs,
}


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
