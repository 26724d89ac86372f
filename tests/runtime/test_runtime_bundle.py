"""The bundle: what is accepted, what is refused and why, and that it computes what MONAI computes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, PydicomReader
from monai.transforms import Compose
from synthetic_bundle import inference_config, metadata, write_bundle
from synthetic_patient import make_patient

from runtime.bundles.bundle import Bundle, load_bundle, warm_up
from runtime.bundles.channel_masks import channel_masks
from runtime.bundles.files import Channel, read_bundle_files
from runtime.bundles.foreground_inversion import ForegroundArgmaxd, invert_foreground_only
from runtime.errors import BundleError, UnsuitablePredictionError


@pytest.fixture(scope="module")
def bundle(bundle_directory: Path) -> Bundle:
    return load_bundle(bundle_directory)


def _write_series(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    for dataset in make_patient("P1", seed=seed).datasets:
        dataset.save_as(folder / f"{dataset.InstanceNumber}.dcm", enforce_file_format=True)
    return folder


def _read_series(folder: Path) -> MetaTensor:
    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(str(folder)))
    return MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=meta["affine"])


def _run_monai(bundle_root: Path, series: Path, output: Path) -> np.ndarray[Any, Any]:
    """Run the same configuration by MONAI's own command, reading DICOM files and saving the mask."""
    overlay = {
        "datalist": [str(series)],
        "preprocessing#transforms#0#reader": "PydicomReader",
        "postprocessing#transforms#3": {
            "_target_": "Lambdad",
            "keys": "pred",
            "func": f"$lambda mask: np.save({str(output)!r}, mask.cpu().numpy())",
        },
    }
    (output.parent / "overlay.json").write_text(json.dumps(overlay))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            f"['{bundle_root}/configs/inference.json','{output.parent}/overlay.json']",
            "--meta_file",
            str(bundle_root / "configs/metadata.json"),
            "--bundle_root",
            str(bundle_root),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "HOLOSCAN_LOG_LEVEL": "OFF"},
    )
    mask: np.ndarray[Any, Any] = np.load(output)
    return mask


def test_same_mask_as_monai_bundle_run(bundle: Bundle, tmp_path: Path) -> None:
    series = _write_series(tmp_path / "series", seed=3)
    wanted = _run_monai(bundle.files.root, series, tmp_path / "mask.npy")
    got = bundle.predict(_read_series(series)).numpy()
    assert 0.02 < wanted.mean() < 0.98
    assert got.shape == wanted.shape == (1, 48, 56, 20)
    # Softmax channels are resampled in single precision: ties within rounding of one half may differ.
    assert np.mean(got != wanted) < 1e-4


def _as_written(root: Path) -> Compose:
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser["postprocessing#transforms#3#_disabled_"] = True
    parser["preprocessing#transforms#0#_disabled_"] = True
    parser["preprocessing#transforms#1#_disabled_"] = True
    postprocessing: Compose = parser.get_parsed_content("postprocessing")
    return postprocessing


def test_three_classes_invert_like_argmax(tmp_path: Path) -> None:
    channels = {"0": "background", "1": "liver", "2": "tumor"}
    bundle = load_bundle(write_bundle(tmp_path, channels=channels, seed=5))
    volume = _read_series(_write_series(tmp_path / "series", seed=4))
    cheap = bundle.predict(volume.clone()).numpy()
    original = Bundle(
        **{
            **{name: getattr(bundle, name) for name in bundle.__dataclass_fields__},
            "preprocessing": (pre := _paired(tmp_path))[0],
            "postprocessing": pre[1],
        }
    )
    full = original.predict(volume.clone()).numpy()
    assert set(np.unique(full)) == {0, 1, 2}
    assert np.mean(cheap != full) < 1e-4


