"""The index function over fake services: what it writes and deletes, in any order and however often."""

from __future__ import annotations

import gzip
import json
import logging
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from healthimaging.catalog.columns import SERIES_COLUMNS, TABLES, schema
from healthimaging.catalog.rows import Version, catalog_rows
from healthimaging.metadata import ImageSetMetadata
from runtime.functions.catalog_queries.change_objects import TOMBSTONE
from runtime.functions.index import handler
from runtime.functions.index.tables import arrow_schema, arrow_type, parquet

DATASTORE = "d" * 32
IMAGE_SET = "1" * 32
CREATED = datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
VERSION = Version(version_id=1, is_primary=None, created_at=None, updated_at=None)


def document(description: str = "Thorax") -> dict[str, Any]:
    def instance(number: int) -> dict[str, Any]:
        return {
            "DICOM": {
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
                "SOPInstanceUID": f"1.2.3.4.{number}",
                "InstanceNumber": f"{number} ",
                "Rows": 512,
                "Columns": 256,
                "SliceThickness": "2.5",
                "PixelSpacing": ["0.7", "0.8 "],
                "ImagePositionPatient": ["0", "0", str(number)],
                "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
                "ImageType": ["ORIGINAL", "PRIMARY"],
                "AcquisitionNumber": None,
                "BitsStored": 12,
            },
            "StoredTransferSyntaxUID": "1.2.840.10008.1.2.4.202",
            "ImageFrames": [{"ID": f"f{number}"}],
        }

    return {
        "SchemaVersion": "1.1",
        "DatastoreID": DATASTORE,
        "ImageSetID": IMAGE_SET,
        "Patient": {"DICOM": {"PatientID": "P1 ", "PatientBirthDate": "19700230", "PatientSex": "F"}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.3", "StudyDate": "20240229", "StudyDescription": description},
            "Series": {
                "1.2.3.4": {
                    "DICOM": {
                        "SeriesInstanceUID": "1.2.3.4",
                        "Modality": "CT",
                        "SeriesNumber": "3 ",
                        "BodyPartExamined": None,
                    },
                    "Instances": {f"1.2.3.4.{k}": instance(k) for k in (1, 2)},
                }
            },
        },
    }


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}}, "GetImageSet")


class Datastore:
    """The two calls of HealthImaging that the function makes, over documents by version."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, Any]] = {"1": document()}
        self.state = "ACTIVE"
        self.fails: str | None = None
        self.metadata_calls = 0

    def get_image_set(self, **params: str) -> dict[str, Any]:
        if self.fails:
            raise refusal(self.fails)
        if params["imageSetId"] != IMAGE_SET:
            raise refusal("ResourceNotFoundException")
        return {
            "imageSetState": self.state,
            "versionId": max(self.versions, key=int),
            "isPrimary": True,
            "createdAt": CREATED,
            "updatedAt": CREATED,
        }

    def get_image_set_metadata(self, **params: str) -> dict[str, Any]:
        self.metadata_calls += 1
        text = json.dumps(self.versions[params["versionId"]]).encode()
        return {"imageSetMetadataBlob": BytesIO(gzip.compress(text))}


class Bucket:
    """S3's one call."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.on_put: Any = None

    def put_object(self, **params: Any) -> None:
        assert params["Bucket"] == "catalog"
        self.objects[params["Key"]] = params["Body"]
        if self.on_put is not None:
            self.on_put()

    def rows(self, table: str, version: str = "1") -> list[dict[str, Any]]:
        data = self.objects[f"changes/{table}/{DATASTORE}/{IMAGE_SET}/{version}.parquet"]
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
        return rows


@pytest.fixture
def datastore() -> Datastore:
    return Datastore()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture(autouse=True)
def _services(monkeypatch: pytest.MonkeyPatch, datastore: Datastore, bucket: Bucket) -> None:
    monkeypatch.setenv("CATALOG_BUCKET", "catalog")
    monkeypatch.setattr(handler, "connect", lambda: datastore)
    monkeypatch.setattr(handler.boto3, "client", lambda _name: bucket)


def message(
    message_id: str = "m", spelling: str = "imagesetId", kind: str = "Created", **detail: Any
) -> dict[str, Any]:
    event = {
        "source": "aws.medical-imaging",
        "detail-type": f"Image Set {kind}",
        "detail": {"datastoreId": DATASTORE, spelling: IMAGE_SET, "imageSetVersion": "1", **detail},
    }
    return {"messageId": message_id, "body": json.dumps(event)}


