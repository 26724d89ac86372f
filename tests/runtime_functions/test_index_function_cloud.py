"""The index function against the local cloud: an instance becomes rows, and a deleted image set none."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import boto3
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.data import get_testdata_file

from healthimaging import DicomWeb, connect
from runtime.functions.index import handler

DELETE_SECONDS = 30


@pytest.fixture
def bucket(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"catalog-{uuid.uuid4().hex[:12]}"
    cloud.client("s3").create_bucket(Bucket=name)
    for variable, value in cloud.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CATALOG_BUCKET", name)
    # The default session keeps the credentials that it found first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield name
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def handle(datastore_id: str, image_set_id: str, kind: str) -> dict[str, Any]:
    detail = {"datastoreId": datastore_id, "imagesetId": image_set_id, "imageSetVersion": "1"}
    body = json.dumps({"detail-type": f"Image Set {kind}", "detail": detail})
    return handler.handle({"Records": [{"messageId": "m", "body": body}]}, None)


def test_rows_follow_the_image_set(cloud: Any, bucket: str) -> None:
    client = connect()
    datastore_id = client.create_datastore(datastoreName=bucket)["datastoreId"]
    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    (outcome,) = DicomWeb(client, datastore_id).store([source])
    assert outcome.stored
    (found,) = client.search_image_sets(datastoreId=datastore_id)["imageSetsMetadataSummaries"]
    image_set_id = found["imageSetId"]

    assert handle(datastore_id, image_set_id, "Created") == {"batchItemFailures": []}
    s3 = cloud.client("s3")
    rows = {}
    for table in ("series", "instances"):
        key = f"changes/{table}/{datastore_id}/{image_set_id}/1.parquet"
        data = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        (rows[table],) = pq.read_table(BytesIO(data)).to_pylist()
    assert rows["series"]["series_instance_uid"] == source.SeriesInstanceUID
    assert rows["series"]["patient_id"] == source.PatientID
    assert rows["series"]["modality"] == "CT"
    assert rows["series"]["manufacturer"] == source.Manufacturer
    assert rows["series"]["is_primary"] is True
    assert rows["series"]["pixel_spacing"] == [float(x) for x in source.PixelSpacing]
    assert rows["instances"]["sop_instance_uid"] == source.SOPInstanceUID
    assert rows["instances"]["number_of_frames"] == 1

    client.delete_image_set(datastoreId=datastore_id, imageSetId=image_set_id)
    deadline = time.monotonic() + DELETE_SECONDS
    gone = {f"changes/{table}/{datastore_id}/{image_set_id}/deleted.parquet" for table in rows}
    while not gone <= {one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}:
        assert handle(datastore_id, image_set_id, "Deleted") == {"batchItemFailures": []}
        assert time.monotonic() < deadline
        time.sleep(0.1)
