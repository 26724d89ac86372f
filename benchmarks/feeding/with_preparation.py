"""What preparing a volume costs: `python -m benchmarks.feeding.with_preparation MANIFEST CACHE`.

Each volume is read and brought to the grid of the shipped segmentation bundle in two ways, from all of its
pixels and from as many as that grid needs, and then taken from the cache. Prints seconds, medians over the
volumes. Runs in the models' environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.transforms import Compose, EnsureTyped, Orientationd, ScaleIntensityRanged, Spacingd

from healthimaging.manifest import Case
from training.data.cache import ItemCache
from training.data.cases import DatastoreReader, read_manifest
from training.data.preparation import split_transform
from training.data.source import CaseSource
from training.stopping import StopRequest

GRID_MM = 4.0
COARSE_LEVEL = 1
"""Pixels of 0.57 mm, twice as large, are still less than half of the grid's 4 mm."""
CACHE_BYTES = 2**32


def main() -> None:
    """Measure and print."""
    manifest, cache = sys.argv[1:]
    cases = read_manifest(Path(manifest)).split("train")
    found = {"whole": _seconds(cases, Path(cache) / "whole", level=0)}
    found["coarse"] = _seconds(cases, Path(cache) / "coarse", level=COARSE_LEVEL)
    print(json.dumps(found))


def _seconds(cases: Sequence[Case], cache: Path, *, level: int) -> dict[str, float]:
    """Of a first and of a second look at each case."""
    cache.mkdir(parents=True)
    source = _source(cases, ItemCache(cache, limit_bytes=CACHE_BYTES), level=level)
    prepared, cached = ([_touched(source, number) for number in range(len(cases))] for _ in range(2))
    return {"prepared": median(prepared), "cached": median(cached)}


def _source(cases: Sequence[Case], cache: ItemCache, *, level: int) -> CaseSource:
    grid: Any = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=[GRID_MM] * 3, mode="bilinear"),
            ScaleIntensityRanged(keys="image", a_min=-1000, a_max=400, b_min=0, b_max=1, clip=True),
            EnsureTyped(keys="image", dtype=torch.float32),
        ]
    )
    classes = sorted({case.class_name for case in cases if case.class_name})
    return CaseSource(
        cases,
        DatastoreReader.connected({name: number for number, name in enumerate(classes)}),
        preparation=split_transform(grid, fingerprint="grid of 4 mm"),
        cache=cache,
        level=level,
        stop=StopRequest(),
    )


def _touched(source: CaseSource, number: int) -> float:
    """Seconds until every voxel of an item has been looked at: a mapped file is read only then."""
    begin = time.perf_counter()
    torch.as_tensor(source.item(number)["image"]).sum()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
