"""One stack several times in a series: told apart by what the header says, and never by a guess."""

from __future__ import annotations

from typing import Any

import pytest
from planned_series import (
    DISTINGUISHING,
    enhanced,
    flat,
    header,
    names,
    repeated,
    series,
    stack,
    uids,
    volumes,
)

from healthimaging.errors import (
    DuplicatePositionError,
    GeometryError,
    MetadataError,
    MissingGeometryError,
    MissingSliceError,
)
from healthimaging.metadata import SeriesRecord
from healthimaging.volumes.planning import plan_volumes


@pytest.mark.parametrize(("keyword", "value"), DISTINGUISHING)
def test_repetitions_are_told_apart(keyword: str, value: Any) -> None:
    parts = repeated(3, **{keyword: value})
    interleaved = [part[k] for k in range(4) for part in parts]
    found = plan_volumes(series(reversed(interleaved)))
    # Their order is that of the values, as text where they are text.
    wanted = [names(part) for part in parts]
    assert sorted(uids(plan) for plan in found) == sorted(wanted)
    assert {plan.distinction[0][0] for plan in found} == {keyword}
    assert len({plan.distinction for plan in found}) == 3
    if keyword != "ImageType":
        assert [uids(plan) for plan in found] == wanted


def test_ten_time_points_come_in_the_order_of_numbers_not_of_text() -> None:
    parts = repeated(11, TemporalPositionIdentifier=lambda t: str(t + 1))
    found = plan_volumes(series(flat(parts)))
    assert [plan.distinction for plan in found] == [
        (("TemporalPositionIdentifier", str(t + 1)),) for t in range(11)
    ]
    assert [uids(plan) for plan in found] == [names(part) for part in parts]


def test_numbers_that_are_written_differently_are_one_value() -> None:
    parts = repeated(2, EchoTime=lambda t: "4.60" if t else "9.2")
    for one in parts[1][::2]:
        one["DICOM"]["EchoTime"] = "4.6"
    assert volumes(flat(parts)) == [names(parts[1]), names(parts[0])]


def test_echoes_of_phases() -> None:
    parts = {
        (phase, echo): stack(
            f"{phase}.{echo}",
            [0, 2, 4],
            TemporalPositionIdentifier=str(phase),
            EchoTime=f"{5 * echo}",
        )
        for phase in (1, 2, 3)
        for echo in (1, 2)
    }
    found = plan_volumes(series(flat(list(parts.values()))))
    assert [plan.distinction for plan in found] == [
        (("TemporalPositionIdentifier", str(phase)), ("EchoTime", str(5 * echo))) for phase, echo in parts
    ]
    assert [uids(plan) for plan in found] == [names(part) for part in parts.values()]


def test_one_image_without_diffusion_weighting_and_several_directions() -> None:
    weights = [(0.0, [0.0, 0, 0]), (800.0, [1.0, 0, 0]), (800.0, [0.0, 1, 0]), (800.0, [0.0, 0, 1])]
    parts = [
        stack(f"{t}", [0, 2, 4], DiffusionBValue=b, DiffusionGradientOrientation=direction)
        for t, (b, direction) in enumerate(weights)
    ]
    found = plan_volumes(series(flat(parts)))
    assert sorted(uids(plan) for plan in found) == sorted(names(part) for part in parts)
    assert found[0].distinction == (("DiffusionBValue", "0.0"),)
    assert [len(plan.distinction) for plan in found] == [1, 2, 2, 2]


def test_absence_of_an_attribute_from_a_whole_repetition_distinguishes_it() -> None:
    parts = repeated(2, DiffusionBValue=lambda t: None if t == 0 else 800.0)
    found = plan_volumes(series(flat(parts)))
    assert [uids(plan) for plan in found] == [names(part) for part in parts]
    assert [plan.distinction for plan in found] == [
        (("DiffusionBValue", ""),),
        (("DiffusionBValue", "800.0"),),
    ]


