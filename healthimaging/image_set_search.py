"""SearchImageSets: which image sets hold a study or a series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from healthimaging.errors import ServiceError
from healthimaging.reference import ImageSetRef
from healthimaging.refusals import exception_code

PAGE = 50
"""Largest page of SearchImageSets."""

_OPERATION = "SearchImageSets"


@dataclass(frozen=True, kw_only=True)
class FoundImageSet:
    """One search result.

    Attributes:
        ref: The version that the search knows; its index may lag behind the image set.
        is_primary: Whether it is the study's own copy, as the search knows.
    """

    ref: ImageSetRef
    is_primary: bool


def find_image_sets(client: Any, datastore_id: str, **attribute: str) -> list[FoundImageSet]:
    """Every image set with one attribute value, from all pages, oldest first, each once.

    Args:
        client: boto3 `medical-imaging` client.
        datastore_id: The datastore.
        **attribute: The filter as the service names it, such as `DICOMStudyInstanceUID="1.2.3"`.

    Raises:
        ServiceError: The service refused or failed, or its answer is not one.
    """
    found: dict[str, FoundImageSet] = {}
    for summary in _summaries(client, datastore_id, attribute):
        try:
            ref = ImageSetRef(
                datastore_id=datastore_id,
                image_set_id=str(summary["imageSetId"]),
                version_id=str(summary["version"]),
            )
        except (KeyError, TypeError) as error:
            msg = f"A result of {_OPERATION} has no image set id or version"
            raise ServiceError(msg, operation=_OPERATION, code="MalformedAnswer") from error
        # Datastores from before primary image sets do not say.
        found[ref.image_set_id] = FoundImageSet(ref=ref, is_primary=bool(summary.get("isPrimary", True)))
    return list(found.values())


def _summaries(client: Any, datastore_id: str, attribute: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    request: dict[str, Any] = {
        "datastoreId": datastore_id,
        "maxResults": PAGE,
        "searchCriteria": {
            "filters": [{"operator": "EQUAL", "values": [dict(attribute)]}],
            # By the one moment that never changes: in the default order, an image set that is updated while
            # the pages are read moves to a page that was read already.
            "sort": {"sortField": "createdAt", "sortOrder": "ASC"},
        },
    }
    tokens: set[str] = set()
    while True:
        try:
            answer = client.search_image_sets(**request)
        except (AttributeError, TypeError, ValueError, RecursionError) as error:  # of botocore's parser
            msg = f"The answer to {_OPERATION} is not what the service documents"
            raise ServiceError(msg, operation=_OPERATION, code="MalformedAnswer") from error
        except (ClientError, BotoCoreError, HTTPError, OSError, RuntimeError) as error:
            code = exception_code(error)
            msg = f"{_OPERATION} failed: {code}"
            raise ServiceError(msg, operation=_OPERATION, code=code) from error
        yield from answer.get("imageSetsMetadataSummaries") or []
        token = answer.get("nextToken")
        if not token:
            return
        if token in tokens:
            msg = f"{_OPERATION} gives the same page again and again"
            raise ServiceError(msg, operation=_OPERATION, code="RepeatedPage")
        tokens.add(token)
        request["nextToken"] = token
