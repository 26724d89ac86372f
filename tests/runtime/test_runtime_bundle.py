"""The bundle: which files are used, what is accepted, what is refused and why."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.transforms import KeepLargestConnectedComponentd
from synthetic_bundle import changed, inference_config, metadata, write_bundle, write_checkpoint_bundle

from runtime.bundles.bundle import Bundle, load_bundle, warm_up
from runtime.bundles.files import read_bundle_files
from runtime.bundles.task import Task
from runtime.errors import BundleError, UnsuitablePredictionError


@pytest.fixture(scope="module")
def bundle(bundle_directory: Path) -> Bundle:
    return load_bundle(bundle_directory)


def test_identity_and_fingerprint(bundle_directory: Path, tmp_path: Path) -> None:
    files = read_bundle_files(bundle_directory)
    assert (files.name, files.version, files.modality) == ("test segmentation", "0.1.0", "CT")
    assert [channel.name for channel in files.segment_channels] == ["lung"]
    config = inference_config()
    config["postprocessing"]["transforms"][1]["nearest_interp"] = True
    assert read_bundle_files(write_bundle(tmp_path, config=config)).fingerprint != files.fingerprint
    # A configuration may take its network from a script, or a part from another configuration.
    for name in ("scripts/network.py", "configs/shared.json", "models/search_code.pt", "table.csv"):
        before = read_bundle_files(tmp_path).fingerprint
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        assert read_bundle_files(tmp_path).fingerprint != before
    last = read_bundle_files(tmp_path).fingerprint
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("read me")
    assert read_bundle_files(tmp_path).fingerprint == last
    assert read_bundle_files(tmp_path).sha256 == files.sha256


def test_weights_are_part_of_the_fingerprint_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "eval").mkdir()
    fingerprints = set()
    for seed in (1, 2):
        write_checkpoint_bundle(
            tmp_path,
            channels=LUNG,
            network=UNET | {"out_channels": 2},
            weights="../eval/best.pt",
            seed=seed,
        )
        fingerprints.add(read_bundle_files(tmp_path).fingerprint)
    assert len(fingerprints) == 2


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


UNET = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "channels": [4, 8], "strides": [2]}
LUNG = {"0": "background", "1": "lung"}


def test_weights_that_the_configuration_names_come_first(tmp_path: Path) -> None:
    network = UNET | {"out_channels": 2}
    write_checkpoint_bundle(tmp_path, channels=LUNG, network=network, weights="net_FT.pt", seed=1)
    shutil.copy(tmp_path / "models" / "net_FT.pt", tmp_path / "models" / "model.ts")
    files = read_bundle_files(tmp_path)
    assert files.weights.name == "net_FT.pt"
    assert not files.is_torchscript
    # The export of model.pt stands for model.pt.
    write_checkpoint_bundle(tmp_path, channels=LUNG, network=network)
    assert read_bundle_files(tmp_path).weights.name == "model.ts"


def test_torchscript_under_any_name(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "models" / "model.ts").rename(tmp_path / "models" / "model.pt")
    assert read_bundle_files(tmp_path).is_torchscript
    warm_up(load_bundle(tmp_path))


def test_weights_of_another_network_are_refused_whatever_the_configuration_allows(tmp_path: Path) -> None:
    write_checkpoint_bundle(tmp_path, channels=LUNG, network=UNET | {"out_channels": 2})
    file = tmp_path / "configs" / "inference.json"
    config = json.loads(file.read_text())
    config["network_def"]["out_channels"] = 3
    file.write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"model\.pt: does not fit network_def"):
        load_bundle(tmp_path)
    config["handlers"][0]["strict_shape"] = "False"
    config["handlers"][0]["strict"] = False
    file.write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"leaves .*weight.* of network_def as random as it was made"):
        load_bundle(tmp_path)
    # What is allowed is a file that holds more than the network has.
    config["network_def"]["out_channels"] = 2
    file.write_text(json.dumps(config))
    weights = tmp_path / "models" / "model.pt"
    content = torch.load(weights, weights_only=True)
    torch.save({"model": content["model"] | {"auxiliary.weight": torch.zeros(1)}}, weights)
    for allowed in ({"strict": False}, {"strict": False, "strict_shape": False}):
        config["handlers"][0] |= {"strict_shape": True} | allowed
        file.write_text(json.dumps(config))
        loaded = load_bundle(tmp_path).network.state_dict()
        assert loaded
        assert all(torch.equal(value, content["model"][name]) for name, value in loaded.items())
    # Names of a network that was trained on several GPUs fit nothing.
    torch.save({"model": {f"module.{name}": value for name, value in content["model"].items()}}, weights)
    with pytest.raises(BundleError, match="as random as it was made"):
        load_bundle(tmp_path)


def test_weights_hold_no_code(tmp_path: Path) -> None:
    write_checkpoint_bundle(tmp_path, channels=LUNG, network=UNET | {"out_channels": 2})
    torch.save({"model": Task.SEGMENTATION, "other": tmp_path}, tmp_path / "models" / "model.pt")
    with pytest.raises(BundleError, match="is not a file of weights: UnpicklingError"):
        load_bundle(tmp_path)


def test_what_the_evaluator_adds(tmp_path: Path) -> None:
    config = changed("inferer", None)
    del config["evaluator"]["inferer"]
    config |= {"amp": False, "precision": {"dtype": "$torch.bfloat16"}}
    config["evaluator"] |= {"amp": "@amp", "amp_kwargs": "@precision"}
    bundle = load_bundle(write_bundle(tmp_path, config=config))
    assert isinstance(bundle.inferer, SimpleInferer)
    assert not bundle.mixed_precision
    assert bundle.autocast == {"dtype": torch.bfloat16}


def test_what_the_evaluator_runs_counts_and_not_what_has_the_usual_name(tmp_path: Path) -> None:
    config = inference_config()
    config["evaluator"] |= {"postprocessing": "@with_largest", "inferer": "@whole"}
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
    steps = [*config["postprocessing"]["transforms"], largest]
    config["with_largest"] = {"_target_": "Compose", "transforms": steps}
    config["whole"] = {"_target_": "SimpleInferer"}
    bundle = load_bundle(write_bundle(tmp_path, config=config))
    assert isinstance(bundle.postprocessing.transforms[-1], KeepLargestConnectedComponentd)
    assert type(bundle.inferer) is SimpleInferer
    warm_up(bundle)


def test_metadata_in_yaml(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    file = tmp_path / "configs" / "metadata.json"
    # JSON is YAML.
    file.rename(file.with_suffix(".yaml"))
    assert read_bundle_files(tmp_path).name == "test segmentation"


def test_a_device_that_is_written_out_is_replaced_without_one(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = inference_config(device="$torch.device('cuda:0')")
    assert load_bundle(write_bundle(tmp_path, config=config)).device.type == "cpu"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("inferer#_target_", "NoSuchInferer"), "inferer cannot be built"),
        (changed("preprocessing", []), "preprocessing must be a Compose"),
        (
            changed("evaluator#_target_", "scripts.evaluator.OwnEvaluator"),
            r"evaluator of its own .OwnEvaluator.; served is what SupervisedEvaluator runs",
        ),
        (changed("evaluator#iteration_update", "$lambda e, b: None"), "iteration_update replaces the step"),
        (
            changed("evaluator#prepare_batch", {"_target_": "PrepareBatchExtraInput", "extra_keys": "age"}),
            "gives the network more than the image",
        ),
        (
            changed("preprocessing#transforms#5#_target_", "a_missing_package.Step"),
            "preprocessing cannot be built: ModuleNotFoundError: Cannot locate class",
        ),
        (changed("preprocessing#transforms#0#keys", ["t1", "t2"]), r"loads \['t1', 't2'\]"),
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


def _output(**output: Any) -> dict[str, Any]:
    data_format = _format()
    data_format["outputs"]["pred"] |= output
    return metadata({}, network_data_format=data_format)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (metadata({"0": "background"}), "nothing but background"),
        (metadata({}, network_data_format={}), "outputs is missing"),
        (metadata({}), "channel_def is missing"),
        (metadata({"one": "lung"}), "must map channel numbers to names"),
        (
            metadata({}, network_data_format=_format(num_channels=2, channel_def={"0": "T1", "1": "T2"})),
            r"2 input channels \(T1, T2\); a request gives one series",
        ),
        (metadata({}, network_data_format=_format(type="noise")), "makes images of noise"),
        (
            metadata({}, network_data_format=_format() | {"inputs": {"t1": {}, "t2": {}}}),
            r"2 inputs \(t1, t2\); a request gives one volume",
        ),
        (_output(type="object", format="dict"), "detects objects"),
        (_output(type="tuples", format="points"), "gives points"),
        (_output(type="image", format="magnitude"), r"gives 'magnitude' \(image\)"),
        (
            metadata({}, network_data_format=_format() | {"outputs": {"nuclei": {}, "distances": {}}}),
            r"must have one member, not 2 \(distances, nuclei\)",
        ),
        (
            metadata({}, network_data_format=_format(spatial_shape=[256, 256])),
            "two-dimensional images and the inferer .SlidingWindowInferer. does not go through",
        ),
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