@pytest.mark.parametrize("value", [None, "", "nan", "x"])
def test_attribute_that_a_slice_lacks_separates_nothing(value: Any) -> None:
    for options in ({}, {"accept_incomplete": True}):
        parts = repeated(2, EchoTime=lambda t: str(t + 1))
        parts[0][2]["DICOM"]["EchoTime"] = value
        with pytest.raises(DuplicatePositionError):
            plan_volumes(series(flat(parts)), **options)


@pytest.mark.parametrize("value", [None, "", "nan", "x"])
def test_times_and_numbers_that_are_none_separate_nothing(value: Any) -> None:
    for keyword in ("TriggerTime", "InstanceNumber"):
        parts = [stack(f"{t}", [0, 2, 4], **{keyword: f"{t + 1}"}) for t in range(2)]
        parts[0][1]["DICOM"][keyword] = value
        with pytest.raises(DuplicatePositionError):
            plan_volumes(series(flat(parts)))


def test_times_may_differ_a_little_from_slice_to_slice() -> None:
    parts = [
        stack(f"{t}", [0, 2, 4, 6], TriggerTime=lambda k, t=t: f"{40 * t + (-1) ** k * 1.5 * t:.1f}")
        for t in range(5)
    ]
    assert volumes(flat(parts)) == [names(part) for part in parts]


def test_times_that_overlap_separate_nothing() -> None:
    parts = [stack(f"{t}", [0, 2, 4], TriggerTime=lambda k, t=t: f"{10 * t + 15 * k}") for t in range(3)]
    with pytest.raises(DuplicatePositionError):
        plan_volumes(series(flat(parts)))


def test_times_that_touch_separate_nothing() -> None:
    parts = [
        stack(f"{t}", [0, 2, 4], TriggerTime=lambda k, t=t: f"{10 * t + 10 * (k % 2)}") for t in range(2)
    ]
    with pytest.raises(DuplicatePositionError):
        plan_volumes(series(flat(parts)))


def test_two_slices_at_one_place_are_not_two_volumes_because_they_are_two_instances() -> None:
    with pytest.raises(DuplicatePositionError):
        plan_volumes(series([header("1.2.1", (0, 0, 0)), header("1.2.2", (0, 0, 0))]))


def test_instances_numbered_one_volume_after_the_other() -> None:
    parts = [stack(f"{t}", [0, 2, 4, 6], first=4 * t + 1) for t in range(3)]
    found = plan_volumes(series(flat(parts)[::-1]))
    assert [uids(plan) for plan in found] == [names(part) for part in parts]
    assert [plan.distinction for plan in found] == [(("InstanceNumber", str(4 * t + 1)),) for t in range(3)]


def test_instances_numbered_one_place_after_the_other() -> None:
    parts = [stack(f"{t}", [0, 2, 4, 6], first=t + 1, step=3) for t in range(3)]
    assert volumes(flat(parts)[::-1]) == [names(part) for part in parts]


@pytest.mark.parametrize(
    "numbers",
    [
        [None] * 6,  # no numbers
        [1, 2, 3, 1, 2, 3],  # one number twice
        [1, 2, 4, 3, 5, 6],  # neither volume by volume nor place by place
        [1, 2, 3, 4, 5, None],
    ],
)
def test_numbers_that_can_be_read_in_two_ways_separate_nothing(numbers: list[int | None]) -> None:
    slices = flat(repeated(2, slices=3))
    for one, number in zip(slices, numbers, strict=True):
        one["DICOM"]["InstanceNumber"] = None if number is None else str(number)
    with pytest.raises(DuplicatePositionError, match="no attribute") as caught:
        plan_volumes(series(slices))
    assert caught.value.sop_instance_uid in names(slices)


def test_one_slice_that_was_sent_twice_is_refused_whatever_its_number() -> None:
    for number in ("2", "5"):
        slices = [*stack("1", [0, 2, 4], first=1), header("1.2.9", (0, 0, 2), InstanceNumber=number)]
        with pytest.raises(DuplicatePositionError):
            plan_volumes(series(slices))


