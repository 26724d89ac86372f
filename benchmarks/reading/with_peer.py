"""Reads image sets with AHItoDICOMInterface, as it is: `python -m benchmarks.reading.with_peer`.

Endpoint and credentials come from the environment: its own parameters lose the access key on the way to the
processes that fetch frames.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from benchmarks.reading.program import serve


def main() -> None:
    """Serve with one object of the client for all reads; it makes processes and boto3 clients for each."""
    # It hands queues and loggers to its processes, which only a fork can: not the default of newer Pythons.
    multiprocessing.set_start_method("fork")
    # By name: it is installed in an environment of its own only.
    client: Any = import_module("AHItoDICOMInterface.AHItoDICOM").AHItoDICOM()

    def datasets(datastore_id: str, image_set_id: str) -> Any:
        return client.DICOMizeImageSet(datastore_id=datastore_id, image_set_id=image_set_id)

    serve({"datasets": (datasets, _stored_pixels)})


def _stored_pixels(datasets: Any) -> Iterator[tuple[str, bytes]]:
    return ((str(dataset.SOPInstanceUID), dataset.PixelData) for dataset in datasets)


if __name__ == "__main__":
    main()
