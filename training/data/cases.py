"""A manifest's cases as MONAI items: images and labels read from HealthImaging."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from healthimaging import (
    Case,
    HealthImagingError,
    ImageSet,
    ImageSetRef,
    Manifest,
    connect,
)
from healthimaging.errors import VolumeError
from healthimaging.monai import load_case, open_case
from healthimaging.volumes.planning import plan_volumes
from training.data.labels import class_number, label_map
from training.errors import DataError

PROBLEMS_TOLD = 5
"""How many of the unusable cases a failure text names; more would not fit."""

Spacing = tuple[float, float, float]
"""Voxel size in mm along (columns, rows, slices)."""


class CaseReader(Protocol):
    """Where images and labels come from. Threads share it."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides, beside case and level, what `read` gives."""

    def problem(self, case: Case) -> str | None:
        """What makes a case unusable, judged without reading pixels; None when nothing does."""

    def spacing(self, case: Case) -> Spacing:
        """The voxel size of a case's image in full resolution, without reading pixels.

        Raises:
            DataError: It cannot be read.
        """

    def read(self, case: Case, *, level: int = 0) -> dict[str, Any]:
        """A case's `image` and, if it has one, `label`.

        The image is a MetaTensor (1, columns, rows, slices) with an affine in RAS mm, in its modality's unit
        (HU for CT). The label of a segmentation is one on the same grid with the channel numbers of the
        bundle, 0 = background; that of a class is its number, a scalar of torch.long.

        Args:
            case: The case.
            level: How often rows and columns are halved.

        Raises:
            DataError: It cannot be read.
        """


class DatastoreReader:
    """Reads cases from a HealthImaging data store.

    Args:
        client: boto3 `medical-imaging` client.
        channels: The bundle's foreground channels, or its classes: number by name. Segments of a label, and
            classes, are found by name.
    """

    def __init__(self, client: Any, channels: Mapping[str, int]) -> None:
        self._client = client
        self._channels = channels
        self._spacings: dict[ImageSetRef, Spacing] = {}

    @classmethod
    def connected(cls, channels: Mapping[str, int]) -> DatastoreReader:
        """With the credentials, region and endpoint of the environment, as a container finds them."""
        return cls(connect(), channels)

    @property
    def fingerprint(self) -> str:
        return json.dumps(sorted(self._channels.items()))

    def problem(self, case: Case) -> str | None:
        try:
            image, _ = open_case(self._client, case)
            self._spacings[case.image] = _spacing(image)
        except HealthImagingError as error:
            return f"{type(error).__name__}: {error}"
        return None

    def spacing(self, case: Case) -> Spacing:
        if case.image not in self._spacings:
            problem = self.problem(case)
            if problem is not None:
                msg = f"Case of image set {case.image.image_set_id}: {problem}"
                raise DataError(msg)
        return self._spacings[case.image]

    def read(self, case: Case, *, level: int = 0) -> dict[str, Any]:
        try:
            loaded = load_case(self._client, case, level=level)
        except HealthImagingError as error:
            msg = f"Case of image set {case.image.image_set_id}: {type(error).__name__}: {error}"
            raise DataError(msg) from error
        # What other libraries say may quote the header, and failure texts are for all who see the job.
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again without its text
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            msg = f"Case of image set {case.image.image_set_id}: unexpected {where}"
            raise DataError(msg) from None
        item: dict[str, Any] = {"image": loaded["image"]}
        if case.label is not None:
            item["label"] = label_map(loaded["label"], self._channels, image_set_id=case.label.image_set_id)
        elif case.class_name is not None:
            item["label"] = class_number(
                case.class_name, self._channels, image_set_id=case.image.image_set_id
            )
        return item


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
        if case.label is None and case.class_name is None:
            return "It has no label"
        return reader.problem(case)

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


def _spacing(image_set: ImageSet) -> Spacing:
    """Of the one volume that an image set must have.

    Raises:
        VolumeError: It has none, or several.
        HealthImagingError: Its header makes no volume; the subclass says why.
    """
    plans = [plan for series in image_set.metadata.series.values() for plan in plan_volumes(series)]
    if len(plans) != 1:
        msg = f"The image set holds {len(plans)} volumes, one is needed"
        raise VolumeError(msg, image_set_id=image_set.ref.image_set_id)
    return plans[0].stack.geometry.spacing
