"""The List operations: filter, sort, and pages with a token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from local.sagemaker.errors import validation
from local.sagemaker.store import Document

_DEFAULT_PAGE = 10
"""API_ListTrainingJobs, MaxResults: "The default value is 10"."""


def select(
    documents: Iterable[Document],
    params: Mapping[str, Any],
    *,
    name: str,
    status: str | None = None,
    created: str = "CreationTime",
    ascending_by_default: bool = False,
) -> list[Document]:
    """The documents that the filters of a List call keep, in the order that it asks for.

    `name` and `status` say which member of the documents NameContains and StatusEquals look at.
    """
    kept = [document for document in documents if _fits(document, params, name, status, created)]
    keys = {"Name": name, "Status": status or name}
    kept.sort(key=lambda document: document[keys.get(params.get("SortBy", "CreationTime"), created)])
    order = params.get("SortOrder", "Ascending" if ascending_by_default else "Descending")
    return kept if order == "Ascending" else kept[::-1]


def _fits(document: Document, params: Mapping[str, Any], name: str, status: str | None, created: str) -> bool:
    if (wanted := params.get("NameContains")) and wanted.lower() not in document.get(name, "").lower():
        return False
    if (prefix := params.get("PipelineNamePrefix")) and not document[name].startswith(prefix):
        return False
    if status and params.get("StatusEquals") not in (None, document[status]):
        return False
    # "CreationTimeAfter" of most operations is "CreatedAfter" of pipelines.
    for stem, member in (
        ("CreationTime", created),
        ("Created", created),
        ("LastModifiedTime", "LastModifiedTime"),
    ):
        if (after := params.get(f"{stem}After")) and document[member] < after:
            return False
        if (before := params.get(f"{stem}Before")) and document[member] > before:
            return False
    return True


def page(
    documents: Sequence[Document], params: Mapping[str, Any], *, into: str, members: Sequence[str]
) -> dict[str, Any]:
    """One page of a List answer: `members` of each document, and NextToken if there is more."""
    start = _start(params.get("NextToken"))
    size = params.get("MaxResults") or _DEFAULT_PAGE
    answer: dict[str, Any] = {
        into: [
            {member: document[member] for member in members if document.get(member) is not None}
            for document in documents[start : start + size]
        ]
    }
    if start + size < len(documents):
        answer["NextToken"] = base64.urlsafe_b64encode(f"start:{start + size}".encode()).decode()
    return answer


def _start(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("start:"))
    except (ValueError, binascii.Error):
        raise validation("Invalid NextToken.") from None
