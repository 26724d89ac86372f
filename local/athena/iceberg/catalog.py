"""Iceberg tables by their names in Glue: loaded, and committed with Glue's version of a table as the lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io import FileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table

from local.athena.dialect import QueryError
from local.athena.iceberg.file_io import ObjectIO


class LocalGlueCatalog(GlueCatalog):  # type: ignore[misc]  # mypy does not follow PyIceberg
    """PyIceberg's own catalog on this cloud's Glue and S3."""

    def __init__(self, *, glue: Any, io: ObjectIO) -> None:
        super().__init__("awsdatacatalog", client=glue)
        self.object_io = io

    def _load_file_io(self, properties: Any = None, location: str | None = None) -> FileIO:
        return self.object_io


def load(
    database: str, table: str, entry: Mapping[str, Any], *, io: ObjectIO, catalog: Catalog | None = None
) -> Table:
    """The table as Glue says that it is now (`entry`); without a catalog only to be read."""
    place = (entry.get("Parameters") or {}).get("metadata_location")
    if not place:
        raise QueryError(f"ICEBERG_INVALID_METADATA: Table {database}.{table} has no metadata_location")
    try:
        metadata = FromInputFile.table_metadata(io.new_input(place))
    except FileNotFoundError as error:
        raise QueryError(
            f"ICEBERG_MISSING_METADATA: Metadata not found in metadata location for table {database}.{table}"
        ) from error
    return Table(
        identifier=(database, table),
        metadata=metadata,
        metadata_location=place,
        io=io,
        catalog=catalog or NoopCatalog("read"),
    )


@contextmanager
def committing(table: Table) -> Iterator[None]:
    """Of two commits that contradict each other one wins; the other is told so in Athena's word."""
    try:
        yield
    except (CommitFailedException, ValidationException) as error:
        name = ".".join(table.name())
        raise QueryError(
            f"ICEBERG_COMMIT_ERROR: Failed to commit Iceberg update to table: {name}: {str(error)[:300]}"
        ) from error
