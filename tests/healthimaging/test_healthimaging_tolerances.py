"""How far slices may be off a regular grid; and grids at lower resolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_series import (
    header,
    rotation,
    series,
    stack,
)

from healthimaging import Geometry
from healthimaging.errors import (
    DuplicatePositionError,
    GantryTiltError,
    IrregularSpacingError,
    MissingSliceError,
)
from healthimaging.volumes.planning import plan_volumes

angles = st.floats(-3.1, 3.1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 12),
    st.lists(st.floats(-1, 1), min_size=12, max_size=12),
    st.floats(0.1, 4),
    st.floats(0.005, 0.2),
)
def test_jitter_is_accepted_exactly_up_to_the_tolerance(
    count: int, jitter: list[float], amount: float, tolerance: float
) -> None:
    spacing = 3.0
    heights = [spacing * (k + amount * tolerance * jitter[k]) for k in range(count)]
    positions = np.array(heights)
    even = (max(heights) - min(heights)) / (count - 1)
    off = np.abs(np.sort(positions) - min(heights) - even * np.arange(count)).max() / even
    slices = series(stack("1", heights))
    if off < tolerance * 0.999:
        (plan,) = plan_volumes(slices, spacing_tolerance=tolerance)
        assert plan.stack.geometry.spacing[2] == pytest.approx(even, rel=1e-6)
    elif off > tolerance * 1.001:
        with pytest.raises((IrregularSpacingError, MissingSliceError, DuplicatePositionError)):
            plan_volumes(slices, spacing_tolerance=tolerance)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 30),
    st.floats(0, 0.05),
    st.floats(0, 6.2),
    st.floats(0.5, 2),
    st.floats(0.5, 2),
    st.tuples(angles, angles, angles),
)
def test_tilt_is_accepted_exactly_up_to_a_quarter_of_a_pixel(
    count: int, shift: float, towards: float, between_rows: float, between_columns: float, turn: Any
) -> None:
    axes = rotation(*turn)
    step = axes @ (shift * np.cos(towards), shift * np.sin(towards), 3)
    slices = series(
        header(
            f"1.2.{k}",
            (k * step).tolist(),
            orientation=axes[:, :2].T.reshape(-1).tolist(),
            spacing=(between_rows, between_columns),
        )
        for k in range(count)
    )
    pixels = (count - 1) * shift / min(between_rows, between_columns)
    if pixels < 0.2499:
        (plan,) = plan_volumes(slices)
        assert plan.stack.geometry.spacing[2] == pytest.approx(3)
    elif pixels > 0.2501:
        with pytest.raises(GantryTiltError):
            plan_volumes(slices)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 6), st.integers(1, 600), st.integers(1, 600), st.floats(0.1, 3), st.floats(0.1, 3))
def test_level_keeps_every_2_to_the_nth_pixel_in_its_place(
    level: int, rows: int, columns: int, between_rows: float, between_columns: float
) -> None:
    grid = Geometry.from_dicom(
        position=(3, 4, 5),
        orientation=(0, 0.6, 0.8, 1, 0, 0),
        pixel_spacing=(between_rows, between_columns),
        slice_spacing=2,
        shape=(5, rows, columns),
        frame_of_reference_uid="1.9",
    )
    lower = grid.at_level(level)
    assert lower.shape == (5, *np.zeros((rows, columns), bool)[:: 2**level, :: 2**level].shape)
    last = (lower.shape[2] - 1, lower.shape[1] - 1, 4)
    assert lower.to_patient(last) == pytest.approx(
        grid.to_patient((last[0] * 2**level, last[1] * 2**level, 4)), abs=1e-9
    )
    assert lower.spacing[2] == grid.spacing[2]
    assert lower.frame_of_reference_uid == "1.9"


def test_levels_count_from_zero() -> None:
    with pytest.raises(ValueError, match="from 0"):
        Geometry(np.eye(4), (1, 1, 1)).at_level(-1)
