"""Events in any order, more than once, or never: the catalog becomes what the datastore is.

A model of the datastore changes at random while its events are shuffled, repeated and lost, while invocations
crash between two writes, and while others overtake them. What people see is said twice: by the rule of the
highest version, and by the product's own views, which DuckDB runs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog.sql_views import INSTANCES, SERIES
from runtime.functions.image_sets.events import ImageSetEvent
from runtime.functions.index.changes import Changes
from runtime.functions.index.handler import index
from runtime.functions.index.tables import arrow_schema

DATASTORE = "d" * 32
IMAGE_SETS = [letter * 32 for letter in "abc"]


class CrashError(Exception):
    """The invocation ends here."""


class Archive:
    """Image sets by id: their versions, each with the number of its instances."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = {}
        self.deleted: set[str] = set()
        self.meanwhile: Callable[[], None] | None = None
        """What happens between the two reads of an invocation, once."""

    def change(self, image_set_id: str, kind: str, instances: int) -> None:
        """Created, Updated or Copied bring a version more; a deleted image set has no other life."""
        if image_set_id in self.deleted:
            return
        if kind == "Deleted":
            if self.versions.pop(image_set_id, None) is not None:
                self.deleted.add(image_set_id)
        else:
            self.versions.setdefault(image_set_id, []).append(instances)

    def get_image_set(self, *, datastoreId: str, imageSetId: str) -> dict[str, Any]:
        assert datastoreId == DATASTORE
        self._require(imageSetId)
        return {"imageSetState": "ACTIVE", "versionId": str(len(self.versions[imageSetId]))}

    def get_image_set_metadata(self, *, datastoreId: str, imageSetId: str, versionId: str) -> dict[str, Any]:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        self._require(imageSetId)
        instances = {
            f"1.2.{number}": {"DICOM": {}} for number in range(self.versions[imageSetId][int(versionId) - 1])
        }
        series = {"1.2": {"DICOM": {"Modality": "CT"}, "Instances": instances}} if instances else {}
        document = {
            "DatastoreID": datastoreId,
            "ImageSetID": imageSetId,
            "Patient": {"DICOM": {}},
            "Study": {"DICOM": {}, "Series": series},
        }
        return {"imageSetMetadataBlob": BytesIO(json.dumps(document).encode())}

    def _require(self, image_set_id: str) -> None:
        if image_set_id not in self.versions:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": ""}}, "GetImageSet")

    @property
    def truth(self) -> dict[str, tuple[int, int]]:
        """Version and number of instances by image set; one without instances has no rows."""
        return {one: (len(all_), all_[-1]) for one, all_ in self.versions.items() if all_[-1]}


class Objects:
    """S3 of the catalog bucket, which may end an invocation before a write."""

    def __init__(self) -> None:
        self.bodies: dict[str, pa.Table] = {}
        self.until_crash: int | None = None
        self.meanwhile: Callable[[], None] | None = None
        """What happens before the next write, once."""

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        if self.until_crash == 0:
            raise CrashError
        if self.until_crash is not None:
            self.until_crash -= 1
        self.bodies[Key] = pq.read_table(pa.BufferReader(Body))


def highest(objects: Objects) -> dict[str, tuple[int, int]]:
    """Version and number of instances by image set: in each table the rows of the highest version."""
    found: dict[str, dict[str, tuple[int, int]]] = {"series": {}, "instances": {}}
    for key, written in objects.bodies.items():
        _, table, _, image_set_id, _ = key.split("/")
        version = written["version_id"][0].as_py()
        rows = 0 if written["is_deleted"][0].as_py() else written.num_rows
        found[table][image_set_id] = max(found[table].get(image_set_id, (0, 0)), (version, rows))
    shown = {one: said for one, said in found["instances"].items() if said[1]}
    series = {one: said for one, said in found["series"].items() if said[1]}
    assert all(rows == 1 for _, rows in series.values())
    # Between two writes of an invocation, or after its crash, the tables may be of two versions.
    return {
        one: said if series.get(one, (0, 0))[0] == said[0] else (-1, -1) for one, said in shown.items()
    } | dict.fromkeys(series.keys() - shown.keys(), (-1, -1))


@cache
def _as_duckdb(sql: str) -> str:
    return sqlglot.transpile(sql, read="athena", write="duckdb")[0]


