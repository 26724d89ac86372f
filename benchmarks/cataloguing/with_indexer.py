"""Runs the index function's code on one image set, again and again.

`python -m benchmarks.cataloguing.with_indexer DATASTORE IMAGE_SET TIMES`, with the endpoint and credentials
in the environment; prints what it took as JSON. The image set's properties and metadata are asked for once.
After that HealthImaging and S3 are stand-ins in this process, which answer with what was heard and keep
nothing: the figures are of the function alone.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from benchmarks.cataloguing.peak_memory import peak_bytes
from healthimaging import connect
from runtime.functions.image_sets.events import ImageSetEvent
from runtime.functions.index.changes import Changes
from runtime.functions.index.handler import index


@dataclass(kw_only=True)
class _Heard:
    """HealthImaging, as it answered once."""

    properties: dict[str, Any]
    metadata: dict[str, Any]
    body: bytes

    def get_image_set(self, **_: Any) -> dict[str, Any]:
        return dict(self.properties)

    def get_image_set_metadata(self, **_: Any) -> dict[str, Any]:
        return {**self.metadata, "imageSetMetadataBlob": io.BytesIO(self.body)}


@dataclass(kw_only=True)
class _Counted:
    """S3, which keeps what was written last."""

    bodies: deque[bytes] = field(default_factory=lambda: deque(maxlen=2))
    """The last ones: of the series and of the instances."""

    def put_object(self, *, Body: bytes, **_: Any) -> dict[str, Any]:
        self.bodies.append(Body)
        return {}


def main() -> None:
    """Measure, and print."""
    datastore_id, image_set_id, times = sys.argv[1:]
    client = connect()
    place = {"datastoreId": datastore_id, "imageSetId": image_set_id}
    metadata = client.get_image_set_metadata(**place)
    heard = _Heard(
        properties=client.get_image_set(**place),
        metadata={name: value for name, value in metadata.items() if name != "imageSetMetadataBlob"},
        body=metadata["imageSetMetadataBlob"].read(),
    )
    s3 = _Counted()
    changes = Changes(s3=s3, bucket="bucket")
    event = ImageSetEvent(datastore_id=datastore_id, image_set_id=image_set_id)
    # The first one loads what is loaded once.
    index(event, medical_imaging=heard, changes=changes)
    bodies = tuple(s3.bodies)
    before = peak_bytes()
    begin = time.perf_counter()
    for _ in range(int(times)):
        index(event, medical_imaging=heard, changes=changes)
    seconds = time.perf_counter() - begin
    print(
        json.dumps(
            {
                "rows": sum(pq.read_metadata(io.BytesIO(body)).num_rows for body in bodies),
                "metadata_bytes": len(heard.body),
                "seconds": seconds,
                "written_bytes": sum(len(body) for body in bodies),
                "peak_bytes": peak_bytes(),
                "peak_after_first_bytes": before,
            }
        )
    )


if __name__ == "__main__":
    main()
