"""The queries that come with the catalog, as they are deployed in its workgroup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.deployment import Deployment
from workbench.errors import WorkbenchError

_BATCH = 50
"""The most that BatchGetNamedQuery takes."""


@dataclass(frozen=True, kw_only=True)
class NamedQuery:
    """A query that has a name."""

    name: str
    answers: str
    """What it answers, in a line."""
    sql: str


def named_queries(deployment: Deployment) -> tuple[NamedQuery, ...]:
    """All of the workgroup's, by name."""
    athena: Any = deployment.session.client("athena")
    group = deployment.stack("catalog")["WorkgroupName"]
    pages = athena.get_paginator("list_named_queries").paginate(WorkGroup=group)
    ids = [one for page in pages for one in page["NamedQueryIds"]]
    found = [
        NamedQuery(name=one["Name"], answers=one.get("Description", ""), sql=one["QueryString"])
        for start in range(0, len(ids), _BATCH)
        for one in athena.batch_get_named_query(NamedQueryIds=ids[start : start + _BATCH])["NamedQueries"]
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def named_query(deployment: Deployment, name: str) -> NamedQuery:
    """The query of a name; blanks, hyphens and underscores are the same.

    Raises:
        WorkbenchError: There is none.
    """
    known = named_queries(deployment)
    for one in known:
        if _plain(one.name) == _plain(name):
            return one
    raise WorkbenchError(
        f"There is no named query {name!r}.",
        advice=f"There are: {', '.join(one.name for one in known) or 'none, deploy the stacks first'}.",
    )


def _plain(name: str) -> str:
    return name.replace("-", " ").replace("_", " ").strip().lower()