def test_repetition_that_lacks_a_slice_is_refused_unless_that_is_accepted() -> None:
    parts = repeated(3, TemporalPositionIdentifier=lambda t: str(t + 1))
    shorter = [parts[0], parts[1][:-1], parts[2]]
    with pytest.raises(MissingSliceError, match="TemporalPositionIdentifier 2 has slices at 3 of 4 places"):
        plan_volumes(series(flat(shorter)))
    assert volumes(flat(shorter), accept_incomplete=True) == [names(part) for part in shorter]
    for one in parts[1]:
        del one["DICOM"]["TemporalPositionIdentifier"]
    with pytest.raises(MissingSliceError, match=r"TemporalPositionIdentifier \(none\) has slices at 3 of 4"):
        plan_volumes(series(flat(shorter)))
    hollow = [parts[0], [parts[1][0], *parts[1][2:]], parts[2]]
    with pytest.raises(MissingSliceError):
        plan_volumes(series(flat(hollow)), accept_incomplete=True)


def test_acquisitions_of_ranges_that_overlap() -> None:
    chest = stack("1", range(0, 20, 2), first=1, AcquisitionNumber="1")
    abdomen = stack("2", range(14, 35, 5), first=11, AcquisitionNumber="2")
    found = plan_volumes(series(flat([chest, abdomen])))
    assert [uids(plan) for plan in found] == [names(chest), names(abdomen)]
    assert [plan.stack.geometry.spacing[2] for plan in found] == [2, 5]
    with pytest.raises(GeometryError):  # the last slice of the chest is not here
        plan_volumes(series(flat([chest[:-1], abdomen])))


