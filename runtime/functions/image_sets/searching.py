"""Image sets in the order of a moment, as SearchImageSets shows them: no metadata.

Source: https://docs.aws.amazon.com/healthimaging/latest/APIReference/API_SearchImageSets.html
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

PAGE = 50
"""The most that a page of SearchImageSets has."""

Moment = Literal["createdAt", "updatedAt"]


def image_sets_by(
    medical_imaging: Any, datastore_id: str, *, by: Moment, start: datetime, end: datetime
) -> Iterator[dict[str, Any]]:
    """The summaries of image sets whose moment is from `start` to `end`, both included, oldest first.

    Requests carry whole seconds. What is updated meanwhile moves to the end of the order by `updatedAt`.
    """
    pages = medical_imaging.get_paginator("search_image_sets").paginate(
        datastoreId=datastore_id,
        searchCriteria={
            "filters": [{"operator": "BETWEEN", "values": [{by: start}, {by: end}]}],
            "sort": {"sortField": by, "sortOrder": "ASC"},
        },
        PaginationConfig={"PageSize": PAGE},
    )
    for page in pages:
        yield from page["imageSetsMetadataSummaries"]
