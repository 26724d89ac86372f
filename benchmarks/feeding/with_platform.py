"""Trains in the platform's way.

`python -m benchmarks.feeding.with_platform INPUT MANIFEST CACHE MIB WORKERS EPOCHS` uses the pieces that a
training job reads with, set up as there: the connector reads each case, the deterministic transforms' result
goes into the folder CACHE as long as that holds no more than MIB, and threads prepare the batches ahead.
INPUT is `whole`, the very tensors that the workshop's loop makes, or `bundle`, what the shipped
classification bundle makes of the same volumes. Runs in the models' environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from benchmarks.feeding.frames_to_one import ScaleFrames
from benchmarks.feeding.loop import run_loop
from training.configuration.bundle import named_bundle
from training.configuration.training import TrainingConfiguration
from training.data.cache import ItemCache
from training.data.cases import DatastoreReader, read_manifest
from training.data.preparation import split_transform
from training.data.sampling import StepLoader
from training.data.source import CaseSource
from training.stopping import StopRequest

MIB = 2**20


class PlatformFeed:
    """Batches of one volume, each epoch in an order of its own."""

    def __init__(self, source: CaseSource, *, workers: int) -> None:
        self.volumes = len(source)
        self._loader = StepLoader(
            source=source, batch_size=1, world_size=1, rank=0, accumulate=1, seed=0, workers=workers
        )

    def inputs(self) -> Iterator[Any]:
        for batch in self._loader:
            yield batch["image"]

    def close(self) -> None:
        self._loader.close()


def main() -> None:
    """Train until the epochs are over."""
    input_, manifest, cache, mebibytes, workers, epochs = sys.argv[1:]
    configuration = TrainingConfiguration(named_bundle("volume_classification"))
    source = CaseSource(
        read_manifest(Path(manifest)).split("train"),
        DatastoreReader.connected(configuration.channels),
        preparation=split_transform(Compose([ScaleFrames()]), fingerprint="frames to 0..1")
        if input_ == "whole"
        else split_transform(
            configuration.preprocessing("train"), fingerprint=configuration.preparation_fingerprint("train")
        ),
        cache=ItemCache(Path(cache), limit_bytes=int(mebibytes) * MIB),
        level=0,
        stop=StopRequest(),
    )
    run_loop(PlatformFeed(source, workers=int(workers)), epochs=int(epochs))


if __name__ == "__main__":
    main()