def _paired(root: Path) -> tuple[Compose, Compose]:
    """Preprocessing and unchanged postprocessing that refers to it."""
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    for path in ("preprocessing#transforms#0", "preprocessing#transforms#1", "postprocessing#transforms#3"):
        parser[f"{path}#_disabled_"] = True
    return parser.get_parsed_content("preprocessing"), parser.get_parsed_content("postprocessing")


def test_only_the_known_pattern_is_rewritten(bundle_directory: Path, tmp_path: Path) -> None:
    rewritten = invert_foreground_only(_as_written(bundle_directory), key="pred")
    assert any(isinstance(step, ForegroundArgmaxd) for step in rewritten.transforms)
    config = inference_config()
    config["postprocessing"]["transforms"][1]["nearest_interp"] = True
    nearest = _as_written(write_bundle(tmp_path, config=config))
    assert invert_foreground_only(nearest, key="pred") is nearest


def test_outside_the_field_of_view_is_background() -> None:
    probabilities = torch.zeros((2, 3, 1, 1))
    probabilities[:, 1, 0, 0] = torch.tensor([0.2, 0.7])
    labels = ForegroundArgmaxd(keys="pred")({"pred": probabilities})["pred"]
    assert labels.flatten().tolist() == [0, 2, 0]


def test_identity_and_fingerprint(bundle_directory: Path, tmp_path: Path) -> None:
    files = read_bundle_files(bundle_directory)
    assert (files.name, files.version, files.modality) == ("test segmentation", "0.1.0", "CT")
    assert [channel.name for channel in files.segment_channels] == ["lung"]
    config = inference_config()
    config["postprocessing"]["transforms"][1]["nearest_interp"] = True
    changed = read_bundle_files(write_bundle(tmp_path, config=config))
    assert changed.fingerprint != files.fingerprint
    # A configuration may take its network from a script, or a part from another configuration.
    for name in ("scripts/network.py", "configs/shared.json"):
        before = read_bundle_files(tmp_path).fingerprint
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        assert read_bundle_files(tmp_path).fingerprint != before
    last = read_bundle_files(tmp_path).fingerprint
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("read me")
    assert read_bundle_files(tmp_path).fingerprint == last
    assert read_bundle_files(tmp_path).sha256 == files.sha256


def test_weights_must_be_those_that_were_recorded(tmp_path: Path) -> None:
    digest = read_bundle_files(write_bundle(tmp_path)).sha256
    (tmp_path / "provenance.json").write_text(json.dumps({"weights": {"model.ts": digest}}))
    assert read_bundle_files(tmp_path).sha256 == digest
    write_bundle(tmp_path, seed=1)
    with pytest.raises(BundleError, match=r"model\.ts: is not the file that provenance\.json records"):
        read_bundle_files(tmp_path)


def test_weights_of_a_state_dictionary(tmp_path: Path) -> None:
    definition = {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
    }
    write_bundle(tmp_path, config=inference_config(network_def=definition))
    (tmp_path / "models" / "model.ts").unlink()
    network = ConfigParser({"network_def": definition}).get_parsed_content("network_def")
    torch.save({"model": network.state_dict()}, tmp_path / "models" / "model.pt")
    bundle = load_bundle(tmp_path)
    warm_up(bundle)
    for name, value in network.state_dict().items():
        assert torch.equal(bundle.network.state_dict()[name], value)


def _changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(inference_config())
    *parents, last = path.split("#")
    place: Any = config
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_changed("inferer", None), "inferer is missing"),
        (_changed("inferer#_target_", "NoSuchInferer"), "inferer cannot be built"),
        (_changed("preprocessing", []), "preprocessing must be a Compose"),
        (_changed("preprocessing#transforms#0#keys", ["t1", "t2"]), r"loads \['image', 't1', 't2'\]"),
    ],
)
def test_unusable_configuration_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, config=config)
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


