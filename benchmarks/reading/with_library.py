"""Reads image sets with this project's connector: `python -m benchmarks.reading.with_library`."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from benchmarks.reading.program import serve
from healthimaging import ImageSet, Volume, connect


def main() -> None:
    """Serve with one client for all reads, as boto3 clients are meant to be used."""
    client = connect()

    def datasets(datastore_id: str, image_set_id: str) -> list[Dataset]:
        return ImageSet.open(client, datastore_id, image_set_id).datasets()

    def datasets_new_client(datastore_id: str, image_set_id: str) -> list[Dataset]:
        return ImageSet.open(connect(), datastore_id, image_set_id).datasets()

    def arrays(datastore_id: str, image_set_id: str) -> list[Volume]:
        return ImageSet.open(client, datastore_id, image_set_id).volumes()

    serve(
        {
            "datasets": (datasets, _stored_pixels),
            "datasets, new client": (datasets_new_client, _stored_pixels),
            "arrays": (arrays, _hounsfield),
        }
    )


def _stored_pixels(datasets: list[Dataset]) -> Iterator[tuple[str, bytes]]:
    return ((str(dataset.SOPInstanceUID), dataset.PixelData) for dataset in datasets)


def _hounsfield(volumes: list[Volume]) -> Iterator[tuple[str, bytes]]:
    for volume in volumes:
        for uid, pixels in zip(volume.instance_uids, volume.array, strict=True):
            yield uid, pixels.astype("<i2").tobytes()


if __name__ == "__main__":
    main()
