"""Takes the frames of image sets and does nothing with them.

What no client can go below: the server, the connections, and requests that were signed before.
`python -m benchmarks.reading.with_bare_requests`
"""

from __future__ import annotations

import http.client
import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks.reading.program import serve
from benchmarks.reading.reader import Stored
from benchmarks.reading.request_cost import SignedRequest, signed_requests
from healthimaging import ImageSet, connect
from healthimaging.frames import WORKERS


def main() -> None:
    """Serve with as many connections as the connector uses at most; they stay open between reads."""
    endpoint_url = os.environ["AWS_ENDPOINT_URL"]
    address = urlsplit(endpoint_url)
    connections = [http.client.HTTPConnection(address.hostname or "", address.port) for _ in range(WORKERS)]
    prepared: dict[str, list[SignedRequest]] = {}

    def frames(datastore_id: str, image_set_id: str) -> None:
        # Prepared in the first read, which is not timed: the others read no header and sign nothing.
        if image_set_id not in prepared:
            prepared[image_set_id] = _prepare(endpoint_url, datastore_id, image_set_id)
        requests = prepared[image_set_id]

        def take(number: int) -> None:
            for request in requests[number::WORKERS]:
                request.send(connections[number])

        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            list(pool.map(take, range(min(WORKERS, len(requests)))))

    serve({"frames": (frames, lambda _: ())})


def _prepare(endpoint_url: str, datastore_id: str, image_set_id: str) -> list[SignedRequest]:
    instances = ImageSet.open(connect(), datastore_id, image_set_id).metadata.instances
    frame_ids = [frame.frame_id for instance in instances for frame in instance.frames]
    stored = Stored(datastore_id=datastore_id, image_set_id=image_set_id)
    return list(signed_requests(stored, endpoint_url, frame_ids).values())


if __name__ == "__main__":
    main()
