"""Both functions that keep the catalog in order, on the local cloud: the tables and views of the template,
real Parquet objects, real Iceberg commits, and a real search.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

import aws_cdk as cdk
import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from pydicom.data import get_testdata_file

from healthimaging import DicomWeb, connect
from infra.catalog.columns import COLUMNS
from infra.catalog.tables import CHANGE_TABLES, CatalogTables
from runtime.functions.catalog_queries.change_objects import TOMBSTONE
from runtime.functions.compact import handler as compact
from runtime.functions.image_sets.events import image_set_event
from runtime.functions.reconcile_catalog import handler as reconcile

SECONDS = 60
IMAGE_SET = "{:032d}".format


def arrow_type(hive: str) -> pa.DataType:
    """The Parquet type of a Hive type."""
    if hive.startswith("array<"):
        return pa.list_(arrow_type(hive[len("array<") : -1]))
    return {
        "string": pa.string(),
        "int": pa.int32(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("ms"),
        "decimal(16,6)": pa.decimal128(16, 6),
        "map<string,string>": pa.map_(pa.string(), pa.string()),
    }[hive]


VALUES: dict[str, Any] = {
    "string": "CT",
    "int": 3,
    "bigint": 4,
    "double": 0.5,
    "boolean": True,
    "date": date(2023, 5, 1),
    "timestamp": datetime(2023, 5, 1, 10, 11, 12, 345000),
    "decimal(16,6)": Decimal("1.250000"),
    "array<string>": ["ORIGINAL", "PRIMARY"],
    "array<double>": [0.5, 0.25],
    "map<string,string>": {"KVP": "120"},
}


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The catalog of a test's own: bucket, database, and what asks them."""

    cloud: Any
    bucket: str
    datastore_id: str

    @property
    def database(self) -> str:
        return self.bucket.replace("-", "_")

    def write(
        self, image_set_id: str, version: int, *, rows: int = 1, created: datetime | None = None
    ) -> None:
        """Change objects in both tables, every column filled; without rows the image set is gone."""
        now = created or datetime.now(UTC)
        fixed = {
            "datastore_id": self.datastore_id,
            "image_set_id": image_set_id,
            "version_id": version,
            "created_at": now.replace(tzinfo=None),
            "updated_at": now.replace(tzinfo=None),
            "indexed_at": datetime.now(UTC).replace(tzinfo=None),
            "is_deleted": not rows,
        }
        for table, columns in COLUMNS.items():
            schema = pa.schema([(column.name, arrow_type(column.type)) for column in columns])
            schema = schema.append(pa.field("is_deleted", pa.bool_()))
            filled = {column.name: VALUES[column.type] for column in columns} if rows else {}
            sink = BytesIO()
            pq.write_table(pa.Table.from_pylist([filled | fixed] * max(rows, 1), schema=schema), sink)
            name = "deleted" if version == TOMBSTONE else version
            self.cloud.client("s3").put_object(
                Bucket=self.bucket,
                Key=f"changes/{table}/{self.datastore_id}/{image_set_id}/{name}.parquet",
                Body=sink.getvalue(),
            )

    def ask(self, sql: str) -> list[tuple[str | None, ...]]:
        """Rows of a query, as Athena writes them."""
        athena = self.cloud.client("athena")
        id = athena.start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": self.database},
            ResultConfiguration={"OutputLocation": f"s3://{self.bucket}/query-results/"},
        )["QueryExecutionId"]
        deadline = time.monotonic() + SECONDS
        while (status := athena.get_query_execution(QueryExecutionId=id)["QueryExecution"]["Status"])[
            "State"
        ] in ("QUEUED", "RUNNING"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert status["State"] == "SUCCEEDED", status
        rows = athena.get_query_results(QueryExecutionId=id)["ResultSet"]["Rows"]
        return [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in rows[1:]]

    def shown(self, table: str, *, source: str | None = None) -> list[tuple[str | None, ...]]:
        """(image set, version, rows), sorted."""
        return self.ask(
            f"SELECT image_set_id, version_id, count(*) FROM {source or table} GROUP BY 1, 2 ORDER BY 1, 2"  # noqa: S608 - a table of the product
        )

    def everything(self, table: str) -> list[tuple[str | None, ...]]:
        """All that people see."""
        return self.ask(f"SELECT * FROM {table} ORDER BY image_set_id")  # noqa: S608 - a table of the product

    def objects(self) -> list[str]:
        """The last two parts of the change objects' keys."""
        listed = self.cloud.client("s3").list_objects_v2(Bucket=self.bucket, Prefix="changes/series/")
        return sorted("/".join(one["Key"].split("/")[-2:]) for one in listed.get("Contents", []))


@pytest.fixture
def catalog(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    for variable, value in cloud.environment.items():
        monkeypatch.setenv(variable, value)
    # The default session keeps the credentials that it found first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    bucket = f"catalog-{uuid.uuid4().hex[:12]}"
    cloud.client("s3").create_bucket(Bucket=bucket)
    datastore_id = connect().create_datastore(datastoreName=bucket)["datastoreId"]
    made = Catalog(cloud=cloud, bucket=bucket, datastore_id=datastore_id)
    stack = cdk.Stack(cdk.App(), "catalog")
    CatalogTables(
        stack,
        "Tables",
        name=made.database,
        account="000000000000",
        bucket=s3.Bucket.from_bucket_name(stack, "Bucket", bucket),
    )
    glue = cloud.client("glue")
    glue.create_database(DatabaseInput={"Name": made.database})
    for resource in Template.from_stack(stack).find_resources("AWS::Glue::Table").values():
        glue.create_table(**call(resource["Properties"]))
    workgroup = {"ResultConfiguration": {"OutputLocation": f"s3://{bucket}/query-results/"}}
    cloud.client("athena").create_work_group(Name=bucket, Configuration=workgroup)
    queue = cloud.client("sqs").create_queue(QueueName=bucket)["QueueUrl"]
    for name, value in {
        "CATALOG_BUCKET": bucket,
        "DATABASE": made.database,
        "WORKGROUP": bucket,
        "SETTLE_SECONDS": "0",
        "DATASTORE_ID": datastore_id,
        "QUEUE_URL": queue,
        "AFTER_SECONDS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    yield made
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def call(properties: dict[str, Any]) -> dict[str, Any]:
    """The template's properties as Glue's CreateTable takes them."""
    if "OpenTableFormatInput" in properties:
        iceberg = dict(properties["OpenTableFormatInput"]["IcebergInput"])
        iceberg["CreateIcebergTableInput"] = iceberg.pop("IcebergTableInput")
        properties = properties | {"OpenTableFormatInput": {"IcebergInput": iceberg}}
    return {name: value for name, value in properties.items() if name != "CatalogId"}


class Context:
    """An invocation with time enough."""

    function_name = "reconcile-catalog"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def test_changes_become_one_table_and_people_see_no_difference(catalog: Catalog) -> None:
    for number in range(3):
        catalog.write(IMAGE_SET(number), 1, rows=2)
    before = [(IMAGE_SET(number), "1", "2") for number in range(3)]
    everything = {table: catalog.everything(table) for table in CHANGE_TABLES}

    # INSERT, OPTIMIZE and VACUUM of both tables; then the change objects go.
    assert compact.handle({}, None) == {"removed": 0, "statements": 6, "complete": True}
    assert compact.handle({}, None) == {"removed": 6, "statements": 0, "complete": True}
    assert catalog.objects() == []
    for table in CHANGE_TABLES:
        assert catalog.shown(table, source=f"compacted_{table}") == before
        # Every type: decimals, arrays, maps, dates and moments.
        assert len(everything[table]) == 6
        assert catalog.everything(table) == everything[table]

    # A new version, one without rows, a deletion.
    catalog.write(IMAGE_SET(0), 2, rows=1)
    catalog.write(IMAGE_SET(1), 2, rows=0)
    catalog.write(IMAGE_SET(2), TOMBSTONE, rows=0)
    assert catalog.shown("series") == [(IMAGE_SET(0), "2", "1")]
    # DELETE and INSERT of both tables.
    assert compact.handle({}, None) == {"removed": 0, "statements": 4, "complete": True}
    assert catalog.shown("series") == [(IMAGE_SET(0), "2", "1")]
    assert catalog.shown("series", source="compacted_series") == [(IMAGE_SET(0), "2", "1")]
    assert compact.handle({}, None)["removed"] == 2
    # The tombstone stays for a day, and says as long that rows that come late are of the past.
    assert catalog.objects() == [f"{IMAGE_SET(1)}/2.parquet", f"{IMAGE_SET(2)}/deleted.parquet"]
    catalog.write(IMAGE_SET(2), 1)
    assert catalog.shown("series") == [(IMAGE_SET(0), "2", "1")]
    assert catalog.ask("SELECT number_of_image_sets FROM studies") == [("1",)]


def test_what_the_catalog_does_not_have_is_sent(catalog: Catalog) -> None:
    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    (outcome,) = DicomWeb(connect(), catalog.datastore_id).store([source])
    assert outcome.stored
    (found,) = connect().search_image_sets(datastoreId=catalog.datastore_id)["imageSetsMetadataSummaries"]
    gone = IMAGE_SET(7)
    catalog.write(gone, 1, created=datetime.now(UTC) - timedelta(minutes=5))
    # Requests carry whole seconds: what is of this second is compared in the next run.
    time.sleep(max(0.0, 1.1 - (datetime.now(UTC) - found["createdAt"]).total_seconds()))
    report = reconcile.Report(**reconcile.handle({}, Context()))
    assert report == reconcile.Report(compared=1, missed=1, gone=1)
    sqs = catalog.cloud.client("sqs")
    url = sqs.get_queue_url(QueueName=catalog.bucket)["QueueUrl"]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    events = [image_set_event(message["Body"]) for message in messages]
    assert {event.image_set_id for event in events} == {found["imageSetId"], gone}

    catalog.write(found["imageSetId"], int(found["version"]), created=found["createdAt"])
    catalog.write(gone, TOMBSTONE, rows=0)
    assert reconcile.Report(**reconcile.handle({}, Context())) == reconcile.Report(compared=1)
