"""The exported model folder: whole or none, consistent with what was trained, with its record."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runtime.bundles.bundle import load_bundle
from training.configuration.bundle import LIBRARY, Bundle, named_bundle, read_bundle
from training.configuration.inference import InferenceConfiguration
from training.configuration.training import TrainingConfiguration
from training.errors import BundleError, ExportError
from training.export import export
from training.export.digests import code_digest, file_digest
from training.export.export import Provenance, export_model

SMALL = {"image_size": [32, 32, 32]}

RECORD = Provenance(
    training_job="job",
    manifest_name="manifest.json",
    manifest_sha256="1" * 64,
    datastore_id="2" * 32,
    cases={"train": 3},
    bundle_sha256="3" * 64,
    hyperparameters={"seed": "5"},
    seed=5,
    steps=9,
    step_of_weights=6,
    device="cpu",
    world_size=2,
    train_patients=("a", "b"),
)


def exported(
    folder: Path,
    *,
    bundle: Bundle | None = None,
    network: torch.nn.Module | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    bundle = bundle or named_bundle("ct_segmentation")
    network = network or TrainingConfiguration(bundle, max_steps=1, overrides=overrides).part("network")
    export_model(bundle=bundle, network=network, folder=folder, provenance=RECORD, overrides=overrides)
    document = json.loads((folder / "provenance.json").read_text())
    assert isinstance(document, dict)
    return document


def config(folder: Path, name: str) -> Any:
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def test_the_record_names_all_that_a_result_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_IMAGE", "1.dkr.ecr/training@sha256:4")
    document = exported(tmp_path, overrides={"learning_rate": 0.1})
    assert document["image"] == "1.dkr.ecr/training@sha256:4"
    assert document["codeSha256"] == code_digest()
    assert document["overrides"] == {"learning_rate": 0.1}
    assert document["trainPatients"] == ["a", "b"]
    assert (document["seed"], document["worldSize"], document["stepOfWeights"]) == (5, 2, 6)
    assert document["packages"]["torch"] == torch.__version__
    assert document["weights"] == {
        name: file_digest(tmp_path / "models" / name) for name in ("model.pt", "model.ts")
    }


def test_overrides_are_written_into_both_configurations(tmp_path: Path) -> None:
    exported(
        tmp_path, overrides={"network_def#norm": "instance", "learning_rate": 0.1, "patch_size": [32, 32, 32]}
    )
    for name in ("train", "inference"):
        assert config(tmp_path, name)["network_def"]["norm"] == "instance"
        assert config(tmp_path, name)["patch_size"] == [32, 32, 32]
    assert config(tmp_path, "train")["learning_rate"] == 0.1
    again = TrainingConfiguration(read_bundle(tmp_path), max_steps=1)
    assert "InstanceNorm3d" in {type(module).__name__ for module in again.part("network").modules()}


def test_trained_classes_are_the_exported_bundles(tmp_path: Path) -> None:
    bundle = named_bundle("volume_classification")
    exported(tmp_path, bundle=bundle, overrides={"classes": ["CN", "MCI", "AD"], **SMALL})
    assert read_bundle(tmp_path).channels == {"CN": 0, "MCI": 1, "AD": 2}
    assert [channel.name for channel in load_bundle(tmp_path).files.channels] == ["CN", "MCI", "AD"]


def test_trained_segments_are_the_exported_bundles(tmp_path: Path) -> None:
    exported(tmp_path, overrides={"classes": ["background", "liver"]})
    assert read_bundle(tmp_path).channels == {"liver": 1}
    metadata = config(tmp_path, "metadata")
    for name in ("label_classes", "pred_classes"):
        assert "liver" in metadata[name]
        assert "lung" not in metadata[name]
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 2


def test_classes_that_an_overlay_names_are_the_exported_bundles(tmp_path: Path) -> None:
    root = Path(shutil.copytree(LIBRARY / "ct_segmentation", tmp_path / "bundle"))
    (root / "configs" / "liver.json").write_text(json.dumps({"classes": ["background", "liver"]}))
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    output = metadata["network_data_format"]["outputs"]["pred"]
    output["label_def"] = output.pop("channel_def")
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    exported(tmp_path / "model", bundle=read_bundle(root), overrides={"overlays": ["liver"]})
    assert read_bundle(tmp_path / "model").channels == {"liver": 1}
    written = config(tmp_path / "model", "metadata")["network_data_format"]["outputs"]["pred"]
    assert written["label_def"] == {"0": "background", "1": "liver"}


def test_code_in_folders_that_are_called_as_the_layouts_is_exported(tmp_path: Path) -> None:
    root = Path(shutil.copytree(LIBRARY / "ct_segmentation", tmp_path / "bundle"))
    for folder in ("scripts/models", "scripts/eval", "models"):
        (root / folder).mkdir(parents=True)
        (root / folder / "own.py").write_text("")
    exported(tmp_path / "model", bundle=read_bundle(root))
    assert (tmp_path / "model" / "scripts" / "models" / "own.py").is_file()
    assert (tmp_path / "model" / "scripts" / "eval" / "own.py").is_file()
    assert not (tmp_path / "model" / "models" / "own.py").exists()


def test_a_network_that_several_gpus_trained_is_exported_as_torchscript(tmp_path: Path) -> None:
    """Its normalisation talks to the other ranks, which TorchScript cannot."""
    network = TrainingConfiguration(named_bundle("ct_segmentation"), max_steps=1).part("network")
    network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    document = exported(tmp_path, network=network)
    assert set(document["weights"]) == {"model.pt", "model.ts"}
    patch = torch.rand(1, 1, 64, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(load_bundle(tmp_path).network(patch), network(patch))


class Uncompilable(torch.nn.Module):
    """A network that TorchScript's compiler does not understand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, *images: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        answer = self.layer(images[0])
        assert isinstance(answer, torch.Tensor)
        return answer


