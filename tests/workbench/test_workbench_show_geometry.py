"""The viewer's sides: whatever way a volume was acquired, left stays left. Oracle: highdicom."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from healthimaging.volumes.geometry import Geometry
from workbench.showing.patient_axes import PatientAxes, sides, tilt_degrees
from workbench.showing.reduction import any_in_block, reduced

SHAPE = (4, 5, 6)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Axial, coronal and sagittal, rows, columns and slices in any direction, up to 40 degrees oblique."""
    axes = np.eye(3)[:, list(draw(st.sampled_from(list(permutations(range(3))))))]
    axes = axes * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    turn = Rotation.from_euler("z", draw(st.floats(-40, 40)), degrees=True).as_matrix()
    spacing = draw(st.tuples(*[st.floats(0.3, 5)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(affine, SHAPE)


@settings(deadline=None, max_examples=100)
@given(geometries())
def test_every_voxel_stays_where_it_is_in_the_patient(geometry: Geometry) -> None:
    slices, rows, columns = np.indices(SHAPE)
    positions = geometry.to_patient(np.stack([columns, rows, slices], axis=-1))
    axes = PatientAxes.of(geometry)
    turned = np.stack([axes.turned(positions[..., i]) for i in range(3)], axis=-1)
    z, y, x = np.indices(axes.shape)
    told = np.stack([x, y, z], axis=-1) @ axes.affine[:3, :3].T + axes.affine[:3, 3]
    assert np.allclose(turned, told, atol=1e-6)
    # Towards left, back and head.
    assert (np.diag(axes.affine)[:3] > 0).all()
    # The axis across the acquired slices.
    assert np.isclose(np.linalg.norm(axes.affine[:3, axes.slice_axis]), geometry.spacing[2])


@settings(deadline=None, max_examples=100)
@given(geometries())
def test_letters_are_those_of_highdicom(geometry: Geometry) -> None:
    closest = highdicom.spatial.get_closest_patient_orientation(geometry.affine)
    high = [letters for _, letters in sides(geometry.affine)]
    assert [letters[0] for letters in high] == [one.value for one in closest]
    opposite = str.maketrans("LRAPHF", "RLPAFH")
    assert [low for low, _ in sides(geometry.affine)] == [one.translate(opposite) for one in high]
    turned = sides(PatientAxes.of(geometry).affine)
    assert [letters[0] for _, letters in turned] == ["L", "P", "H"]


def test_oblique_planes_say_so() -> None:
    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn
    assert sides(affine) == (("RA", "LP"), ("AL", "PR"), ("F", "H"))
    assert tilt_degrees(affine) == pytest.approx((30, 30, 0))


def test_a_block_lies_at_the_middle_of_its_voxels() -> None:
    """A ramp of values is the position itself; its mean over a block is that of the block's middle."""
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    z, y, x = np.indices((8, 64, 64), dtype=np.float64)
    ramp = (x * 0.5 + 10) * 1000 + (y * 0.5 - 20) * 10 + (z * 2 + 30)
    small = reduced(ramp, affine, most_bytes=8 * 16 * 16 * ramp.itemsize)
    assert small.factors == (1, 4, 4)
    k, j, i = np.indices(small.array.shape)
    told = np.stack([i, j, k], axis=-1) @ small.affine[:3, :3].T + small.affine[:3, 3]
    assert np.allclose(small.array, told @ [1000, 10, 1])


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_what_is_small_enough_stays_as_it_was_measured(kind: Any) -> None:
    array = np.random.default_rng(3).integers(-1000, 3000, SHAPE).astype(kind)
    small = reduced(array, np.eye(4))
    assert small.factors == (1, 1, 1)
    assert small.array.dtype == kind
    assert np.array_equal(small.array, array)


def test_a_segment_of_one_voxel_does_not_vanish() -> None:
    mask = np.zeros((5, 9, 9), dtype=bool)
    mask[4, 8, 8] = True
    small = any_in_block(mask, (2, 4, 4))
    assert small.shape == (3, 3, 3)
    assert np.argwhere(small).tolist() == [[2, 2, 2]]
