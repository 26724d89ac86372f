"""How the catalog follows the archive: event, queue, function.

HealthImaging announces every image set that is created, copied, updated or deleted. The queue keeps what the
function cannot take yet (GetImageSetMetadata is limited to 50 requests a second), and a second queue keeps
what it could not do.
"""

from __future__ import annotations

from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.catalog.tables import CHANGES
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment
from infra.event_function import TIMEOUT, Batches, Program, event_function
from infra.event_queue import event_queue
from infra.network.placement import Placement
from infra.workload import allow

_BATCH = 10
_CONCURRENT_BATCHES = 4
"""With a tenth of a second a request, some 40 a second: below the quota of GetImageSetMetadata (50)."""


class IndexPath(Construct):
    """Keeps the catalog's Parquet objects equal to the archive's image sets."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        environment: Environment,
    ) -> None:
        super().__init__(scope, id)
        events = event_queue(self, key=key, timeout=TIMEOUT)
        self.queue, self.dead_letters = events.queue, events.dead_letters
        events.receive(
            self,
            "ImageSetChanged",
            description="Image sets of the archive that the catalog has to read again",
            event_pattern={
                "source": ["aws.medical-imaging"],
                "detail-type": [
                    "Image Set Created",
                    "Image Set Copied",
                    "Image Set Updated",
                    "Image Set Deleted",
                ],
                "detail": {"datastoreId": [archive.datastore_id]},
            },
        )
        self.function = event_function(
            self,
            program=Program(
                name="index",
                packages=[
                    "healthimaging",
                    "runtime/functions/batches",
                    "runtime/functions/catalog_queries",
                    "runtime/functions/image_sets",
                ],
                says="Writes the header rows of an image set to the catalog",
                # For the largest metadata that it reads (runtime/functions/image_sets/reading.py).
                memory_mib=2048,
                variables={"CATALOG_BUCKET": buckets.catalog.bucket_name},
            ),
            may=[
                allow(
                    "medical-imaging:GetImageSet",
                    "medical-imaging:GetImageSetMetadata",
                    on=[archive.datastore_arn, archive.image_sets_arn],
                ),
                # A version's rows are written once, and a tombstone hides them: nothing is deleted.
                allow("s3:PutObject", on=[buckets.catalog.arn_for_objects(f"{CHANGES}*")]),
            ],
            role_says="Index function: read image set metadata, write its rows to the catalog",
            batches=Batches(events=events, most=_BATCH, at_a_time=_CONCURRENT_BATCHES),
            environment=environment,
            key=key,
            placement=placement,
        )
