"""Takes the frames of image sets, and does nothing else or decodes them into an array.

The least that a program in Python can do: requests that were signed before, the standard library's HTTP
client, the decoder; nothing is verified, placed by geometry or rescaled.
`python -m benchmarks.reading.with_bare_requests`
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import imagecodecs
import numpy as np

from benchmarks.reading.program import serve
from benchmarks.reading.reader import Stored
from benchmarks.reading.request_cost import SignedRequest, signed_requests
from healthimaging import ImageSet, connect
from healthimaging.frames.fetching import WORKERS

MOST_FRAMES = 200


def main() -> None:
    """Serve with as many connections as the connector uses at most; they stay open between reads."""
    endpoint_url = os.environ["AWS_ENDPOINT_URL"]
    address = urlsplit(endpoint_url)
    connections = [http.client.HTTPConnection(address.hostname or "", address.port) for _ in range(WORKERS)]
    prepared: dict[str, list[SignedRequest]] = {}

    def read(datastore_id: str, image_set_id: str, take: Callable[[int, bytes], object]) -> None:
        # Prepared in the first read, which is not timed: the others read no header and sign nothing.
        if image_set_id not in prepared:
            prepared[image_set_id] = _prepare(endpoint_url, datastore_id, image_set_id)
        requests = prepared[image_set_id]

        def work(number: int) -> None:
            for k in range(number, len(requests), WORKERS):
                take(k, requests[k].send(connections[number]))

        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            list(pool.map(work, range(min(WORKERS, len(requests)))))

    def frames(datastore_id: str, image_set_id: str) -> None:
        read(datastore_id, image_set_id, lambda _number, _data: None)

    def arrays(datastore_id: str, image_set_id: str) -> None:
        volume = np.empty((MOST_FRAMES, 512, 512), np.uint16)  # memory that is not used costs nothing
        read(datastore_id, image_set_id, lambda k, data: imagecodecs.htj2k_decode(data, out=volume[k]))

    serve({"frames": (frames, lambda _: ()), "arrays": (arrays, lambda _: ())})


def _prepare(endpoint_url: str, datastore_id: str, image_set_id: str) -> list[SignedRequest]:
    instances = ImageSet.open(connect(), datastore_id, image_set_id).metadata.instances
    frame_ids = [frame.frame_id for instance in instances for frame in instance.frames]
    stored = Stored(datastore_id=datastore_id, image_set_id=image_set_id)
    return list(signed_requests(stored, endpoint_url, frame_ids).values())


if __name__ == "__main__":
    main()
