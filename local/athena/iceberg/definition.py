"""The metadata of a new Iceberg table, from what Glue's CreateTable or a template says of it.

Shapes: `CreateIcebergTableInput` of Glue's API, `IcebergTableInput` of AWS::Glue::Table. Ids of columns are
kept as they are given. Without either, the columns of the `TableInput` are taken, as Glue did before it had
these shapes; such a table has no partitions.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    TimestampType,
)
from sqlglot import exp

_Model = TypeVar("_Model")

_FIRST_PARTITION = 1000
"""Where ids of partition fields begin (Iceberg specification, "Partition Specs")."""

_PRIMITIVES: dict[exp.DataType.Type, type[IcebergType]] = {
    exp.DataType.Type.BOOLEAN: BooleanType,
    exp.DataType.Type.TINYINT: IntegerType,
    exp.DataType.Type.SMALLINT: IntegerType,
    exp.DataType.Type.INT: IntegerType,
    exp.DataType.Type.BIGINT: LongType,
    exp.DataType.Type.FLOAT: FloatType,
    exp.DataType.Type.DOUBLE: DoubleType,
    exp.DataType.Type.TEXT: StringType,
    exp.DataType.Type.VARCHAR: StringType,
    exp.DataType.Type.CHAR: StringType,
    exp.DataType.Type.DATE: DateType,
    exp.DataType.Type.TIMESTAMP: TimestampType,
    exp.DataType.Type.BINARY: BinaryType,
}


class DefinitionError(ValueError):
    """What is said of a table is no Iceberg table."""


def new_metadata(input_: Mapping[str, Any], *, table_input: Mapping[str, Any]) -> TableMetadata:
    """Metadata of a table without snapshots. `input_` is the `IcebergInput`."""
    if input_.get("MetadataOperation") != "CREATE":
        raise DefinitionError("MetadataOperation must be CREATE")
    if str(input_.get("Version", "2")) != "2":
        raise DefinitionError("only version 2 of Iceberg is supported")
    given = table_definition(input_)
    if given:
        schema, spec, order = schema_of(given["Schema"]), _spec(given), _order(given)
        location, properties = given["Location"], dict(given.get("Properties") or {})
    else:
        storage = table_input.get("StorageDescriptor") or {}
        schema, spec, order = _schema_of_columns(storage.get("Columns") or ()), None, None
        location, properties = storage.get("Location", ""), {}
    if not location.startswith("s3"):
        raise DefinitionError("the table has no location in S3")
    spec, order = spec or UNPARTITIONED_PARTITION_SPEC, order or UNSORTED_SORT_ORDER
    return TableMetadataV2(
        table_uuid=uuid.uuid4(),
        location=location.rstrip("/"),
        last_updated_ms=time.time_ns() // 1_000_000,
        last_column_id=schema.highest_field_id,
        schemas=[schema],
        current_schema_id=schema.schema_id,
        partition_specs=[spec],
        default_spec_id=spec.spec_id,
        last_partition_id=spec.last_assigned_field_id,
        sort_orders=[order],
        default_sort_order_id=order.order_id,
        properties=properties,
    )


def table_definition(input_: Mapping[str, Any]) -> Mapping[str, Any]:
    """The definition of the table, by the API's or the template's name of it; empty if there is none."""
    return input_.get("CreateIcebergTableInput") or input_.get("IcebergTableInput") or {}


def schema_of(given: Mapping[str, Any], *, schema_id: int | None = None) -> Schema:
    """The schema in an `IcebergSchema`. Types are texts, or documents (or their JSON) for nested ones."""
    wanted = given.get("SchemaId", 0) if schema_id is None else schema_id
    document = {
        "type": "struct",
        "schema-id": wanted,
        "identifier-field-ids": list(given.get("IdentifierFieldIds") or ()),
        "fields": [
            {
                "id": field["Id"],
                "name": field["Name"],
                "type": _type_document(field["Type"]),
                "required": field["Required"],
                **({"doc": field["Doc"]} if field.get("Doc") else {}),
            }
            for field in given["Fields"]
        ],
    }
    return _checked(Schema.model_validate, document)


def _type_document(given: Any) -> Any:
    return json.loads(given) if isinstance(given, str) and given.lstrip().startswith("{") else given


def _spec(given: Mapping[str, Any]) -> PartitionSpec | None:
    spec = given.get("PartitionSpec")
    if not spec or not spec.get("Fields"):
        return None
    document = {
        "spec-id": spec.get("SpecId", 0),
        "fields": [
            {
                "source-id": field["SourceId"],
                "field-id": field.get("FieldId", _FIRST_PARTITION + place),
                "transform": field["Transform"],
                "name": field["Name"],
            }
            for place, field in enumerate(spec["Fields"])
        ],
    }
    return _checked(PartitionSpec.model_validate, document)


def _order(given: Mapping[str, Any]) -> SortOrder | None:
    order = given.get("WriteOrder")
    if not order or not order.get("Fields"):
        return None
    document = {
        "order-id": order["OrderId"],
        "fields": [
            {
                "source-id": field["SourceId"],
                "transform": field["Transform"],
                "direction": field["Direction"],
                "null-order": field["NullOrder"],
            }
            for field in order["Fields"]
        ],
    }
    return _checked(SortOrder.model_validate, document)


def _checked(validate: Callable[[Any], _Model], document: Any) -> _Model:
    try:
        return validate(document)
    except (ValidationError, ValueError, TypeError) as error:
        raise DefinitionError(f"not an Iceberg definition: {str(error)[:500]}") from error


def _schema_of_columns(columns: Sequence[Mapping[str, Any]]) -> Schema:
    if not columns:
        raise DefinitionError("the table has no columns")
    nested = iter(range(len(columns) + 1, 1_000_000))

    def kind(hive: exp.DataType) -> IcebergType:
        if hive.this in (exp.DataType.Type.ARRAY, exp.DataType.Type.LIST):
            return ListType(
                element_id=next(nested), element=kind(hive.expressions[0]), element_required=False
            )
        if hive.this == exp.DataType.Type.MAP:
            key, value = hive.expressions
            ids = next(nested), next(nested)
            return MapType(
                key_id=ids[0],
                key_type=kind(key),
                value_id=ids[1],
                value_type=kind(value),
                value_required=False,
            )
        if hive.this == exp.DataType.Type.DECIMAL:
            precision, scale = (int(one.name) for one in hive.expressions)
            return DecimalType(precision, scale)
        if hive.this not in _PRIMITIVES:
            raise DefinitionError(f"Iceberg has no type for {hive.sql('hive')}")
        return _PRIMITIVES[hive.this]()

    return Schema(
        *(
            NestedField(
                field_id=place,
                name=column["Name"],
                field_type=kind(exp.DataType.build(column.get("Type") or "string", dialect="hive")),
                required=False,
                doc=column.get("Comment") or None,
            )
            for place, column in enumerate(columns, start=1)
        )
    )
