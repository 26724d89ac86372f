"""Small cases that count how often they are read, and sources made of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Orientationd,
    RandFlipd,
    RandGaussianNoised,
    RandSpatialCropSamplesd,
    ScaleIntensityRanged,
)

from healthimaging import Case, ImageSetRef
from training.data.cache import ItemCache
from training.data.preparation import Preparation, split_transform
from training.data.source import CaseSource
from training.errors import DataError
from training.stopping import StopRequest

DATASTORE_ID = "0" * 32
SHAPE = (16, 12, 8)
"""(columns, rows, slices)"""


def made_case(number: int, *, version: str = "1", **changes: Any) -> Case:
    image = ImageSetRef(datastore_id=DATASTORE_ID, image_set_id=f"image-{number}", version_id=version)
    label = ImageSetRef(datastore_id=DATASTORE_ID, image_set_id=f"label-{number}", version_id="1")
    fields: dict[str, Any] = {"patient_key": str(number), "split": "train", "image": image, "label": label}
    return Case(**(fields | changes))


class CountingReader:
    """Volumes of noise with the number of their case in one corner.

    Args:
        log: A line is added to this file for every case that is read, by whatever process.
        gate: Reading waits for it.
        broken: Numbers of cases that cannot be read.
    """

    def __init__(
        self, *, log: Path | None = None, gate: threading.Event | None = None, broken: Sequence[int] = ()
    ) -> None:
        self.reads: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.fingerprint = "counting"
        self._log = log
        self._gate = gate
        self._broken = set(broken)
        self._lock = threading.Lock()

    def problem(self, case: Case) -> str | None:
        return None

    def spacing(self, case: Case) -> tuple[float, float, float]:
        return (1.0, 1.0, 2.0)

    def read(self, case: Case, *, level: int = 0) -> dict[str, Any]:
        with self._lock:
            self.reads.append(case.image.image_set_id)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self._read(case)
        finally:
            with self._lock:
                self.at_once -= 1

    def _read(self, case: Case) -> dict[str, Any]:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{case.image.image_set_id}\n")
        if self._gate is not None:
            assert self._gate.wait(30)
        number = int(case.image.image_set_id.partition("-")[2])
        if number in self._broken:
            msg = f"Case of image set {case.image.image_set_id}: broken"
            raise DataError(msg)
        values = np.random.default_rng(number).normal(0, 100, size=(1, *SHAPE)).astype(np.float32)
        values[0, 0, 0, 0] = number
        affine = torch.diag(torch.tensor([-1.0, -1.0, 2.0, 1.0], dtype=torch.float64))
        label = torch.from_numpy((values > 0).astype(np.uint8))
        return {
            "image": MetaTensor(torch.from_numpy(values), affine=affine),
            "label": MetaTensor(label, affine=affine),
        }


def chain(*, random: bool = True) -> Compose:
    links: list[Any] = [
        Orientationd(("image", "label"), axcodes="RAS", labels=None),
        ScaleIntensityRanged("image", a_min=-1000, a_max=1000, b_min=0, b_max=1),
    ]
    if random:
        links += [
            RandSpatialCropSamplesd(("image", "label"), roi_size=(8, 8, 4), num_samples=2, random_size=False),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=0.5, std=0.1),
        ]
    return Compose(links)


def prepared(*, random: bool = True, fingerprint: str = "chain") -> Preparation:
    return split_transform(chain(random=random), fingerprint=fingerprint)


def made_source(
    count: int,
    *,
    reader: CountingReader | None = None,
    cache: ItemCache | None = None,
    preparation: Preparation | None = None,
    stop: StopRequest | None = None,
    level: int = 0,
) -> CaseSource:
    return CaseSource(
        [made_case(number) for number in range(count)],
        reader or CountingReader(),
        preparation=preparation or prepared(),
        cache=cache,
        level=level,
        stop=stop or StopRequest(),
    )


def same(one: Any, other: Any) -> bool:
    """Whether two items are equal to the bit, with their geometry and history."""
    # Members of MONAI's enumerations are texts, and come back from a file as such.
    if type(one) is not type(other) and not (isinstance(one, str) and isinstance(other, str)):
        return False
    if isinstance(one, MetaTensor):
        return (
            torch.equal(one.as_tensor(), other.as_tensor())
            and one.dtype == other.dtype
            and same(dict(one.meta), dict(other.meta))
            and same(one.applied_operations, other.applied_operations)
        )
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