def seen(objects: Objects) -> dict[str, tuple[int, int]]:
    """Version and number of instances by image set, as the views `series` and `instances` show them."""
    with duckdb.connect(config={"threads": 1}) as connection:
        for table, changes in (("series", "series_changes"), ("instances", "instance_changes")):
            written = [rows for key, rows in objects.bodies.items() if key.startswith(f"changes/{table}/")]
            nothing = arrow_schema(table).empty_table()
            connection.register(changes, pa.concat_tables([nothing, *written]))
            connection.register(f"compacted_{table}", nothing.drop_columns(["is_deleted"]))
        found = {}
        for view in (SERIES, INSTANCES):
            found[view.name] = connection.execute(
                f"SELECT image_set_id, max(version_id), count(*) FROM ({_as_duckdb(view.sql)}) GROUP BY 1"  # noqa: S608 - the product's own view
            ).fetchall()
    assert all(count == 1 for _, _, count in found["series"]), "one row a series"
    assert {(one, version) for one, version, _ in found["series"]} == {
        (one, version) for one, version, _ in found["instances"]
    }
    return {one: (version, count) for one, version, count in found["instances"]}


OVERTAKING = ("while another reads", "while another writes")

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(IMAGE_SETS),
        st.sampled_from(["Created", "Updated", "Copied", "Deleted"]),
        st.integers(0, 3),
        st.sampled_from(["now", "later", "twice", "lost", *OVERTAKING]),
        st.sampled_from([None, None, None, 0, 1]),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, order=st.randoms(use_true_random=False))
def test_whatever_happens_to_events_the_catalog_becomes_the_datastore(
    events: list[tuple[str, str, int, str, int | None]], order: random.Random
) -> None:
    archive, objects = Archive(), Objects()
    changes = Changes(s3=objects, bucket="catalog")
    waiting: list[ImageSetEvent] = []

    def deliver(event: ImageSetEvent, crash: int | None = None) -> None:
        """A failed message comes again."""
        objects.until_crash = crash
        try:
            index(event, medical_imaging=archive, changes=changes)
        except CrashError:
            waiting.append(event)
        finally:
            objects.until_crash = None

    def change_and_deliver(image_set_id: str, kind: str, instances: int) -> None:
        archive.change(image_set_id, kind, instances)
        deliver(told(image_set_id, kind))

    for image_set_id, kind, instances, fate, crash in events:
        if kind == "Deleted" and image_set_id not in archive.versions:
            continue  # What is not there is not deleted, and sends no event.
        if fate in OVERTAKING:
            # An invocation that has read what was before goes on when the one for this change is done.
            happens = partial(change_and_deliver, image_set_id, kind, instances)
            if fate == OVERTAKING[0]:
                archive.meanwhile = happens
            else:
                objects.meanwhile = happens
            deliver(told(image_set_id, "Updated"), crash)
            if archive.meanwhile or objects.meanwhile:
                # The other found nothing to read: it asked too early, or too late.
                archive.meanwhile = objects.meanwhile = None
                happens()
            continue
        archive.change(image_set_id, kind, instances)
        if fate == "now":
            deliver(told(image_set_id, kind), crash)
        elif fate != "lost":
            waiting += [told(image_set_id, kind)] * (2 if fate == "twice" else 1)
        if waiting and order.random() < 0.3:
            deliver(waiting.pop(order.randrange(len(waiting))), crash)
    order.shuffle(waiting)
    while waiting:
        deliver(waiting.pop())
    # What no event has brought, the reconcile function asks for: whatever differs from the datastore.
    shown = highest(objects)
    for image_set_id in IMAGE_SETS:
        if shown.get(image_set_id) != archive.truth.get(image_set_id):
            deliver(told(image_set_id, "Updated" if image_set_id in archive.versions else "Deleted"))
    assert highest(objects) == archive.truth
    assert seen(objects) == archive.truth


def test_an_update_that_a_deletion_overtakes_brings_nothing_back() -> None:
    """One invocation has read version 1 and is slow; another writes that the image set is gone."""
    archive, objects, slow = Archive(), Objects(), Objects()
    archive.change(IMAGE_SETS[0], "Created", 2)
    for kind, written in (("Created", slow), ("Deleted", objects)):
        archive.change(IMAGE_SETS[0], kind, 2)
        index(
            told(IMAGE_SETS[0], kind),
            medical_imaging=archive,
            changes=Changes(s3=written, bucket="catalog"),
        )
    objects.bodies |= slow.bodies
    assert highest(objects) == seen(objects) == {}


def told(image_set_id: str, kind: str) -> ImageSetEvent:
    """The event of a change."""
    return ImageSetEvent(
        datastore_id=DATASTORE, image_set_id=image_set_id, version=1, deleted=kind == "Deleted"
    )