@pytest.fixture
def uncompilable(tmp_path: Path) -> Bundle:
    root = Path(shutil.copytree(LIBRARY / "ct_segmentation", tmp_path / "bundle"))
    (root / "scripts").mkdir()
    (root / "scripts" / "network.py").write_text(
        "import torch\n\n\n"
        "class Uncompilable(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Conv3d(1, 2, 3, padding=1)\n\n"
        "    def forward(self, *images, **named):\n"
        "        return self.layer(images[0])\n"
    )
    for name in ("train", "inference"):
        file = root / "configs" / f"{name}.json"
        document = json.loads(file.read_text()) | {
            "network_def": {"_target_": "scripts.network.Uncompilable"}
        }
        file.write_text(json.dumps(document))
    return read_bundle(root)


def test_a_network_that_cannot_be_compiled_is_served_from_its_weights(
    uncompilable: Bundle, tmp_path: Path
) -> None:
    network = TrainingConfiguration(uncompilable, max_steps=1).part("network")
    document = exported(tmp_path / "model", bundle=uncompilable, network=network)
    assert set(document["weights"]) == {"model.pt"}
    served = load_bundle(tmp_path / "model")
    assert not served.files.is_torchscript
    patch = torch.rand(1, 1, 64, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(served.network(patch), network(patch))
        ours = InferenceConfiguration(read_bundle(tmp_path / "model")).trained_network()
        torch.testing.assert_close(ours(patch), network(patch))


def test_a_network_that_is_not_the_served_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"network_def of inference\.json is not what was trained"):
        exported(tmp_path, network=Uncompilable())
    assert not list(tmp_path.iterdir()), "nothing that looks like a model"


def test_a_full_disk_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    exported(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(export.torch, "save", full)
        with pytest.raises(ExportError, match="No space left on device"):
            exported(tmp_path)
    assert load_bundle(tmp_path), "the earlier model is still whole"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10 * 2**20))
    with pytest.raises(ExportError, match="10 MiB are free"):
        exported(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_second_export_takes_the_place_of_the_first(tmp_path: Path) -> None:
    exported(tmp_path)
    (tmp_path / "models" / "left.pt").write_bytes(b"over")
    document = exported(tmp_path, overrides={"network_def#norm": "instance"})
    assert sorted(file.name for file in (tmp_path / "models").iterdir()) == sorted(document["weights"])
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "LICENSE",
        "configs",
        "docs",
        "models",
        "provenance.json",
    }


def test_overrides_without_a_place_are_no_model(tmp_path: Path) -> None:
    network = torch.nn.Identity()
    with pytest.raises(BundleError, match="there is no learning_rat"):
        exported(tmp_path, network=network, overrides={"learning_rat": 1})
    assert not list(tmp_path.iterdir())
