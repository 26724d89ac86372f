"""Events as services send them, and whether a pattern of a rule can ever see one.

Sources: https://docs.aws.amazon.com/healthimaging/latest/devguide/eventbridge-events.html,
https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html,
https://docs.aws.amazon.com/glue/latest/dg/automating-awsglue-with-cloudwatch-events.html,
https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html,
https://docs.aws.amazon.com/codepipeline/latest/userguide/detect-state-changes-cloudwatch-events.html.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.services import eventbridge
from template_values import ACCOUNT

_IMAGE_SET = {
    "imagingVersion": "1.0",
    "isPrimary": [True, False],
    "imageSetVersion": ["1", "2"],
    "datastoreId": None,
    "imagesetId": None,
    "imageSetState": ["ACTIVE", "LOCKED", "DELETED"],
    "imageSetWorkflowStatus": ["CREATED", "COPIED", "UPDATED", "DELETED"],
    "sourceImageSetArn": None,
}
_IMPORT_JOB = {
    "imagingVersion": "1.0",
    "datastoreId": None,
    "jobId": None,
    "jobName": None,
    "jobStatus": ["SUBMITTED", "IN_PROGRESS", "COMPLETED", "FAILED"],
    "inputS3Uri": None,
    "outputS3Uri": None,
}
_DATASTORE = {"imagingVersion": "1.0", "datastoreId": None, "datastoreName": None, "datastoreStatus": None}
_JOB_STATES = ["InProgress", "Completed", "Failed", "Stopping", "Stopped"]


def _job(kind: str) -> dict[str, Any]:
    return {f"{kind}JobName": None, f"{kind}JobArn": None, f"{kind}JobStatus": _JOB_STATES}


EVENTS: dict[str, dict[str, dict[str, Any]]] = {
    "aws.medical-imaging": {
        **{
            f"Data Store {state}": _DATASTORE
            for state in ("Creating", "Creation Failed", "Created", "Deleting", "Deleted")
        },
        **{f"Import Job {s}": _IMPORT_JOB for s in ("Submitted", "In Progress", "Completed", "Failed")},
        **{
            f"Image Set {state}": _IMAGE_SET
            for state in (
                *("Created", "Copying", "Copying With Read Only Access", "Copied", "Copy Failed"),
                *("Updating", "Updated", "Update Failed", "Deleting", "Deleted"),
            )
        },
    },
    "aws.sagemaker": {
        "SageMaker Training Job State Change": _job("Training"),
        "SageMaker Processing Job State Change": _job("Processing"),
        "SageMaker Transform Job State Change": _job("Transform"),
        "SageMaker Endpoint State Change": {
            "EndpointName": None,
            "EndpointStatus": ["CREATING", "IN_SERVICE", "UPDATING", "FAILED", "DELETING"],
        },
        "SageMaker Model Package State Change": {
            "ModelPackageGroupName": None,
            "ModelPackageArn": None,
            "ModelPackageVersion": None,
            "ModelPackageStatus": ["Pending", "InProgress", "Completed", "Failed", "Deleting"],
            "ModelApprovalStatus": ["Approved", "Rejected", "PendingManualApproval"],
        },
        "SageMaker Model Building Pipeline Execution Status Change": {
            "pipelineArn": None,
            "pipelineExecutionArn": None,
            "currentPipelineExecutionStatus": ["Executing", "Stopping", "Stopped", "Failed", "Succeeded"],
        },
    },
    "aws.glue": {
        "Glue Crawler State Change": {"crawlerName": None, "state": ["Started", "Succeeded", "Failed"]}
    },
    "aws.ecr": {
        "ECR Image Action": {"repository-name": None, "image-tag": None, "result": ["SUCCESS", "FAILURE"]},
        "ECR Image Scan": {
            "repository-name": None,
            "image-tags": None,
            "scan-status": ["COMPLETE", "FAILED"],
        },
    },
    "aws.codepipeline": {
        "CodePipeline Pipeline Execution State Change": {
            "pipeline": None,
            "state": ["STARTED", "SUCCEEDED", "FAILED", "STOPPED", "SUPERSEDED", "CANCELED"],
        }
    },
}
"""By source and detail-type: the keys of `detail`, with the values that they take (None: any text)."""

_OPERATORS = {
    *("prefix", "suffix", "anything-but", "numeric", "exists", "equals-ignore-case", "wildcard", "cidr"),
}


def pattern(document: Any) -> Iterator[str]:
    """Problems of the pattern of a rule."""
    unknown = set(document) - {"source", "detail-type", "detail", "account", "region", "resources"}
    if unknown:
        yield f"keys {sorted(unknown)}: events have no such"
        return
    yield from _leaves(document, ())
    error = eventbridge._event_pattern_error(json.dumps(document))
    if error:
        yield error
    for source in document.get("source", ()):
        if not isinstance(source, str) or source not in EVENTS:
            yield f"source {source}: not in tests/infra/service_events.py"
            return
    if not document.get("source") or not document.get("detail-type"):
        yield "without source and detail-type it matches what nobody has thought of"
        return
    if len(document["source"]) > 1:
        yield "several sources: which of them sends which detail-type?"
        return
    (source,) = document["source"]
    for detail_type in document["detail-type"]:
        if detail_type not in EVENTS[source]:
            yield f"{source} sends no '{detail_type}'"
            continue
        unknown = set(document.get("detail", {})) - set(EVENTS[source][detail_type])
        if unknown:
            yield f"'{detail_type}' has no {sorted(unknown)}"
        elif not any(_matches(document, event) for event in _events(source, detail_type, document)):
            yield f"no '{detail_type}' that {source} sends has such values"


def _leaves(document: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
            continue
        if not isinstance(value, list) or not value:
            yield f"{'.'.join((*path, key))}: a pattern has lists of what may be there"
            continue
        for item in value:
            if isinstance(item, dict) and not (len(item) == 1 and set(item) <= _OPERATORS):
                yield f"{'.'.join((*path, key))}: {json.dumps(item)} compares with nothing that is known"


def _events(source: str, detail_type: str, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Events of the type, with each value that the service knows; what is any text is as the pattern has
    it.
    """
    detail = EVENTS[source][detail_type]
    choices = []
    for key, values in detail.items():
        if values is None:
            wanted = document.get("detail", {}).get(key, ["any"])
            texts = [_text(item) for item in wanted]
            choices.append([(key, text) for text in texts])
        else:
            choices.append([(key, value) for value in (values if isinstance(values, list) else [values])])
    for combination in itertools.product(*choices):
        yield {
            "version": "0",
            "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
            "source": source,
            "detail-type": detail_type,
            # A rule on a bus that other accounts send to says which.
            "account": document.get("account", [ACCOUNT])[0],
            "region": "us-east-1",
            "time": "2026-11-22T12:00:00Z",
            "resources": [],
            "detail": dict(combination),
        }


def _text(item: Any) -> str:
    """A text that such an item of a pattern is about."""
    if not isinstance(item, dict):
        return str(item)
    ((operator, argument),) = item.items()
    match operator:
        case "prefix" | "equals-ignore-case":
            return str(argument)
        case "suffix":
            return f"any{argument}"
        case "wildcard":
            return str(argument).replace("*", "any")
        case _:
            return "any"


def _matches(document: Mapping[str, Any], event: dict[str, Any]) -> bool:
    """By a matcher that is not ours: that of MiniStack."""
    internal = eventbridge._event_from_test_payload(event)
    return bool(eventbridge._matches_pattern(json.dumps(document), internal))