def handle(*messages: dict[str, Any]) -> list[str]:
    answer = handler.handle({"Records": list(messages)}, None)
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.mark.parametrize("spelling", ["imagesetId", "imageSetId"])
def test_writes_one_typed_object_a_table(bucket: Bucket, spelling: str) -> None:
    assert handle(message(spelling=spelling)) == []
    assert set(bucket.objects) == {f"changes/{table}/{DATASTORE}/{IMAGE_SET}/1.parquet" for table in TABLES}
    (series,) = bucket.rows("series")
    assert series["patient_id"] == "P1"
    assert series["patient_birth_date"] is None  # 30 February
    assert series["study_date"] == date(2024, 2, 29)
    assert series["series_number"] == 3
    assert series["body_part_examined"] is None
    assert (series["rows"], series["columns"], series["slice_thickness"]) == (512, 256, Decimal("2.5"))
    assert series["created_at"] == datetime(2024, 3, 1, 10)
    assert series["is_deleted"] is False
    # What its column cannot hold stays readable as text.
    assert dict(series["attributes"]) == {"PatientBirthDate": "19700230"}
    assert series["pixel_spacing"] == [0.7, 0.8]
    assert series["number_of_instances"] == 2
    assert series["number_of_frames"] == 2
    assert series["version_id"] == 1
    assert series["is_primary"] is True
    assert abs((datetime.now(UTC).replace(tzinfo=None) - series["indexed_at"]).total_seconds()) < 60
    instances = bucket.rows("instances")
    assert [row["instance_number"] for row in instances] == [1, 2]
    assert instances[1]["image_position_patient"] == [0, 0, 2]
    assert instances[0]["image_type"] == ["ORIGINAL", "PRIMARY"]


def test_latest_version_is_written_whatever_the_event_says(datastore: Datastore, bucket: Bucket) -> None:
    datastore.versions["2"] = document("Abdomen")
    assert handle(message(imageSetVersion="1")) == []
    assert bucket.rows("series", "2")[0]["study_description"] == "Abdomen"
    assert bucket.rows("series", "2")[0]["version_id"] == 2


def test_duplicates_in_a_batch_are_read_once(datastore: Datastore) -> None:
    assert handle(message("a"), message("b"), message("c")) == []
    assert datastore.metadata_calls == 1


@pytest.mark.parametrize("gone", ["state", "not found"])
def test_a_deleted_image_set_is_above_all_its_versions(
    datastore: Datastore, bucket: Bucket, gone: str
) -> None:
    assert handle(message()) == []
    if gone == "state":
        datastore.state = "DELETED"
    else:
        datastore.fails = "ResourceNotFoundException"
    assert handle(message("late"), message("deleted", kind="Deleted")) == []
    for table in TABLES:
        (nothing,) = bucket.rows(table, "deleted")
        assert (nothing["version_id"], nothing["is_deleted"]) == (TOMBSTONE, True)
        assert (nothing["datastore_id"], nothing["image_set_id"]) == (DATASTORE, IMAGE_SET)
        assert bucket.rows(table)[0]["version_id"] == 1
    assert handle(message(kind="Deleted")) == []  # and again, harmlessly


def test_what_the_reconcile_function_no_longer_finds_is_deleted_when_the_service_says_so_too(
    datastore: Datastore, bucket: Bucket
) -> None:
    lost = {"detail": {"datastoreId": DATASTORE, "imageSetId": IMAGE_SET}}
    asks = {"messageId": "m", "body": json.dumps({"source": "monai.catalog", **lost})}
    assert handle(asks) == []
    assert bucket.rows("series")[0]["is_deleted"] is False
    datastore.fails = "ResourceNotFoundException"
    assert handle(asks) == []
    assert bucket.rows("series", "deleted")[0]["is_deleted"] is True


def test_an_image_set_too_new_to_be_found_is_not_taken_for_deleted(
    datastore: Datastore, bucket: Bucket
) -> None:
    datastore.fails = "ResourceNotFoundException"
    assert handle(message()) == []
    assert bucket.objects == {}
    datastore.fails = None
    assert handle(message()) == []
    assert bucket.rows("series")[0]["version_id"] == 1


