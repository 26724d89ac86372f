"""Slices that are missing although the rest is regular."""

from __future__ import annotations

import pytest
from planned_series import (
    SAGITTAL,
    enhanced,
    flat,
    header,
    names,
    no_image,
    series,
    stack,
    volumes,
)

from healthimaging.errors import (
    MissingSliceError,
)
from healthimaging.volumes.planning import plan_volumes


@pytest.mark.parametrize("step", [2, 3, -2])
def test_every_second_slice_is_missing(step: int) -> None:
    slices = stack("1", [0, 5, 10, 15], first=20, step=step)
    with pytest.raises(MissingSliceError, match=f"step by {abs(step)}"):
        plan_volumes(series(slices))
    (plan,) = plan_volumes(series(slices), accept_incomplete=True)
    assert plan.stack.geometry.spacing[2] == 5


def test_one_other_instance_does_not_explain_all_numbers_that_are_left_out() -> None:
    slices = [*stack("1", [0, 5, 10, 15], first=1, step=2), no_image("1.2.9")]
    slices[-1]["DICOM"]["InstanceNumber"] = "2"
    with pytest.raises(MissingSliceError):
        plan_volumes(series(slices))


@pytest.mark.parametrize("numbers", [[1, 3, 4, 6], [4, 2, 3, 1], [None, 3, 5, 7], [1, 3, 5, None]])
def test_numbers_without_a_pattern_say_nothing(numbers: list[int | None]) -> None:
    slices = stack("1", [0, 5, 10, 15])
    for one, number in zip(slices, numbers, strict=True):
        one["DICOM"]["InstanceNumber"] = None if number is None else str(number)
    assert volumes(slices) == [names(slices)]


def test_numbers_that_another_volume_of_the_series_has_are_not_missing() -> None:
    axial = stack("1", [0, 5, 10, 15], first=1, step=2)
    sagittal = [
        header(f"1.2.9.{k}", (-5 * k, 0, 0), orientation=SAGITTAL, InstanceNumber=str(2 * k + 2))
        for k in range(4)
    ]
    assert volumes(flat([axial, sagittal])) == [names(axial), names(sagittal)]


def test_pet_stack_that_is_shorter_than_announced() -> None:
    pet = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "NumberOfSlices": 4}
    assert len(volumes(stack("1", [0, 2, 4, 6], **pet))) == 1
    with pytest.raises(MissingSliceError, match="announces 4 slices, the stack has 3"):
        plan_volumes(series(stack("1", [0, 2, 4], **pet)))
    assert len(volumes(stack("1", [0, 2, 4], **pet), accept_incomplete=True)) == 1
    # Elsewhere the number means something else.
    assert len(volumes(stack("1", [0, 2, 4], NumberOfSlices=4))) == 1


@pytest.mark.parametrize(("numbers", "total"), [((1, 3), None), ((1, 2), 3)])
def test_concatenation_with_a_part_missing(numbers: tuple[int, int], total: int | None) -> None:
    parts = [
        enhanced(
            f"1.2.{n}",
            [(2.0 * (2 * k + j), {}) for j in range(2)],
            ConcatenationUID="1.2.77",
            InConcatenationNumber=n,
            InConcatenationTotalNumber=total,
        )
        for k, n in enumerate(numbers)
    ]
    with pytest.raises(MissingSliceError, match="3 instances, 2 are here"):
        plan_volumes(series(parts))
