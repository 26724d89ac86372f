"""The cheap inversion gives the bundle's own mask, voxel by voxel, wherever it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    CenterSpatialCropd,
    Compose,
    Flipd,
    Invertd,
    Orientationd,
    Spacingd,
    SpatialPadd,
)

from runtime.bundles.foreground_inversion import (
    ForegroundInversion,
    interpolates_all_of,
    invert_foreground_only,
)
from runtime.bundles.separable_inversion import invert_axis_by_axis

AFFINE = torch.tensor([[0, 0, 4.0, 0], [-1.25, 0, 0, 24.0], [0, -1.5, 0, 36.0], [0, 0, 0, 1]]).double()


def _chain(*later: Any, padding: str = "border", crop_first: bool = False) -> Compose:
    first = [CenterSpatialCropd("image", roi_size=(9, 8, 5))] if crop_first else []
    spacing = Spacingd("image", pixdim=(2.0, 2.0, 3.0), mode="bilinear", padding_mode=padding)
    return Compose([*first, Orientationd("image", axcodes="RAS"), spacing, *later])


def _post(preprocessing: Compose) -> Compose:
    return Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False),
            AsDiscreted("pred", argmax=True),
        ]
    )


def _masks(preprocessing: Compose, seed: int, *, separable: bool, kind: str) -> tuple[Any, Any, MetaTensor]:
    """The mask of the bundle's own steps and of the joined step, for logits of a kind."""
    if separable:
        invert_axis_by_axis(preprocessing)
    generator = torch.Generator().manual_seed(seed)
    image = preprocessing({"image": MetaTensor(torch.rand((1, 13, 12, 7)), affine=AFFINE)})["image"]
    logits = torch.randn((2, *image.shape[1:]), generator=generator)
    if kind == "ties":
        # Both channels alike in a part of the volume, and almost alike in another.
        logits[:, : logits.shape[1] // 2] = 0
        logits[1, -1] = logits[0, -1] + 1e-7
    elif kind == "saturated":
        logits = 200 * logits
    data = {"image": image, "pred": MetaTensor(logits, meta=image.meta)}
    original = _post(preprocessing)
    joined = invert_foreground_only(original, key="pred")
    assert isinstance(joined.transforms[0], ForegroundInversion)
    return original(dict(data))["pred"], joined(dict(data))["pred"], image


CHAINS = {
    "resampled": lambda: _chain(),
    "mirrored": lambda: _chain(Flipd("image", spatial_axis=0)),
    "cropped before": lambda: _chain(crop_first=True),
    "cropped after": lambda: _chain(CenterSpatialCropd("image", roi_size=(5, 5, 5))),
    "padded after": lambda: _chain(SpatialPadd("image", spatial_size=(40, 16, 16))),
    "zeros around": lambda: _chain(padding="zeros"),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    chain=st.sampled_from(sorted(CHAINS)),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["random", "ties", "saturated"]),
)
def test_the_mask_is_the_bundles_own(chain: str, seed: int, kind: str) -> None:
    wanted, got, _ = _masks(CHAINS[chain](), seed, separable=False, kind=kind)
    assert wanted.shape == got.shape == (1, 13, 12, 7)
    assert torch.equal(wanted, got)
    assert wanted.dtype == got.dtype
    assert torch.equal(wanted.affine, got.affine)


@pytest.mark.parametrize("kind", ["random", "saturated"])
@pytest.mark.parametrize("chain", sorted(CHAINS))
def test_axis_by_axis_the_mask_is_monais_too(chain: str, kind: str) -> None:
    for seed in range(5):
        wanted, _, _ = _masks(CHAINS[chain](), seed, separable=False, kind=kind)
        _, got, _ = _masks(CHAINS[chain](), seed, separable=True, kind=kind)
        assert torch.equal(wanted, got)


@pytest.mark.parametrize(
    ("chain", "cheap"),
    [
        ("resampled", True),
        ("mirrored", True),
        ("cropped before", True),
        ("cropped after", False),
        ("padded after", False),
        ("zeros around", False),
    ],
)
def test_only_where_channels_sum_to_one(chain: str, cheap: bool) -> None:
    _, _, image = _masks(CHAINS[chain](), 0, separable=False, kind="random")
    assert interpolates_all_of(image) is cheap
    assert not interpolates_all_of(torch.zeros(3))


def test_foreground_alone_is_inverted_where_nothing_is_on_the_threshold() -> None:
    preprocessing = _chain()
    channels: list[int] = []

    class Watched(Invertd):  # type: ignore[misc]  # MONAI is not typed
        def __call__(self, data: Any) -> Any:
            channels.append(int(data["pred"].shape[0]))
            return super().__call__(data)

    image = preprocessing({"image": MetaTensor(torch.rand((1, 13, 12, 7)), affine=AFFINE)})["image"]
    post = _post(preprocessing)
    post.transforms = (
        post.transforms[0],
        Watched("pred", preprocessing, orig_keys="image", nearest_interp=False),
        post.transforms[2],
    )
    joined = invert_foreground_only(post, key="pred")
    for logits in (5.0, 0.0):
        pred = torch.stack((torch.zeros(image.shape[1:]), torch.full(image.shape[1:], logits)))
        joined({"image": image, "pred": MetaTensor(pred, meta=image.meta)})
    assert channels == [1, 1, 1]
    assert np.isclose(logits, 0)
    half = MetaTensor(torch.zeros((2, *image.shape[1:]), dtype=torch.float16), meta=image.meta)
    joined({"image": image, "pred": half})
    assert channels == [1, 1, 1, 2], "half precision is left to the bundle's own steps"


def test_other_chains_are_left_as_they_are() -> None:
    preprocessing = _chain()
    nearest = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=True),
            AsDiscreted("pred", argmax=True),
        ]
    )
    sigmoid = Compose([Activationsd("pred", sigmoid=True), *_post(preprocessing).transforms[1:]])
    one_hot = Compose([*_post(preprocessing).transforms[:2], AsDiscreted("pred", argmax=True, to_onehot=2)])
    short = Compose([AsDiscreted("pred", argmax=True)])
    for chain in (nearest, sigmoid, one_hot, short):
        assert invert_foreground_only(chain, key="pred") is chain
