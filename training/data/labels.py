"""What a label is to a bundle: a map of channel numbers, or the number of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from monai.data import MetaTensor

from healthimaging import Case
from training.errors import DataError


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


def class_number(class_name: str, channels: Mapping[str, int], *, image_set_id: str) -> torch.Tensor:
    """The number of a case's class, found by its name, whatever its case: a scalar of torch.long.

    Raises:
        DataError: The bundle knows no such class.
    """
    number = _numbers(channels).get(_folded(class_name))
    if number is None:
        msg = f"Image set {image_set_id} is of class {class_name!r}; the bundle has {_listed(channels)}"
        raise DataError(msg)
    return torch.tensor(number, dtype=torch.long)


def check_labels(
    cases: Sequence[Case], channels: Mapping[str, int], *, classification: bool, every_class: bool
) -> None:
    """Finds out from the manifest alone whether its labels are of the kind that a bundle learns.

    Args:
        cases: Of the splits that are used.
        channels: The bundle's foreground channels, or its classes: number by name.
        classification: Whether the bundle tells classes apart, and not voxels.
        every_class: Each class must have a case in the training split; only with `classification`.

    Raises:
        DataError: Labels of the other kind, classes that the bundle does not know, or classes without a case
            to train on; the text says what there is.
    """
    classes = Counter(case.class_name for case in cases if case.class_name is not None)
    segmented = sum(case.label is not None for case in cases)
    if not classification:
        if classes:
            msg = (
                f"{classes.total()} of {len(cases)} cases have a class ({_listed(classes)}), and the bundle "
                "learns segmentations: train a classifying bundle, or make the data set without --labels"
            )
            raise DataError(msg)
        return
    if segmented:
        msg = (
            f"{segmented} of {len(cases)} cases have a segmentation, and the bundle learns classes "
            f"({_listed(channels)}): train a segmenting bundle, or make the data set with --labels"
        )
        raise DataError(msg)
    known = _numbers(channels)
    unknown = [name for name in classes if _folded(name) not in known]
    if unknown:
        msg = f"The manifest has cases of class {_listed(unknown)}; the bundle has {_listed(channels)}"
        raise DataError(msg)
    trained = Counter(_folded(case.class_name) for case in cases if case.class_name and case.split == "train")
    empty = [name for name in channels if not trained[_folded(name)]]
    if every_class and empty:
        counts = {name: trained[_folded(name)] for name in channels if name not in empty}
        has = ", ".join(f"{name} {count}" for name, count in counts.items()) or "no case of any class"
        msg = (
            f"No training case is of class {_listed(empty)} (there are: {has}): nothing can be learned of it"
        )
        raise DataError(msg)


def _numbers(channels: Mapping[str, int]) -> dict[str, int]:
    return {_folded(name): number for name, number in channels.items()}


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(names: Sequence[str] | Mapping[str, int]) -> str:
    return ", ".join(map(repr, sorted(names)))
