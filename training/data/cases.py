"""A manifest's cases as MONAI items: images and labels read from HealthImaging."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from monai.data import MetaTensor

from healthimaging import (
    Case,
    HealthImagingError,
    Manifest,
    connect,
)
from healthimaging.monai import load_case, open_case
from training.errors import DataError
from training.stopping import StopRequest

PROBLEMS_TOLD = 5
"""How many of the unusable cases a failure text names; more would not fit."""


class CaseReader(Protocol):
    """Where images and labels come from."""

    def problem(self, case: Case) -> str | None:
        """What makes a case unusable, judged without reading pixels; None when nothing does."""

    def read(self, case: Case) -> dict[str, MetaTensor]:
        """A case's `image` and, if it has one, `label`.

        Both are (1, columns, rows, slices) on one grid with an affine in RAS mm; the image in its modality's
        unit (HU for CT), the label with the channel numbers of the bundle, 0 = background.
        """


class DatastoreReader:
    """Reads cases from a HealthImaging data store.

    Args:
        client: boto3 `medical-imaging` client.
        channels: The bundle's foreground channels: number by name. Segments of a label are found by name.
    """

    def __init__(self, client: Any, channels: Mapping[str, int]) -> None:
        self._client = client
        self._channels = channels

    @classmethod
    def connected(cls, channels: Mapping[str, int]) -> DatastoreReader:
        """With the credentials, region and endpoint of the environment, as a container finds them."""
        return cls(connect(), channels)

    def problem(self, case: Case) -> str | None:
        try:
            open_case(self._client, case)
        except HealthImagingError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def read(self, case: Case) -> dict[str, MetaTensor]:
        try:
            loaded = load_case(self._client, case)
        except HealthImagingError as error:
            msg = f"Case of image set {case.image.image_set_id}: {type(error).__name__}: {error}"
            raise DataError(msg) from error
        # What other libraries say may quote the header, and failure texts are for all who see the job.
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again without its text
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            msg = f"Case of image set {case.image.image_set_id}: unexpected {where}"
            raise DataError(msg) from None
        item = {"image": loaded["image"]}
        if case.label is not None:
            item["label"] = label_map(loaded["label"], self._channels, image_set_id=case.label.image_set_id)
        return item


def label_map(masks: MetaTensor, channels: Mapping[str, int], *, image_set_id: str) -> MetaTensor:
    """One number a voxel from masks that are found by their names, whatever their case.

    Args:
        masks: (segments, columns, rows, slices) of 0 and 1, the names in `meta["segment_labels"]`; segments
            that the bundle does not name are left out.
        channels: The bundle's foreground channels: number by name.
        image_set_id: The label's, for errors.

    Returns:
        uint8 (1, columns, rows, slices), 0 = background.

    Raises:
        DataError: A channel has no segment, two segments have one name, or two masks overlap.
    """
    labels = [str(label) for label in masks.meta["segment_labels"]]
    numbers = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    for name, number in channels.items():
        found = [s for s, label in enumerate(labels) if label.strip().casefold() == name.strip().casefold()]
        if len(found) != 1:
            have = ", ".join(map(repr, labels)) or "none"
            msg = f"Label {image_set_id} needs one segment named {name!r} and has {len(found)}; it has {have}"
            raise DataError(msg)
        mask = torch.as_tensor(masks[found[0]]).bool()
        if bool(numbers[mask].any()):
            msg = f"Label {image_set_id}: segment {name!r} overlaps another; classes exclude each other"
            raise DataError(msg)
        numbers[mask] = number
    return MetaTensor(numbers[None], affine=masks.affine)


class LazyCases(Sequence[dict[str, MetaTensor]]):
    """Cases that are read when they are asked for, so that a cache of transformed items never holds two
    whole volumes.
    """

    def __init__(self, cases: Sequence[Case], reader: CaseReader, stop: StopRequest) -> None:
        self._cases = tuple(cases)
        self._reader = reader
        self._stop = stop

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[dict[str, MetaTensor]]:
        return (self[i] for i in range(len(self)))

    # The abstract method is overloaded for slices; MONAI's datasets ask for single items only.
    def __getitem__(self, index: Any) -> Any:
        self._stop.check()
        return self._reader.read(self._cases[index])


def read_manifest(file: Path) -> Manifest:
    """Raises:
    DataError: The file is no manifest.
    """
    try:
        return Manifest.from_json(file.read_bytes())
    except HealthImagingError as error:
        msg = f"Manifest {file.name}: {error}"
        raise DataError(msg) from error


def check_cases(cases: Sequence[Case], reader: CaseReader) -> None:
    """Finds out before anything is fetched whether every case is there, labelled and in its pinned version.

    Raises:
        DataError: Naming the unusable cases.
    """

    def problem(case: Case) -> str | None:
        return "It has no label" if case.label is None else reader.problem(case)

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(problem, cases)
        problems = [
            f"image set {case.image.image_set_id}: {problem}"
            for case, problem in zip(cases, found, strict=True)
            if problem
        ]
    if problems:
        told = "; ".join(problems[:PROBLEMS_TOLD])
        rest = f"; and {len(problems) - PROBLEMS_TOLD} more" if len(problems) > PROBLEMS_TOLD else ""
        msg = f"{len(problems)} of {len(cases)} cases cannot be used: {told}{rest}"
        raise DataError(msg)
