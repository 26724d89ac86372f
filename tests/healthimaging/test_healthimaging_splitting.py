"""Which volumes a series holds: nothing lost, nothing mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_series import (
    AXIAL,
    DISTINGUISHING,
    SAGITTAL,
    Header,
    flat,
    grid_headers,
    header,
    names,
    no_image,
    rotation,
    series,
    stack,
    uids,
)

from healthimaging import Geometry
from healthimaging.errors import (
    GantryTiltError,
    MissingGeometryError,
    MissingSliceError,
    VolumeError,
)
from healthimaging.volumes.planning import plan_volumes
from healthimaging.volumes.splitting import clusters

angles = st.floats(-3.1, 3.1)


# What cannot lie in one array
# ----------------------------------------------------------------------------------------------------


def test_one_regular_stack_is_one_volume_without_distinction() -> None:
    slices = stack("1", [0, 2, 4], first=1)
    (plan,) = plan_volumes(series(slices))
    assert uids(plan) == names(slices)
    assert plan.distinction == ()
    assert plan.samples_per_pixel == 1
    assert plan.unplaced_instance_uids == ()


@pytest.mark.parametrize(
    ("changed", "distinction"),
    [
        ({"Rows": 12}, ("Rows", "12")),
        ({"Columns": 12}, ("Columns", "12")),
        ({"spacing": (1, 1.01)}, ("PixelSpacing", "1\\1.01")),
        ({"orientation": SAGITTAL}, ("ImageOrientationPatient", "0\\1\\0\\0\\0\\-1")),
        ({"orientation": (1, 0, 0, 0, -1, 0)}, ("ImageOrientationPatient", "1\\0\\0\\0\\-1\\0")),
        ({"FrameOfReferenceUID": "1.9"}, ("FrameOfReferenceUID", "1.9")),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, ("ImageType", "LOCALIZER")),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8},
            ("SamplesPerPixel", "3"),
        ),
    ],
)
def test_slice_that_cannot_lie_in_the_stack_is_a_volume_of_its_own(
    changed: dict[str, Any], distinction: tuple[str, str]
) -> None:
    slices = stack("1", [0, 2, 4], first=2)
    other = header("1.2.9", (0, 0, 2), InstanceNumber="1", **changed)
    single, whole = plan_volumes(series([slices[0], other, *slices[1:]]))
    assert uids(whole) == names(slices)
    assert uids(single) == ["1.2.9"]
    assert single.distinction == (distinction,)
    assert [keyword for keyword, _ in whole.distinction] == [distinction[0]]
    assert single.stack.geometry.spacing[2] == 2


def test_three_planes_of_a_localizer() -> None:
    coronal = (1.0, 0, 0, 0, 0, -1)
    slices = [
        header(
            f"1.2.{p}.{k}",
            np.eye(3)[axis] * 10 * k,
            orientation=orientation,
            InstanceNumber=str(1 + 3 * k + p),
        )
        for k in range(3)
        for p, (orientation, axis) in enumerate(((AXIAL, 2), (coronal, 1), (SAGITTAL, 0)))
    ]
    found = plan_volumes(series(slices))
    assert [len(uids(plan)) for plan in found] == [3, 3, 3]
    assert [plan.stack.geometry.spacing[2] for plan in found] == [10, 10, 10]
    assert [plan.distinction[0][0] for plan in found] == ["ImageOrientationPatient"] * 3


def test_lone_slice_needs_a_thickness() -> None:
    alone = header("1.2.9", (0, 0, 0), orientation=SAGITTAL, SliceThickness=None)
    for resample in (False, True):
        with pytest.raises(MissingGeometryError, match="no extent") as caught:
            plan_volumes(series([*stack("1", [0, 2, 4]), alone]), resample=resample)
        assert caught.value.sop_instance_uid == "1.2.9"


def test_orientations_that_jitter_in_their_last_decimal_are_one_plane() -> None:
    slices = [
        header(f"1.2.{k}", (0, 0, 2 * k), orientation=(1, 0, 4e-4 * (k % 2), 0, 1, 0)) for k in range(6)
    ]
    (plan,) = plan_volumes(series(slices))
    (again,) = plan_volumes(series(reversed(slices)))
    assert np.array_equal(plan.stack.geometry.affine, again.stack.geometry.affine)
    assert plan.stack.geometry.direction[2, 0] == pytest.approx(2e-4, rel=1e-3)


def test_planes_and_spacings_that_drift_are_sorted_alike_in_any_order() -> None:
    points = np.array([[0.0], [0.9], [1.8], [5.0]])
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]):
        labels = clusters(points[order], 1.0)
        assert [len(set(labels[[order.index(k) for k in (0, 1, 2)]])), len(set(labels))] == [1, 2]


def test_tolerance_of_pixel_spacing_is_a_fraction() -> None:
    slices = [header(f"1.2.{k}", (0, 0, 2 * k), spacing=(8 + 5e-4 * (k % 2), 8)) for k in range(4)]
    assert len(plan_volumes(series(slices))) == 1
    slices = [header(f"1.2.{k}", (0, 0, 2 * k), spacing=(0.3 + 5e-5 * (k % 2), 0.3)) for k in range(4)]
    assert len(plan_volumes(series(slices))) == 2


def test_stacks_beside_each_other_are_two_volumes() -> None:
    left = [header(f"1.2.1.{k}", (-90, 0, 2 * k), InstanceNumber=str(2 * k + 1)) for k in range(5)]
    right = [header(f"1.2.2.{k}", (90, 0, 2 * k), InstanceNumber=str(2 * k + 2)) for k in range(5)]
    found = plan_volumes(series(flat([left, right])))
    assert [uids(plan) for plan in found] == [names(left), names(right)]
    assert found[0].distinction == (("ImagePositionPatient", "-90\\0\\0"),)


def test_tilted_stack_is_not_taken_for_stacks_beside_each_other() -> None:
    tilted = [header(f"1.2.{k}", (0, 1.0 * k, 2 * k)) for k in range(5)]
    with pytest.raises(GantryTiltError):
        plan_volumes(series(tilted))


def test_slices_of_which_only_some_name_a_frame_of_reference_are_refused() -> None:
    slices = stack("1", [0, 2, 4])
    slices[1]["DICOM"]["FrameOfReferenceUID"] = None
    with pytest.raises(MissingGeometryError, match="frame of reference") as caught:
        plan_volumes(series(slices))
    assert caught.value.sop_instance_uid == "1.2.1.1"


def test_a_gap_in_one_volume_refuses_the_series_and_names_it() -> None:
    slices = stack("1", [0, 2, 4, 8, 10])
    with pytest.raises(MissingSliceError) as caught:
        plan_volumes(series([*slices, header("1.2.9", (0, 0, 0), orientation=SAGITTAL)]))
    assert caught.value.series_instance_uid == series(slices).series_instance_uid
    assert caught.value.sop_instance_uid == "1.2.1.2"


# Instances that are no slices
# ----------------------------------------------------------------------------------------------------


def capture(uid: str, **attributes: Any) -> Header:
    bare = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    built = header(uid, (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", **attributes)
    built["DICOM"].update(bare)
    return built


def test_instances_that_are_no_slices_are_named_and_do_no_harm() -> None:
    slices = stack("1", [0, 2, 4])
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    others = [no_image("1.2.7"), capture("1.2.8", **colours)]
    (plan,) = plan_volumes(series([others[0], *slices, others[1]]))
    assert uids(plan) == names(slices)
    assert plan.unplaced_instance_uids == ("1.2.7", "1.2.8")


def test_image_without_its_frames_is_never_left_out() -> None:
    slices = stack("1", [0, 2, 4])
    slices[2]["ImageFrames"] = []
    with pytest.raises(VolumeError, match="without frames") as caught:
        plan_volumes(series(slices))
    assert caught.value.sop_instance_uid == "1.2.1.2"


def test_slice_without_position_is_never_left_out() -> None:
    slices = stack("1", [0, 2, 4])
    slices[2]["DICOM"]["ImagePositionPatient"] = None
    with pytest.raises(MissingGeometryError):
        plan_volumes(series(slices))


def test_series_without_slices_is_refused() -> None:
    with pytest.raises(VolumeError, match="no frames"):
        plan_volumes(series([no_image("1.2.7")]))
    with pytest.raises(MissingGeometryError):
        plan_volumes(series([capture("1.2.8")]))


# Colour
# ----------------------------------------------------------------------------------------------------

RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}


def test_colour_is_a_volume_without_rescale() -> None:
    (plan,) = plan_volumes(series(stack("1", [0, 2, 4], **RGB, RescaleSlope=None, RescaleIntercept=None)))
    assert plan.samples_per_pixel == 3
    assert plan.dtype == np.uint8
    assert (plan.slopes, plan.intercepts) == ((1, 1, 1), (0, 0, 0))


def test_colour_that_decoding_turns_into_rgb_is_a_volume() -> None:
    (plan,) = plan_volumes(series(stack("1", [0, 2], **{**RGB, "PhotometricInterpretation": "YBR_RCT"})))
    assert plan.samples_per_pixel == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {**RGB, "PhotometricInterpretation": "YBR_FULL"},
        {**RGB, "PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4},
    ],
)
def test_colours_that_are_not_rgb_are_refused_with_what_to_use(changed: dict[str, Any]) -> None:
    with pytest.raises(VolumeError, match=r"frames\(\)"):
        plan_volumes(series(stack("1", [0, 2], **changed)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ModalityLUTSequence": [{"LUTData": "AA=="}]}, "Modality LUT"),
        ({"DoseGridScaling": "0.001"}, "DoseGridScaling"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaic"),
    ],
)
def test_values_or_places_that_are_not_what_they_seem_are_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(VolumeError, match=message) as caught:
        plan_volumes(series(stack("1", [0, 2], **changed)))
    assert caught.value.sop_instance_uid == "1.2.1.0"


# All of it
# ----------------------------------------------------------------------------------------------------


@st.composite
def mixtures(draw: st.DrawFn) -> list[tuple[Geometry, list[list[Header]]]]:
    """Grids of different planes, each several times, told apart by an attribute or by numbers."""
    found = []
    number = 1
    for g in range(draw(st.integers(1, 3))):
        affine = np.eye(4)
        sides = [draw(st.floats(0.3, 5)) for _ in range(3)]
        affine[:3, :3] = rotation(draw(angles), draw(angles), draw(angles)) * sides
        affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
        # Shapes differ, so that equal planes would still be told apart.
        grid = Geometry(affine, (draw(st.integers(1, 6)), 8 + g, 9), "1.2.3.9")
        keyword, value = draw(st.sampled_from(DISTINGUISHING))
        times = draw(st.integers(1, 4))
        parts = []
        for t in range(times):
            part = grid_headers(grid, f"{g}.{t}", **{keyword: value(t), "SliceThickness": f"{sides[2]:.9f}"})
            if keyword == "SliceThickness":
                part = grid_headers(grid, f"{g}.{t}")
            for one in part:
                one["DICOM"]["InstanceNumber"] = str(number)
                number += 1
            parts.append(part)
        found.append((grid, parts))
    return found


@settings(max_examples=150, deadline=None)
@given(mixtures(), st.integers(0, 2), st.randoms(use_true_random=False))
def test_mixed_and_shuffled_series_come_apart_into_what_they_were_made_of(
    made: list[tuple[Geometry, list[list[Header]]]], level: int, random: Any
) -> None:
    headers = [one for _, parts in made for part in parts for one in part]
    random.shuffle(headers)
    found = plan_volumes(series(headers), level=level)
    wanted = [(grid, names(part)) for grid, parts in made for part in parts]
    assert sorted(uids(plan) for plan in found) == sorted(expected for _, expected in wanted)
    grids = {tuple(expected): grid for grid, expected in wanted}
    for plan in found:
        expected_grid = grids[tuple(uids(plan))].at_level(level)
        assert plan.stack.geometry.largest_shift(expected_grid) < 1e-3
        assert plan.level == level
    assert len({plan.distinction for plan in found}) == len(found)
    again = plan_volumes(series(sorted(headers, key=str)), level=level)
    assert [uids(plan) for plan in again] == [uids(plan) for plan in found]
    assert [plan.distinction for plan in again] == [plan.distinction for plan in found]