@pytest.mark.parametrize("kind", ["Updated", "Deleted"])
def test_a_version_whose_metadata_are_not_there_is_neither_written_nor_taken_for_deleted(
    datastore: Datastore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The image set is there, and its version has no metadata yet or any more: the message comes again."""

    def missing(**params: str) -> dict[str, Any]:
        raise refusal("ResourceNotFoundException")

    with monkeypatch.context() as patched:
        patched.setattr(datastore, "get_image_set_metadata", missing)
        assert handle(message("m1", kind=kind)) == ["m1"]
    assert bucket.objects == {}
    assert handle(message()) == []
    assert bucket.rows("series")[0]["version_id"] == 1


def test_a_version_without_series_hides_those_before_it(datastore: Datastore, bucket: Bucket) -> None:
    empty = document()
    empty["Study"]["Series"] = {}
    datastore.versions["2"] = empty
    assert handle(message()) == []
    for table in TABLES:
        (nothing,) = bucket.rows(table, "2")
        assert (nothing["version_id"], nothing["is_deleted"]) == (2, True)


def test_only_failed_messages_are_delivered_again(datastore: Datastore, bucket: Bucket) -> None:
    assert handle({"messageId": "bad", "body": "{"}, message("good")) == ["bad"]
    assert bucket.objects


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '{"detail": {}}',
        '{"detail": {"imageSetId": "x"}}',
        '{"detail": {"imageSetId": 1, "datastoreId": 2}}',
    ],
)
def test_malformed_messages_fail_and_so_reach_the_dead_letter_queue(body: str) -> None:
    assert handle({"messageId": "m", "body": body}) == ["m"]


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException"])
def test_refusals_are_tried_again_and_named_in_the_log(
    datastore: Datastore, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    datastore.fails = code
    with caplog.at_level(logging.INFO):
        assert handle(message("m9")) == ["m9"]
    assert code in caplog.text
    assert IMAGE_SET in caplog.text


def test_logs_have_no_patient_data(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        handle(message())
    assert IMAGE_SET in caplog.text
    assert "P1" not in caplog.text


# Rows, schema file and Arrow schema are one ----------------------------------------------------------


def test_schema_file_is_the_schema() -> None:
    file = Path(handler.__file__).with_name("schema.json")
    assert json.loads(file.read_text(encoding="utf-8")) == schema()


@pytest.mark.parametrize("table", sorted(TABLES))
def test_rows_have_exactly_the_columns_and_their_types(table: str) -> None:
    rows = catalog_rows(
        ImageSetMetadata.from_document(document()),
        version=VERSION,
        indexed_at=datetime(2024, 1, 1),
    )[table]
    for row in rows:
        assert list(row) == [column.name for column in TABLES[table]]
    read = pq.read_table(pa.BufferReader(parquet(table, rows)))
    assert read.schema.equals(arrow_schema(table), check_metadata=False)
    types = [field.type for field in arrow_schema(table)]
    assert types == [*(arrow_type(c.type) for c in TABLES[table]), pa.bool_()]


def test_nothing_known_makes_a_row_of_nulls() -> None:
    empty = {
        "DatastoreID": DATASTORE,
        "ImageSetID": IMAGE_SET,
        "Study": {"Series": {"1.2": {"Instances": {"1.2.3": {}}}}},
    }
    rows = catalog_rows(
        ImageSetMetadata.from_document(empty), version=VERSION, indexed_at=datetime(2024, 1, 1)
    )
    (series,) = rows["series"]
    assert series["number_of_instances"] == 1
    assert series["sop_class_uids"] == []
    assert series["study_date"] is None
    for table, made in rows.items():
        assert parquet(table, made)


def test_instances_that_differ_leave_the_series_value_open() -> None:
    made = document()
    made["Study"]["Series"]["1.2.3.4"]["Instances"]["1.2.3.4.2"]["DICOM"].update(
        {"Rows": 128, "SliceThickness": "oops", "InstanceNumber": "99999999999"}
    )
    rows = catalog_rows(
        ImageSetMetadata.from_document(made), version=VERSION, indexed_at=datetime(2024, 1, 1)
    )
    assert rows["series"][0]["rows"] is None
    assert rows["series"][0]["slice_thickness"] is None
    assert rows["instances"][1]["attributes"]["SliceThickness"] == "oops"
    assert rows["series"][0]["columns"] == 256
    assert rows["instances"][1]["instance_number"] is None
    assert parquet("instances", rows["instances"])


def test_text_that_no_encoding_has_keeps_no_study_out(datastore: Datastore, bucket: Bucket) -> None:
    made = document("Tho\ud800rax")
    made["Study"]["Series"]["1.2.3.4"]["DICOM"] |= {
        "SoftwareVersions": ["\udfff", "2"],
        "OperatorsName": "\udfff",
        "SeriesDescription": "Bauch\u00fcbersicht",
    }
    datastore.versions["1"] = made
    assert handle(message()) == []
    (series,) = bucket.rows("series")
    assert series["study_description"] == "Tho?rax"
    assert series["software_versions"] == ["?", "2"]
    assert dict(series["attributes"])["OperatorsName"] == "?"
    assert series["series_description"] == "Bauch\u00fcbersicht"


def test_names_are_unique_and_commented() -> None:
    names = [column.name for column in SERIES_COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.comment for columns in TABLES.values() for column in columns)