def test_thin_and_thick_slices_of_overlapping_ranges() -> None:
    thin = stack("1", range(10), first=1, SliceThickness="1", AcquisitionNumber=lambda k: str(1 + k // 6))
    thick = stack("2", range(0, 15, 5), first=11, SliceThickness="5", AcquisitionNumber="2")
    found = plan_volumes(series(flat([thin, thick])))
    assert [uids(plan) for plan in found] == [names(thin), names(thick)]


def test_rotations_that_count_as_acquisitions_are_not_ranges() -> None:
    slices = stack("1", range(0, 16, 2), first=1, AcquisitionNumber=lambda k: str(k // 4 + 1))
    slices.append(header("1.2.9", (0, 0, 14), InstanceNumber="9", AcquisitionNumber="3"))
    with pytest.raises(DuplicatePositionError):
        plan_volumes(series(slices))


# Enhanced multi-frame
# ----------------------------------------------------------------------------------------------------


def frame_numbers(record: SeriesRecord, **options: Any) -> list[list[int]]:
    return [[number for _, number in plan.frames] for plan in plan_volumes(record, **options)]


@pytest.mark.parametrize(
    ("content", "distinction"),
    [
        (lambda t, k: {"TemporalPositionIndex": t + 1}, ("TemporalPositionIndex", "2")),
        (lambda t, k: {"DimensionIndexValues": [1, k + 1, t + 1]}, ("DimensionIndexValues", "3:2")),
        (lambda t, k: {"FrameAcquisitionNumber": t + 1}, ("FrameAcquisitionNumber", "2")),
    ],
)
def test_time_points_in_one_multi_frame_instance(content: Any, distinction: tuple[str, str]) -> None:
    frames = [(2.0 * k, content(t, k)) for k in range(4) for t in range(3)]
    record = series([enhanced("1.2.1", frames)])
    assert frame_numbers(record) == [[1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9, 12]]
    assert plan_volumes(record)[1].distinction == (distinction,)


def test_b_values_in_functional_groups() -> None:
    frames = [(2.0 * k, {}) for _ in range(2) for k in range(3)]
    one = enhanced("1.2.1", frames)
    for n, group in enumerate(one["DICOM"]["PerFrameFunctionalGroupsSequence"]):
        group["MRDiffusionSequence"] = [{"DiffusionBValue": 1000.0 * (n // 3)}]
    found = plan_volumes(series([one]))
    assert [plan.distinction for plan in found] == [
        (("DiffusionBValue", "0.0"),),
        (("DiffusionBValue", "1000.0"),),
    ]


def test_b_values_that_all_frames_of_an_instance_share() -> None:
    instances = [enhanced(f"1.2.{n}", [(2.0 * k, {}) for k in range(3)]) for n in (1, 2)]
    for one, value in zip(instances, (800.0, 0.0), strict=True):
        shared = one["DICOM"]["SharedFunctionalGroupsSequence"][0]
        shared["MRDiffusionSequence"] = [{"DiffusionBValue": value}]
    found = plan_volumes(series(instances))
    assert [plan.distinction for plan in found] == [
        (("DiffusionBValue", "0.0"),),
        (("DiffusionBValue", "800.0"),),
    ]
    assert uids(found[0]) == ["1.2.2"] * 3


def test_values_of_a_frame_go_before_those_of_its_instance() -> None:
    one = enhanced("1.2.1", [(2.0 * k, {}) for k in range(3) for _ in range(2)], DiffusionBValue=5.0)
    for n, group in enumerate(one["DICOM"]["PerFrameFunctionalGroupsSequence"]):
        group["MRDiffusionSequence"] = [{"DiffusionBValue": 1000.0 * (n % 2)}]
    assert frame_numbers(series([one])) == [[1, 3, 5], [2, 4, 6]]


def test_a_volume_an_instance() -> None:
    places = [(2.0 * k, {}) for k in range(4)]
    found = plan_volumes(series([enhanced("1.2.2", places), enhanced("1.2.1", places[::-1])]))
    assert [uids(plan) for plan in found] == [["1.2.1"] * 4, ["1.2.2"] * 4]
    assert [number for _, number in found[0].frames] == [4, 3, 2, 1]
    assert found[0].distinction == (("SOPInstanceUID", "1.2.1"),)


def test_frames_at_one_place_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(DuplicatePositionError):
        plan_volumes(series([enhanced("1.2.1", [(2.0 * k, {}) for _ in range(2) for k in range(4)])]))


def test_stacks_that_the_header_names_are_volumes() -> None:
    frames = [(2.0 * k, {"StackID": "1"}) for k in range(4)]
    frames += [(31.0 + 3.0 * k, {"StackID": "2"}) for k in range(3)]
    found = plan_volumes(series([enhanced("1.2.1", frames)]))
    assert [plan.stack.geometry.shape[0] for plan in found] == [4, 3]
    assert [plan.distinction for plan in found] == [(("StackID", "1"),), (("StackID", "2"),)]
    for frame in (0, slice(None)):  # one frame is of no stack, or none of any
        for _, content in frames[frame] if isinstance(frame, slice) else [frames[frame]]:
            content.pop("StackID", None)
        with pytest.raises(GeometryError):
            plan_volumes(series([enhanced("1.2.1", frames)]))


def test_named_stacks_may_overlap() -> None:
    frames = [(2.0 * k, {"StackID": "1"}) for k in range(4)]
    frames += [(6.0 + 3.0 * k, {"StackID": "2"}) for k in range(3)]
    found = plan_volumes(series([enhanced("1.2.1", frames)]))
    assert [plan.stack.geometry.spacing[2] for plan in found] == [2, 3]
    assert [plan.stack.geometry.origin[2] for plan in found] == [0, 6]


def test_frames_without_a_position_each_are_refused() -> None:
    with pytest.raises(MissingGeometryError, match="no position each"):
        plan_volumes(series([header("1.2.1", (0, 0, 0), frames=3)]))


@pytest.mark.parametrize("frames", [2, 4])
def test_frames_that_the_datastore_lacks_or_has_too_many(frames: int) -> None:
    one = enhanced("1.2.1", [(2.0 * k, {}) for k in range(3)])
    one["ImageFrames"] = [{"ID": f"f{k}"} for k in range(frames)]
    with pytest.raises(MetadataError, match=f"announces 3 frames, the datastore holds {frames}"):
        plan_volumes(series([one]))
