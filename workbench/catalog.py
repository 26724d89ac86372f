"""The catalog's rows as the other pieces of work need them, and waiting until it knows of new image sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from arrival.waiting import poll
from workbench.deployment import Deployment
from workbench.errors import QueryFailed, WorkbenchError
from workbench.progress import Progress, silent
from workbench.query import QueryResult, Value, query, text_literal

INDEX_TIMEOUT_SECONDS = 180.0
"""Event, queue, function and Parquet take seconds; three minutes cover one retry of the queue."""

DERIVED_MODALITIES = frozenset({"SEG", "SR", "DOC", "KO", "PR", "OT"})
"""Modalities of what is said about images, and of secondary captures (OT), the runtime's snapshots among
them: no model reads them as images."""


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """One row of the table `series`, as far as a dataset needs it."""

    datastore_id: str
    image_set_id: str
    version_id: int
    is_primary: bool
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    attributes: Mapping[str, Value] = field(default_factory=dict, compare=False)
    """Every column that the query returned, by its name."""


REQUIRED = tuple(name for name in SeriesRow.__dataclass_fields__ if name != "attributes")
"""Columns that a query for a dataset must return."""


def series_rows(result: QueryResult) -> tuple[SeriesRow, ...]:
    """The rows of a query that returned at least the columns of `SeriesRow`."""
    missing = [name for name in REQUIRED if name not in {column.name for column in result.columns}]
    if missing:
        raise QueryFailed(
            f"The query does not return the columns {', '.join(missing)}.",
            advice="Select whole rows: SELECT * FROM series WHERE ...",
        )
    return tuple(
        SeriesRow(
            datastore_id=str(record["datastore_id"]),
            image_set_id=str(record["image_set_id"]),
            version_id=int(str(record["version_id"])),
            is_primary=bool(record["is_primary"]),
            patient_id=str(record["patient_id"] or ""),
            study_instance_uid=str(record["study_instance_uid"] or ""),
            series_instance_uid=str(record["series_instance_uid"] or ""),
            modality=str(record["modality"] or ""),
            attributes=record,
        )
        for record in result.records()
    )


def wait_for_catalog(
    deployment: Deployment,
    image_sets: Mapping[str, int],
    *,
    progress: Progress = silent,
    every_seconds: float = 1.0,
    timeout_seconds: float = INDEX_TIMEOUT_SECONDS,
) -> None:
    """Wait until the catalog describes every image set of `image_sets` (id -> version) at that version or a
    later one.

    The indexing function runs on events, which HealthImaging delivers at its own pace.
    """
    waiting = dict(image_sets)

    def known() -> bool | None:
        found = _versions(deployment, waiting)
        for image_set_id, version in list(waiting.items()):
            if found.get(image_set_id, -1) >= version:
                del waiting[image_set_id]
        if waiting:
            progress(
                f"waiting for the catalog: {len(image_sets) - len(waiting)} of {len(image_sets)} image sets"
            )
            return None
        return True

    poll(
        known,
        every_seconds=every_seconds,
        timeout_seconds=timeout_seconds,
        on_timeout=lambda: _not_indexed(deployment, sorted(waiting)),
    )


def _versions(deployment: Deployment, image_sets: Iterable[str]) -> dict[str, int]:
    wanted = ", ".join(text_literal(one) for one in image_sets)
    # Identifiers of the service, each quoted by text_literal.
    sql = f"SELECT image_set_id, version_id FROM series WHERE image_set_id IN ({wanted})"  # noqa: S608 - quoted by text_literal
    result = query(deployment, sql)
    return {str(record["image_set_id"]): int(str(record["version_id"])) for record in result.records()}


def _not_indexed(deployment: Deployment, image_sets: Sequence[str]) -> WorkbenchError:
    queues = deployment.stack("catalog")
    return WorkbenchError(
        f"The catalog does not know {len(image_sets)} image sets after {INDEX_TIMEOUT_SECONDS:.0f} s: "
        f"{', '.join(image_sets)}.",
        advice=f"Look at the indexing function's log (/aws/lambda/{queues['IndexFunctionName']}) and "
        "at the messages "
        f"in its dead-letter queue {queues['IndexDeadLetterQueueUrl']}.",
    )
