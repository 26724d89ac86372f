"""Images are read as coarsely as the network's grid allows, and never more."""

from __future__ import annotations

from typing import Any

import pytest
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    Orientationd,
    RandFlipd,
    Resized,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
)
from training_items import CountingReader, made_case

from healthimaging import Case
from training.data.resolution import COARSEST, CaseLevels, coarse_level

PLAIN = (
    LoadImaged("image"),
    EnsureChannelFirstd("image"),
    EnsureTyped("image"),
    Orientationd("image", axcodes="RAS", labels=None),
    ScaleIntensityRanged("image", a_min=0, a_max=1),
)


def spaced(pixdim: Any, *before: Any) -> Compose:
    return Compose([*PLAIN, *before, Spacingd("image", pixdim=pixdim), SpatialPadd("image", spatial_size=8)])


@pytest.mark.parametrize(
    ("target", "pixel", "level"),
    [
        (4.0, 0.57, 1),
        (4.0, 0.5, 2),
        (4.0, 0.51, 1),
        (4.0, 2.0, 0),
        (4.0, 8.0, 0),
        (1.5, 0.7, 0),
        (6.0, 0.78, 1),
        (100.0, 0.5, COARSEST),
    ],
)
def test_pixels_are_at_most_half_of_the_target(target: float, pixel: float, level: int) -> None:
    found = coarse_level(spaced((target,) * 3), (pixel, pixel, 5.0))
    assert found == level
    assert found == 0 or pixel * 2**found <= target / 2


def test_the_larger_pixel_and_the_finest_target_count() -> None:
    assert coarse_level(spaced((4.0, 4.0, 4.0)), (0.5, 1.0, 5.0)) == 1
    # Axes may have been turned: the slices of a sagittal series lie along the first axis.
    assert coarse_level(spaced((1.5, 1.5, 8.0)), (0.7, 0.7, 5.0)) == 0


@pytest.mark.parametrize(
    "chain",
    [
        Compose(PLAIN),
        Compose([*PLAIN, Resized("image", spatial_size=(8, 8, 8))]),
        spaced((4.0, 4.0, -1.0)),
        spaced((4.0,) * 3, SpatialPadd("image", spatial_size=64)),
        spaced((4.0,) * 3, CropForegroundd("image", source_key="image")),
        spaced((4.0,) * 3, ScaleIntensityRangePercentilesd("image", lower=1, upper=99, b_min=0, b_max=1)),
        spaced((4.0,) * 3, RandFlipd("image")),
        # Values beyond the range would be averaged before they are cut off, and not after.
        spaced((4.0,) * 3, ScaleIntensityRanged("image", a_min=0, a_max=1, clip=True)),
        # Within these limits the grid stays what it was.
        Compose([Spacingd("image", pixdim=(4.0,) * 3, min_pixdim=(0.4,) * 3, max_pixdim=(6.0,) * 3)]),
        Compose([Spacingd("label", pixdim=(4.0,) * 3)]),
    ],
)
def test_the_resolution_stays_where_the_grid_may_matter(chain: Compose) -> None:
    assert coarse_level(chain, (0.5, 0.5, 5.0)) == 0


class Spaced(CountingReader):
    def spacing(self, case: Case) -> tuple[float, float, float]:
        self.reads.append(case.image.image_set_id)
        return (0.5, 0.5, 1.0) if case.image.image_set_id == "image-1" else (2.0, 2.0, 1.0)


def test_each_case_has_a_level_of_its_own() -> None:
    levels = CaseLevels(Spaced(), spaced((4.0,) * 3))
    assert [levels(made_case(1)), levels(made_case(2))] == [2, 0]


def test_a_header_is_looked_at_only_where_it_decides_something() -> None:
    reader = Spaced()
    assert CaseLevels(reader, Compose(PLAIN))(made_case(1)) == 0
    assert reader.reads == []
