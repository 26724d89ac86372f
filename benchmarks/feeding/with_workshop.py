"""Trains in the workshop's way.

`python -m benchmarks.feeding.with_workshop PACKAGE EPOCHS DATASTORE IMAGESET...` does for its input what the
loop of ModelTrain/Lab-2 of monai-on-aws-workshop does. The frame ids of every image set are read once, before
training. Then in every epoch and for one image set after the other each frame is fetched with boto3 and
decoded by pylibjpeg-openjpeg, scaled to 0..1 by its own extremes and put into one tensor; the network waits
meanwhile. The notebook uses as many threads for the frames as the machine has cores, and names a
g4dn.4xlarge: 16.

Runs in the models' environment, with the decoder from the folder PACKAGE.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import boto3
import numpy as np
import torch

from benchmarks.feeding.loop import run_loop

THREADS = 16
"""vCPUs of the machine that the notebook names."""


class WorkshopFeed:
    """One image set after the other, read again whenever it is its turn."""

    def __init__(self, client: Any, decode: Any, *, datastore_id: str, image_set_ids: Sequence[str]) -> None:
        self._client = client
        self._decode = decode
        self._datastore_id = datastore_id
        self.volumes = len(image_set_ids)
        with ThreadPoolExecutor(THREADS) as pool:
            self._frames = list(pool.map(self._frame_ids, image_set_ids))

    def inputs(self) -> Iterator[torch.Tensor]:
        while True:
            for image_set_id, frame_ids in self._frames:
                # Threads of this volume's own, as the notebook's call for each volume makes them.
                with ThreadPoolExecutor(THREADS) as pool:
                    planes = list(
                        pool.map(lambda frame, one=image_set_id: self._plane(one, frame), frame_ids)
                    )
                yield torch.from_numpy(np.stack(planes)[None, None]).float()

    def close(self) -> None:
        """Nothing is read ahead."""

    def _frame_ids(self, image_set_id: str) -> tuple[str, list[str]]:
        blob = self._client.get_image_set_metadata(datastoreId=self._datastore_id, imageSetId=image_set_id)
        header = json.loads(gzip.decompress(blob["imageSetMetadataBlob"].read()))
        frames = [
            str(frame["ID"])
            for series in header["Study"]["Series"].values()
            for instance in series["Instances"].values()
            for frame in instance["ImageFrames"]
        ]
        return image_set_id, frames

    def _plane(self, image_set_id: str, frame_id: str) -> Any:
        answer = self._client.get_image_frame(
            datastoreId=self._datastore_id,
            imageSetId=image_set_id,
            imageFrameInformation={"imageFrameId": frame_id},
        )
        pixels = self._decode(io.BytesIO(answer["imageFrameBlob"].read()))
        lowest, highest = pixels.min(), pixels.max()
        return (pixels - lowest) / (highest - lowest) if lowest < highest else pixels


def main() -> None:
    """Train until the epochs are over."""
    package, epochs, datastore_id, *image_set_ids = sys.argv[1:]
    sys.path.append(package)
    decode = import_module("openjpeg").decode
    client = boto3.client("medical-imaging")
    feed = WorkshopFeed(client, decode, datastore_id=datastore_id, image_set_ids=image_set_ids)
    run_loop(feed, epochs=int(epochs))


if __name__ == "__main__":
    main()
