"""The inversion axis by axis gives what MONAI's own gives, and is used where a bundle changes the spacing."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    Compose,
    CropForegroundd,
    EnsureTyped,
    Invertd,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)

from runtime.bundles import separable_inversion
from runtime.bundles.bundle import load_bundle
from runtime.bundles.separable_inversion import SeparableResample, invert_axis_by_axis

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDING = 2.0**-23


def _volume(affine: npt.NDArray[np.float64]) -> MetaTensor:
    generator = torch.Generator().manual_seed(7)
    return MetaTensor(
        torch.rand((1, 41, 37, 23), generator=generator) * 1000, affine=torch.from_numpy(affine)
    )


def _affine(*, spacing: tuple[float, float, float], turned: float = 0.0) -> npt.NDArray[np.float64]:
    """RAS; `turned` about two axes, in radians."""
    cos, sin = np.cos(turned), np.sin(turned)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 12.25, -300.0)
    return affine


def _preprocessing(*, cropped: bool = False, **options: Any) -> Compose:
    crop = CropForegroundd(keys="image", source_key="image", select_fn=lambda x: x > 300, margin=1)
    return Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=(2.0, 3.0, 1.7), mode="bilinear", **options),
            *([crop] if cropped else []),
            ScaleIntensityRanged(keys="image", a_min=0, a_max=1000, b_min=0, b_max=1, clip=True),
        ]
    )


def _inverted(
    affine: npt.NDArray[np.float64], *, fast: bool, nearest: bool = False, **options: Any
) -> MetaTensor:
    """Three channels of "logits" on the preprocessed grid, as probabilities on the volume's own."""
    preprocessing = _preprocessing(**options)
    if fast:
        invert_axis_by_axis(preprocessing)
    item = preprocessing({"image": _volume(affine)})
    item["pred"] = MetaTensor(torch.cat([item["image"], 1 - item["image"], 0.5 * item["image"]]) * 4)
    item = Compose(
        [
            EnsureTyped(keys="pred"),
            Activationsd(keys="pred", softmax=True),
            Invertd(
                keys="pred",
                transform=preprocessing,
                orig_keys="image",
                nearest_interp=nearest,
                to_tensor=True,
            ),
        ]
    )(item)
    inverted: MetaTensor = item["pred"]
    return inverted


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each volume that was resampled axis by axis."""
    calls: list[int] = []
    resampled = separable_inversion._resampled

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return resampled(*arguments)

    monkeypatch.setattr(separable_inversion, "_resampled", counted)
    return calls


@pytest.mark.parametrize(
    ("spacing", "turned", "align"),
    [
        *product([(0.7, 0.8, 5.0), (-0.7, -0.8, 5.0)], [0.0, 0.3], [False, True]),
        ((2.0, 3.0, 5.0), 0.0, False),
        ((6.0, 7.0, 8.0), 0.0, False),
    ],
)
def test_the_same_as_monai(
    spacing: tuple[float, float, float], turned: float, align: bool, taken: list[int]
) -> None:
    affine = _affine(spacing=spacing, turned=turned)
    wanted = _inverted(affine, fast=False, align_corners=align)
    got = _inverted(affine, fast=True, align_corners=align)
    assert taken
    assert got.shape == wanted.shape == (3, 41, 37, 23)
    assert got.dtype == wanted.dtype == torch.float32
    torch.testing.assert_close(got.affine, wanted.affine, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.affine, torch.from_numpy(affine), rtol=0, atol=1e-9)
    assert got.applied_operations == wanted.applied_operations == []
    assert (got.as_tensor() - wanted.as_tensor()).abs().max() <= ROUNDING
    assert torch.equal(got.as_tensor().argmax(dim=0), wanted.as_tensor().argmax(dim=0))


def test_uncertain_stays_uncertain(taken: list[int]) -> None:
    """Where neighbours agree the value is theirs to the last bit, so that a threshold decides as before."""
    preprocessing = Compose([Spacingd(keys="image", pixdim=(2.0, 3.0, 1.7), mode="bilinear")])
    invert_axis_by_axis(preprocessing)
    item = preprocessing({"image": _volume(_affine(spacing=(0.7, 0.8, 5.0)))})
    item["pred"] = MetaTensor(torch.full_like(item["image"].as_tensor(), 0.5))
    (inverted,) = Invertd(keys="pred", transform=preprocessing, orig_keys="image", nearest_interp=False)(
        item
    )["pred"]
    assert taken
    assert torch.equal(inverted.as_tensor(), torch.full((41, 37, 23), 0.5))


@pytest.mark.parametrize(
    "case",
    ["nearest", "sheared", "reflection", "zeros", "cropped", "single precision", "one slice on the way"],
)
def test_what_it_cannot_do_is_left_to_monai(case: str, taken: list[int]) -> None:
    affine = _affine(spacing=(0.7, 0.8, 5.0))
    options: dict[str, Any] = {}
    nearest = case == "nearest"
    if case == "sheared":
        affine[0, 2] = 0.4
    if case in ("reflection", "zeros"):
        options["padding_mode"] = case
    if case == "cropped":
        options["cropped"] = True
    if case == "single precision":
        options["dtype"] = np.float32
    if case == "one slice on the way":
        affine[:3, :3] = np.diag([0.7, 0.8, 0.01])
    wanted = _inverted(affine, fast=False, nearest=nearest, **options)
    got = _inverted(affine, fast=True, nearest=nearest, **options)
    assert not taken
    assert torch.equal(got.as_tensor(), wanted.as_tensor())


def test_a_loaded_bundle_inverts_axis_by_axis(tmp_path: Path, taken: list[int]) -> None:
    """The demo's own bundle, with the weights that its network begins with."""
    root = _demo_bundle(tmp_path)
    bundle = load_bundle(root)
    (spacing,) = [one for one in bundle.preprocessing.flatten().transforms if isinstance(one, Spacingd)]
    assert isinstance(spacing.spacing_transform.sp_resample, SeparableResample)
    volume = _volume(_affine(spacing=(2.0, 2.0, 5.0)))
    assert bundle.predict(volume).shape == (1, 41, 37, 23)
    assert taken


def _demo_bundle(folder: Path) -> Path:
    root = folder / "bundle"
    shutil.copytree(REPOSITORY / "training" / "bundles" / "ct_segmentation", root)
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    (root / "models").mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), root / "models" / "model.pt")
    return root
