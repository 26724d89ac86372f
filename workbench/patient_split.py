"""Divides patients into train, validation and test: by patient, never by image, or the scores would
flatter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from healthimaging.manifest import Split
from workbench.errors import DatasetInvalid


def split_patients(
    keys: Iterable[str], *, seed: int, validation: float = 0.2, test: float = 0.0
) -> dict[str, Split]:
    """The split of every patient key, the same for the same keys and seed whatever their order.

    Fractions are of patients, rounded down, but a split that is asked for gets at least one patient where
    there are enough; training always keeps at least one.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise DatasetInvalid(
            f"Fractions validation={validation} and test={test} leave nothing to train on.",
            advice="Give fractions of 0 or more whose sum is below 1.",
        )
    # Ordered by a seeded hash instead of shuffled: independent of the order of rows and of Python's version.
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest())
    count = len(ordered)
    for_validation = _share(count, validation)
    for_test = _share(count, test)
    while for_validation + for_test >= max(count, 1):
        # Too few patients for three splits: validation is given up first, a test patient is what tells the
        # truth.
        if for_validation:
            for_validation -= 1
        else:
            for_test -= 1
    splits: dict[str, Split] = {}
    for index, key in enumerate(ordered):
        if index < for_test:
            splits[key] = "test"
        elif index < for_test + for_validation:
            splits[key] = "validation"
        else:
            splits[key] = "train"
    return splits


def _share(count: int, fraction: float) -> int:
    if fraction == 0 or count < 2:
        return 0
    return max(1, int(count * fraction))
