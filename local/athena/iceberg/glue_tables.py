"""CreateTable and UpdateTable of Glue with `OpenTableFormatInput`, which MiniStack accepts and forgets.

CloudFormation's AWS::Glue::Table comes here, too. Runs on the event loop, where nothing else happens between
reading and writing a table's pointer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyiceberg.catalog.glue import _construct_table_input
from pyiceberg.exceptions import ResolveError, ValidationError
from pyiceberg.schema import Schema, promote
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    RemovePropertiesUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
    update_table_metadata,
)
from pyiceberg.types import IcebergType

from local.athena.dialect import QueryError
from local.athena.iceberg.definition import DefinitionError, new_metadata, schema_of, table_definition
from local.athena.iceberg.file_io import ObjectIO
from local.athena.objects import LoopStore
from local.athena.relations import is_iceberg

Answer = Any
Handler = Callable[[dict[str, Any]], Answer]


def create_table(create: Handler, request: dict[str, Any]) -> Answer:
    """Make the Iceberg table of a request; `create` makes Glue's entry of it."""
    from ministack.services import glue

    input_ = (request.get("OpenTableFormatInput") or {}).get("IcebergInput") or {}
    table_input = request.get("TableInput") or {}
    name = request.get("Name") or table_input.get("Name")
    database = request.get("DatabaseName")
    if not name:
        return _error("InvalidInputException", "the table has no name")
    if database not in glue._databases or f"{database}/{name}" in glue._tables:
        # Glue's own words for both.
        return create({"DatabaseName": database, "TableInput": {"Name": name}})
    try:
        metadata = new_metadata(input_, table_input=table_input)
        entry = _entry(name, metadata, version=0, described={})
    except (DefinitionError, QueryError) as error:
        return _error("InvalidInputException", str(error))
    kept = {key: table_input[key] for key in ("Description", "Owner") if key in table_input}
    parameters = {**(table_input.get("Parameters") or {}), **entry["Parameters"]}
    return create({"DatabaseName": database, "TableInput": {**entry, **kept, "Parameters": parameters}})


def update_table(update: Handler, request: dict[str, Any]) -> Answer:
    """Change schema and properties of an Iceberg table; `update` changes Glue's entry of it."""
    from ministack.services import glue

    wanted = (request.get("OpenTableFormatInput") or {}).get("IcebergInput")
    told = (request.get("UpdateOpenTableFormatInput") or {}).get("UpdateIcebergInput")
    database = request.get("DatabaseName")
    name = request.get("Name") or (request.get("TableInput") or {}).get("Name")
    table = glue._tables.get(f"{database}/{name}")
    if table is None:
        return _error("EntityNotFoundException", f"Table {name} not found")
    if wanted is not None and not table_definition(wanted):
        # Columns in the TableInput: as on AWS, such an update leaves an ordinary table
        # (https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1919).
        return update({key: value for key, value in request.items() if key != "OpenTableFormatInput"})
    if not is_iceberg(table):
        return _error("InvalidInputException", f"Table {name} is not an Iceberg table")
    try:
        changed = _changed(table, [table_definition(wanted)] if wanted else _told(told or {}))
        if changed is None:
            return 200, {"Content-Type": "application/x-amz-json-1.1"}, b"{}"
        entry = _entry(table["Name"], changed, version=_next(table), described=table)
    except (DefinitionError, QueryError) as error:
        return _error("InvalidInputException", str(error))
    request = {key: value for key, value in request.items() if "OpenTableFormat" not in key}
    return update({**request, "TableInput": entry})


def _told(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    updates = (told.get("UpdateIcebergTableInput") or {}).get("Updates") or []
    return [one for one in updates if isinstance(one, Mapping)]


def _changed(table: dict[str, Any], wanted: list[Mapping[str, Any]]) -> TableMetadata | None:
    """The metadata after what is wanted; None where that changes nothing."""
    place = table["Parameters"]["metadata_location"]
    metadata = before = FromInputFile.table_metadata(_io().new_input(place))
    for given in wanted:
        updates: list[TableUpdate] = []
        if given.get("Location", metadata.location).rstrip("/") != metadata.location:
            raise DefinitionError("the location of an Iceberg table cannot be changed")
        spec = {(f["SourceId"], f["Transform"]) for f in (given.get("PartitionSpec") or {}).get("Fields", ())}
        if spec != {(field.source_id, str(field.transform)) for field in metadata.spec().fields}:
            raise DefinitionError("the local Glue does not change how an Iceberg table is partitioned")
        new_id = max(schema.schema_id for schema in metadata.schemas) + 1
        schema = schema_of(given["Schema"], schema_id=new_id)
        if schema.fields != metadata.schema().fields:
            types = {field.field_id: field.field_type for field in schema.fields}
            for field in metadata.schema().fields:
                _must_fit(field.field_type, types.get(field.field_id), name=field.name)
            _must_not_rename(metadata, schema)
            updates += [AddSchemaUpdate(schema_=schema), SetCurrentSchemaUpdate(schema_id=-1)]
        properties = dict(given.get("Properties") or {})
        if properties != metadata.properties:
            updates.append(SetPropertiesUpdate(updates=properties))
            gone = [name for name in metadata.properties if name not in properties]
            if gone:
                updates.append(RemovePropertiesUpdate(removals=gone))
        metadata = update_table_metadata(metadata, tuple(updates), metadata_location=place)
    return metadata if metadata != before else None


def _must_fit(old: IcebergType, new: IcebergType | None, *, name: str) -> None:
    """A column may go, or take a type that holds all its values."""
    if new is None or new == old:
        return
    try:
        promote(old, new)
    except (ResolveError, ValidationError) as error:
        raise DefinitionError(f"column {name}: {old} cannot become {new}") from error


def _next(table: dict[str, Any]) -> int:
    """The number of the next metadata file; the current one is called `00003-<uuid>.metadata.json`."""
    number = table["Parameters"]["metadata_location"].rpartition("/")[2].partition("-")[0]
    return int(number) + 1 if number.isdigit() else 1


def _must_not_rename(metadata: TableMetadata, schema: Schema) -> None:
    """Files have columns by name here (`reading.py`): another name for an id, or another id for a name that
    files may have, would read what is not the column's."""
    for known in metadata.schemas:
        for old in known.fields:
            for new in schema.fields:
                if (old.field_id == new.field_id) != (old.name == new.name):
                    raise DefinitionError(
                        f"the local Glue renames no column of an Iceberg table: {old.field_id} {old.name},"
                        f" {new.field_id} {new.name}"
                    )


def _entry(name: str, metadata: TableMetadata, *, version: int, described: dict[str, Any]) -> dict[str, Any]:
    """The metadata written, and Glue's entry that points to it."""
    provider = load_location_provider(metadata.location, metadata.properties)
    location = provider.new_table_metadata_file_location(version)
    ToOutputFile.table_metadata(metadata, _io().new_output(location))
    previous = (described.get("Parameters") or {}).get("metadata_location")
    entry = dict(
        _construct_table_input(
            table_name=name,
            metadata_location=location,
            properties=metadata.properties,
            metadata=metadata,
            prev_metadata_location=previous,
        )
    )
    if described.get("Description"):
        entry["Description"] = described["Description"]
    return entry


def _io() -> ObjectIO:
    from ministack.core.responses import get_account_id

    return ObjectIO(store=LoopStore(), account_id=get_account_id())


def _error(code: str, message: str) -> Answer:
    from ministack.core.responses import error_response_json

    return error_response_json(code, message, 400)
