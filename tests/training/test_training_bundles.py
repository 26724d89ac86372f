"""The bundles of the image: complete, consistent, and usable with MONAI alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from training_phantoms import SPACING, phantom

from training.configuration.bundle import LIBRARY, TrainingConfiguration, named_bundle, read_bundle
from training.data.sampling import StepLoader
from training.errors import BundleError, JobConfigurationError

BUNDLES = sorted(folder.name for folder in LIBRARY.iterdir() if (folder / "configs").is_dir())


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_serving_use_one_network_and_one_grid(name: str) -> None:
    train, inference = (
        json.loads((LIBRARY / name / "configs" / file).read_text())
        for file in ("train.json", "inference.json")
    )
    assert train["network_def"] == inference["network_def"]
    assert train["patch_size"] == inference["patch_size"]

    def steps(transforms: list[dict[str, object]]) -> list[dict[str, object]]:
        """Without what differs on purpose: the label's part of a setting."""
        return [
            {
                key: value[0] if isinstance(value, list) and key == "mode" else value
                for key, value in transform.items()
                if key != "keys"
            }
            for transform in transforms
            if transform["_target_"] != "SpatialPadd"
        ]

    assert steps(train["train"]["deterministic_transforms"]) == steps(
        inference["preprocessing"]["transforms"]
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_describe_the_network(name: str) -> None:
    bundle = named_bundle(name)
    metadata = json.loads((bundle.root / "configs" / "metadata.json").read_text())
    for key in ("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "authors"):
        assert metadata[key], key
    assert metadata["name"] == name
    parser = ConfigParser()
    parser.read_config(str(bundle.root / "configs" / "inference.json"))
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    with torch.no_grad():
        prediction = parser.get_parsed_content("network_def")(torch.rand((2, *bundle.input_shape)))
    assert prediction.shape == (2, outputs["num_channels"], *outputs["spatial_shape"])
    assert len(outputs["channel_def"]) == outputs["num_channels"]
    assert set(bundle.channels.values()) == set(range(1, outputs["num_channels"]))
    assert (bundle.root / "docs" / "README.md").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms as NIfTI files, as the bundle reads them without the platform."""
    folder = tmp_path_factory.mktemp("nifti")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for seed in range(3):
        image, lungs = phantom(seed)
        affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
        for kind, array in (("images", image.astype(np.int16)), ("labels", lungs.astype(np.uint8))):
            nifti: Any = nibabel
            nifti.save(nifti.Nifti1Image(array, affine), folder / kind / f"chest-{seed}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def trained_alone(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model.pt of a training by MONAI's own command."""
    output = tmp_path_factory.mktemp("alone")
    root = LIBRARY / "ct_segmentation"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"),
            *("--config_file", str(root / "configs" / "train.json")),
            *("--bundle_root", str(root), "--dataset_dir", str(files), "--ckpt_dir", str(output)),
            *("--max_steps", "4", "--train#handlers#0#interval", "2"),
        ],
        cwd=output,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return output


def test_monai_alone_trains_the_bundle(trained_alone: Path) -> None:
    assert (trained_alone / "model.pt").exists()


def test_monai_alone_evaluates_the_bundle(trained_alone: Path, files: Path, tmp_path: Path) -> None:
    configs = LIBRARY / "ct_segmentation" / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(configs / "train.json"), str(configs / "evaluate.json")],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(files),
        ckpt_dir=str(trained_alone),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    assert "val_mean_dice" in (tmp_path / "metrics.csv").read_text()
    assert len((tmp_path / "val_mean_dice_raw.csv").read_text().splitlines()) == 1 + 3


def test_monai_alone_segments_on_the_sources_grid(trained_alone: Path, files: Path, tmp_path: Path) -> None:
    configs = LIBRARY / "ct_segmentation" / "configs"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes((trained_alone / "model.pt").read_bytes())
    workflow = ConfigWorkflow(
        config_file=str(configs / "inference.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        dataset_dir=str(files),
        bundle_root=str(tmp_path),
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    written = sorted((tmp_path / "eval").iterdir())
    assert len(written) == 3
    source, result = (
        nibabel.nifti1.Nifti1Image.from_filename(file)
        for file in (files / "images" / "chest-0.nii.gz", written[0])
    )
    assert result.shape == source.shape
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
    assert set(np.unique(np.asarray(result.dataobj))) <= {0, 1}


def test_an_unknown_bundle_is_refused_with_those_there_are() -> None:
    with pytest.raises(JobConfigurationError, match="ct_segmentation"):
        named_bundle("ct_segmentatoin")


def test_a_part_that_cannot_be_built_names_its_key() -> None:
    configuration = TrainingConfiguration(named_bundle("ct_segmentation"), max_steps=1)
    configuration._parser["network_def#strides"] = [2]
    with pytest.raises(BundleError, match="ct_segmentation: network cannot be built"):
        configuration.part("network")


def test_batches_depend_on_seed_and_step_alone() -> None:
    class Items:
        """Counts how often its transform is seeded."""

        def __init__(self) -> None:
            self.transform = self
            self.seeds: list[int] = []

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor(index)

        def set_random_state(self, seed: int) -> None:
            self.seeds.append(seed)

    first, second = Items(), Items()
    one = StepLoader(dataset=first, batch_size=2, seed=3)
    batches = [batch.tolist() for batch, _ in zip(one, range(9), strict=False)]
    assert len(one) == 3
    for epoch in (batches[:3], batches[3:6], batches[6:]):
        assert sorted(index for batch in epoch for index in batch) == [0, 1, 2, 3, 4]
    assert batches[:3] != batches[3:6]
    late = StepLoader(dataset=second, batch_size=2, seed=3, first_step=4)
    assert [batch.tolist() for batch, _ in zip(late, range(5), strict=False)] == batches[4:]
    assert second.seeds[:5] == first.seeds[4:9]
    assert len(set(first.seeds)) == len(first.seeds)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"0": "lung"}, "must give channel 0 to background"),
        ({"0": "lung", "1": "background"}, "must give channel 0 to background"),
        ({"0": "background", "1": "lung", "2": "Lung"}, "two channels of one name"),
    ],
)
def test_channels_that_a_label_map_cannot_tell_apart_are_refused(
    tmp_path: Path, channels: dict[str, str], message: str
) -> None:
    metadata = json.loads((LIBRARY / "ct_segmentation" / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = channels
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path)
