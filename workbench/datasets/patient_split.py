"""Divides patients into train, validation and test: by patient, never by image, or the scores would
flatter.

Classes are divided one by one, so that each is on every side; within a class, further strata (sex,
manufacturer) get their share as exactly as whole patients allow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from healthimaging.manifest import Split
from workbench.errors import DatasetInvalid


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """What a patient's place in the split depends on, besides the seed."""

    group: str = ""
    """The patient's class, or classes; each group is divided by itself."""
    within: str = ""
    """Further attributes; a group's shares are spread over them."""


def split_patients(
    patients: Mapping[str, Stratum] | Iterable[str],
    *,
    seed: int,
    validation: float = 0.2,
    test: float = 0.0,
    fixed: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """The split of every patient key, the same for the same patients and seed whatever their order.

    Fractions are of the patients of each group, rounded down, but a split that is asked for gets at least
    one patient of a group where there are enough; training always keeps at least one of each group.

    Args:
        patients: Stratum by patient key; keys alone are one group.
        seed: What the split is drawn with.
        validation: Share of patients, 0 to below 1.
        test: The same.
        fixed: The side of patients that are not drawn.

    Raises:
        DatasetInvalid: The fractions leave nothing to train on, or a fixed patient is not there.
    """
    # So that NaN, of which no comparison holds, is refused too.
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise DatasetInvalid(
            f"Fractions validation={validation} and test={test} leave nothing to train on.",
            advice="Give fractions of 0 or more whose sum is below 1.",
        )
    strata = dict(patients) if isinstance(patients, Mapping) else dict.fromkeys(patients, Stratum())
    splits: dict[str, Split] = dict(fixed or {})
    unknown = sorted(splits.keys() - strata.keys())
    if unknown:
        raise DatasetInvalid(
            f"{len(unknown)} of the named patients have no case; their keys: {', '.join(unknown)}.",
            advice="Widen the query, or leave them out. A key is the start of SHA-256 of the Patient ID.",
        )
    groups: dict[str, list[str]] = {}
    for key, stratum in strata.items():
        if key not in splits:
            groups.setdefault(stratum.group, []).append(key)
    for members in groups.values():
        within = {key: strata[key].within for key in members}
        splits |= _divide(within, seed=seed, validation=validation, test=test)
    return splits


def _divide(patients: Mapping[str, str], *, seed: int, validation: float, test: float) -> dict[str, Split]:
    count = len(patients)
    for_validation, for_test = _share(count, validation), _share(count, test)
    while for_validation + for_test >= max(count, 1):
        # Too few patients for three splits: validation is given up first, a test patient is what tells the
        # truth.
        if for_validation:
            for_validation -= 1
        else:
            for_test -= 1
    # Ordered by a seeded hash instead of shuffled: independent of the order of rows and of Python's version.
    ordered = sorted(patients, key=lambda key: _draw(seed, key))
    tested = _spread(ordered, patients, for_test, seed=seed)
    rest = [key for key in ordered if key not in tested]
    validated = _spread(rest, patients, for_validation, seed=seed)
    return {
        key: "test" if key in tested else "validation" if key in validated else "train" for key in ordered
    }


def _spread(ordered: Iterable[str], within: Mapping[str, str], count: int, *, seed: int) -> Collection[str]:
    """The first `count` of `ordered`, in equal shares of each stratum: by the largest remainders."""
    strata: dict[str, list[str]] = {}
    for key in ordered:
        strata.setdefault(within[key], []).append(key)
    whole = sum(len(members) for members in strata.values())
    quotas = {name: len(members) * count / whole for name, members in strata.items()}
    given = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: (given[name] - quotas[name], _draw(seed, name)))
    for name in by_remainder[: count - sum(given.values())]:
        given[name] += 1
    return {key for name, members in strata.items() for key in members[: given[name]]}


def _share(count: int, fraction: float) -> int:
    if fraction == 0 or count < 2:
        return 0
    return max(1, int(count * fraction))


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
