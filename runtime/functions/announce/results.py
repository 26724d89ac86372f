"""What the result events say: identifiers, and nothing else of what is in an answer.

Events leave the platform: whoever may read the bus reads them. So every field is named here, and what a
container adds to its answers (volumes, probabilities) does not get into an event by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.functions.announce.notifications import Notification
from runtime.functions.batches.errors import FunctionError

SOURCE = "monai.inference"
STORED = "Inference Result Stored"
FAILED = "Inference Failed"

_INSTANCE = ("seriesInstanceUid", "sopInstanceUid", "imageSetId", "isPrimary", "s3Uri")
_REPORT = ("kind", *_INSTANCE)
_MODEL = ("name", "version", "sha256")
_IMAGE_SET = ("datastoreId", "imageSetId", "versionId")


class AnswerError(FunctionError):
    """An answer or a request is not in the promised form."""


def stored(answer: Any, *, of: Notification, datastore_id: str) -> Iterator[dict[str, Any]]:
    """Details of `Inference Result Stored`, one for each result of an answer.

    Raises:
        AnswerError: The answer is not in the promised form.
    """
    try:
        results = [dict(result) for result in answer["results"]]
        for result in results:
            named = {"datastoreId": datastore_id, **_only(_IMAGE_SET[1:], result)}
            segmentation = result["segmentation"]
            yield {
                "id": _id(of, STORED, *named.values()),
                "runId": of.run_id,
                "endpoint": of.endpoint,
                **named,
                "segmentation": None if segmentation is None else _only(_INSTANCE, segmentation),
                "reports": [_only(_REPORT, report) for report in result.get("reports") or ()],
                "model": _only(_MODEL, result["model"]),
                "answer": of.output_uri,
            }
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        msg = f"The answer of run {of.run_id} is not in the promised form: {type(error).__name__}"
        raise AnswerError(msg) from error


def failed(
    request: Any, *, of: Notification, failure_uri: str | None, error_type: str | None
) -> dict[str, Any]:
    """The detail of `Inference Failed`.

    Args:
        request: The request's document; None where there is none that could be read.
        of: The notification.
        failure_uri: Where the endpoint's own words about it lie, if it had any.
        error_type: The class of error that it names there.
    """
    return {
        # Asked for again, the run may fail again, which is another failure.
        "id": _id(of, FAILED, of.ended),
        "runId": of.run_id,
        "endpoint": of.endpoint,
        "imageSets": list(_image_sets(request)),
        "error": {"type": error_type or of.reason or "Unknown"},
        "request": of.request_uri,
        "failure": failure_uri,
    }


def _image_sets(request: Any) -> Iterator[dict[str, Any]]:
    """Of a request of any form; a request that failed may have none."""
    asked = request.get("inputs", request) if isinstance(request, Mapping) else request
    for one in asked if isinstance(asked, list) else [asked]:
        if isinstance(one, Mapping) and isinstance(one.get("imageSetId"), str):
            yield _only(_IMAGE_SET, one)


def _only(names: tuple[str, ...], document: Mapping[str, Any]) -> dict[str, Any]:
    """These members, where they are plain values."""
    return {
        name: document[name]
        for name in names
        if name in document and isinstance(document[name], str | int | bool | None)
    }


def _id(of: Notification, *what: object) -> str:
    """The same for the same result of the same run, however often it is announced."""
    return hashlib.sha256("\n".join([of.run_id, *map(str, what)]).encode()).hexdigest()[:32]
