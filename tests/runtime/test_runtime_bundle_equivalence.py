"""The same volume through this runtime and through MONAI's own run of the same configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.data import MetaTensor, NibabelReader, PydicomReader
from synthetic_bundle import changed, inference_config, write_bundle, write_checkpoint_bundle
from synthetic_patient import Patient, make_patient

from runtime.bundles.bundle import load_bundle, warm_up
from runtime.bundles.channel_masks import channel_masks

UNET = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "channels": [4, 8], "strides": [2]}
ORGANS = {"0": "background", "1": "liver", "2": "tumor"}


def _patient() -> Patient:
    """A sagittal series of an odd number of voxels, on a grid that a NIfTI's single precision holds."""
    patient = make_patient("P1", seed=3, shape=(17, 40, 36))
    for dataset in patient.datasets:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [-4.0 * (dataset.InstanceNumber - 1), -24.0, 36.0]
    return patient


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> MetaTensor:
    """The series as MONAI's DICOM reader gives it."""
    folder = tmp_path_factory.mktemp("series")
    for dataset in _patient().datasets:
        dataset.save_as(folder / f"{dataset.InstanceNumber}.dcm", enforce_file_format=True)
    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(str(folder)))
    return MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=meta["affine"])


@pytest.fixture(scope="module")
def nifti(image: MetaTensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series as a file, its affine written by hand: columns run to P, rows to F, slices to R."""
    file = tmp_path_factory.mktemp("nifti") / "volume.nii.gz"
    affine = np.array([[0, 0, 4.0, 0], [-1.25, 0, 0, 24.0], [0, -1.5, 0, 36.0], [0, 0, 0, 1]])
    array = np.ascontiguousarray(_patient().array.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(array, affine), file)
    return file


def test_readers_of_both_formats_see_one_volume(image: MetaTensor, nifti: Path) -> None:
    reader = NibabelReader()
    array, meta = reader.get_data(reader.read(str(nifti)))
    assert np.array_equal(array, image[0].numpy())
    assert np.array_equal(np.asarray(meta["affine"]), image.affine.numpy())


def _softmax_inverted(root: Path) -> Path:
    return write_bundle(root, seed=1)


def _labels_then_nearest(root: Path) -> Path:
    """YAML; labels before the inversion; a crop after resampling; a checkpoint of another name."""
    config = changed("postprocessing#transforms", _steps("argmax", "invert nearest"))
    crop = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True}
    config["preprocessing"]["transforms"].insert(4, crop)
    return write_checkpoint_bundle(
        root,
        channels=ORGANS,
        network=UNET | {"out_channels": 3},
        config=config,
        weights="net_FT.pt",
        suffix="yaml",
        output={"label_def": ORGANS, "channel_def": None},
    )


def _softmax_after_a_crop(root: Path) -> Path:
    """Two classes whose inversion interpolates into what a crop has taken away: nothing sums to one there."""
    config = inference_config()
    crop = {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [24, 22, 10]}
    config["preprocessing"]["transforms"].append(crop)
    return write_bundle(root, config=config, seed=2)


def _overlapping_findings(root: Path) -> Path:
    """Sigmoid and threshold, no background: masks may overlap."""
    config = changed("postprocessing#transforms", _steps("sigmoid", "invert linear", "threshold"))
    names = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
    return write_checkpoint_bundle(root, channels=names, network=UNET | {"out_channels": 3}, config=config)


def _interpolated_labels(root: Path) -> Path:
    """Labels that a linear inversion interpolates, and a chain that is made by an expression."""
    config = changed("postprocessing#transforms", _steps("argmax", "largest", "invert linear"))
    config["steps"] = config["preprocessing"]["transforms"]
    config["preprocessing"] = {"_target_": "Compose", "transforms": "$@steps"}
    return write_checkpoint_bundle(root, channels=ORGANS, network=UNET | {"out_channels": 3}, config=config)


def _slices_of_own_network(root: Path) -> Path:
    """A two-dimensional network of the bundle's own scripts, slice by slice; weights in YAML-named keys."""
    (root / "scripts").mkdir()
    (root / "scripts" / "__init__.py").write_text("import scripts.blocks\n")
    (root / "scripts" / "blocks.py").write_text(
        "import torch\n\n\ndef block(channels):\n    return torch.nn.Conv2d(1, channels, 3, padding=1)\n"
    )
    (root / "scripts" / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        from scripts.blocks import block\n"
        "        self.conv = block(classes)\n\n"
        "    def forward(self, x):\n"
        "        from .blocks import block  # as late as an import can be\n"
        "        assert callable(block)\n"
        "        return self.conv(x)\n"
    )
    sys.path.insert(0, str(root))
    config = inference_config(inferer={"_target_": "SliceInferer", "roi_size": [32, 32], "spatial_dim": 2})
    network = {"_target_": "scripts.net.Net", "classes": 2}
    return write_checkpoint_bundle(
        root,
        channels={"0": "background", "1": "lung"},
        network=network,
        config=config,
        image={"spatial_shape": [32, 32]},
    )


def _steps(*names: str) -> list[dict[str, Any]]:
    inversion = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    known: dict[str, dict[str, Any]] = {
        "sigmoid": {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        "threshold": {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        "argmax": {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        "largest": {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]},
        "invert nearest": inversion | {"nearest_interp": True},
        "invert linear": inversion | {"nearest_interp": False},
    }
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
    return [*(known[name] for name in names), save]


@pytest.fixture
def forget_scripts() -> Iterator[None]:
    """MONAI's own run finds a bundle's modules by the path, and leaves them behind."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]


@pytest.mark.usefixtures("forget_scripts")
@pytest.mark.parametrize(
    "write",
    [
        _softmax_inverted,
        _labels_then_nearest,
        _softmax_after_a_crop,
        _overlapping_findings,
        _interpolated_labels,
        _slices_of_own_network,
    ],
)
def test_same_mask_as_monai_bundle_run(
    write: Callable[[Path], Path], image: MetaTensor, nifti: Path, tmp_path: Path
) -> None:
    root = tmp_path / "bundle"
    root.mkdir()
    write(root)
    (config,) = (root / "configs").glob("inference.*")
    run(
        run_id="run",
        config_file=str(config),
        meta_file=str(root / "configs" / "metadata.json"),
        bundle_root=str(root),
        **{"dataset#data": [{"image": str(nifti)}], "output_dir": str(tmp_path / "saved")},
    )
    (saved,) = (tmp_path / "saved").rglob("*.nii.gz")
    wanted = torch.from_numpy(nibabel.load(saved).get_fdata(dtype=np.float32))
    wanted = wanted.permute(3, 0, 1, 2) if wanted.ndim == 4 else wanted[None]

    bundle = load_bundle(root)
    warm_up(bundle)
    got = bundle.predict(image.clone())
    assert torch.equal(got.as_subclass(torch.Tensor).float(), wanted)
    masks = channel_masks(got, bundle.files.channels)
    assert all(0 < mask.mean() < 1 for mask in masks)
    assert [name for name in sys.modules if name == "scripts" and write is not _slices_of_own_network] == []