def _format(**image: Any) -> dict[str, Any]:
    return {
        "inputs": {"image": {"num_channels": 1, "modality": "CT"} | image},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "lung"}}},
    }


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (
            metadata({"0": "background", "1": "flux capacitor"}),
            "'flux capacitor': add it to segment_terms.toml",
        ),
        (metadata({"0": "background"}), "nothing but background"),
        (metadata({}, network_data_format={}), "inputs is missing"),
        (metadata({}), "channel_def is missing"),
        (metadata({"one": "lung"}), "must map channel numbers to names"),
        (metadata({}, network_data_format=_format(num_channels=4)), "4 input channels"),
        (metadata({}, network_data_format=_format(), version=""), "version is missing"),
    ],
)
def test_unusable_metadata_is_refused(meta: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, meta=meta)
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("configs/inference.json", "no inference config"),
        ("configs/metadata.json", "no metadata"),
        ("models/model.ts", "no weights"),
    ],
)
def test_missing_file_is_named(missing: str, message: str, tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "models" / "model.ts").write_bytes(b"not a network")
    with pytest.raises(BundleError, match="not a TorchScript file"):
        load_bundle(tmp_path)


def test_postprocessing_that_stays_on_the_networks_grid_is_refused(tmp_path: Path) -> None:
    config = inference_config()
    del config["postprocessing"]["transforms"][1]
    write_bundle(tmp_path, config=config)
    with pytest.raises(BundleError, match="must end on the source's grid"):
        warm_up(load_bundle(tmp_path))


def test_postprocessing_that_forgets_where_the_volume_lies_is_refused(tmp_path: Path) -> None:
    config = inference_config()
    forgets = {"_target_": "EnsureTyped", "keys": "pred", "track_meta": False}
    config["postprocessing"]["transforms"][3] = forgets
    write_bundle(tmp_path, config=config)
    with pytest.raises(BundleError, match="does not say where it lies"):
        warm_up(load_bundle(tmp_path))


def test_postprocessing_that_mirrors_the_volume_is_refused(tmp_path: Path) -> None:
    config = inference_config()
    # The shape stays; left and right are exchanged together with the affine.
    config["postprocessing"]["transforms"][3] = {"_target_": "Orientationd", "keys": "pred", "axcodes": "RPS"}
    write_bundle(tmp_path, config=config)
    with pytest.raises(BundleError, match="moves the volume in the patient"):
        warm_up(load_bundle(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_no_number_is_an_error_and_not_an_empty_mask(bundle: Bundle, value: float) -> None:
    def overflows(inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        output: torch.Tensor = network(inputs[..., :32, :32, :16])
        output[0, 1, 3, 4, 5] = value
        return output

    image = MetaTensor(torch.zeros((1, 40, 40, 20)), affine=torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0])))
    with pytest.raises(UnsuitablePredictionError, match="not finite"):
        replace(bundle, inferer=overflows).predict(image)


def test_masks_of_labels_and_of_channels() -> None:
    channels = (
        Channel(index=0, name="background"),
        Channel(index=1, name="liver"),
        Channel(index=2, name="tumor"),
    )
    labels = torch.zeros((1, 2, 3, 4))
    labels[0, 1, 2, 3] = 2
    masks = channel_masks(labels, channels)
    assert masks.shape == (2, 4, 3, 2)
    assert np.argwhere(masks).tolist() == [[1, 3, 2, 1]]
    one_hot = torch.zeros((3, 2, 3, 4))
    one_hot[1, 0, 1, 2] = 1
    assert np.argwhere(channel_masks(one_hot, channels)).tolist() == [[0, 2, 1, 0]]
    labels[0, 0, 0, 0] = 7
    with pytest.raises(UnsuitablePredictionError, match=r"\[7\.0\]"):
        channel_masks(labels, channels)
    sigmoid = torch.ones((1, 2, 3, 4))
    assert channel_masks(sigmoid, (Channel(index=0, name="lung"),)).all()
    with pytest.raises(UnsuitablePredictionError, match="no background"):
        channel_masks(sigmoid, (Channel(index=0, name="liver"), Channel(index=1, name="tumor")))
