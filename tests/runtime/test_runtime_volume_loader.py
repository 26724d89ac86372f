"""Which volume of a series a model is given: the only one, or none."""

from __future__ import annotations

import numpy as np
import pytest

from healthimaging import Geometry, Volume
from healthimaging.errors import VolumeError
from runtime.operators.volume_loader import only_volume


def volume(*shape: int) -> Volume:
    return Volume(
        array=np.zeros(shape, np.int16),
        geometry=Geometry(np.eye(4), (shape[0], shape[1], shape[2])),
        series_instance_uid="1.2.3",
        instance_uids=("1.2.3.1",) * shape[0],
        frame_numbers=(1,) * shape[0],
        modality="CT",
    )


def test_the_only_volume_is_it() -> None:
    only = volume(2, 3, 4)
    assert only_volume([only]) is only


def test_several_volumes_or_colours_are_refused_with_the_series() -> None:
    for volumes, what in (
        ([volume(2, 3, 4), volume(1, 3, 4)], "2 volumes"),
        ([volume(2, 3, 4, 3)], "colours"),
    ):
        with pytest.raises(VolumeError, match=what) as caught:
            only_volume(volumes)
        assert caught.value.series_instance_uid == "1.2.3"
