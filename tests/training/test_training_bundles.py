"""The bundles of the image: complete, consistent, and usable with MONAI alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from training_phantoms import SPACING, phantom

from training.configuration.bundle import LIBRARY, Task, named_bundle, read_bundle
from training.configuration.training import TrainingConfiguration
from training.errors import BundleError, JobConfigurationError

BUNDLES = sorted(folder.name for folder in LIBRARY.iterdir() if (folder / "configs").is_dir())


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_serving_use_one_network_and_one_grid(name: str) -> None:
    train, inference = (
        json.loads((LIBRARY / name / "configs" / file).read_text())
        for file in ("train.json", "inference.json")
    )
    shared = {"network_def", "patch_size", "image_size"} & (set(train) | set(inference))
    assert len(shared) == 2
    for key in shared:
        assert train[key] == inference[key], key

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
    shape = outputs["spatial_shape"] if bundle.task is Task.SEGMENTATION else ()
    assert prediction.shape == (2, outputs["num_channels"], *shape)
    assert len(outputs["channel_def"]) == outputs["num_channels"]
    first = 1 if bundle.task is Task.SEGMENTATION else 0
    assert set(bundle.channels.values()) == set(range(first, outputs["num_channels"]))
    names = [outputs["channel_def"][str(number)] for number in range(outputs["num_channels"])]
    for file in ("train", "inference"):
        assert (
            json.loads((bundle.root / "configs" / f"{file}.json").read_text()).get("classes", names) == names
        )
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
    interval = ("--train#handlers#0#interval", "2")
    run_alone(
        "ct_segmentation", ["train"], output, dataset_dir=files, options=("--max_steps", "4", *interval)
    )
    return output


def run_alone(
    bundle: str,
    configs: list[str],
    output: Path,
    *,
    dataset_dir: Path,
    ranks: int = 1,
    options: Sequence[str] = (),
) -> str:
    """What `python -m monai.bundle run` says, in one process or in several by torchrun."""
    root = LIBRARY / bundle
    launcher = (
        ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}") if ranks > 1 else ()
    )
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", *launcher, "-m", "monai.bundle", "run"),
            *("--config_file", str([str(root / "configs" / f"{name}.json") for name in configs])),
            *("--bundle_root", str(root), "--dataset_dir", str(dataset_dir), "--ckpt_dir", str(output)),
            *("--output_dir", str(output), *options),
        ],
        cwd=output,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


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


def test_two_ranks_train_and_evaluate_with_the_overlays(files: Path, tmp_path: Path) -> None:
    """Each rank has other cases and other random numbers: the losses of their first steps differ."""
    losses = str(tmp_path / "losses")
    probe = {
        "+imports": ["$import pathlib"],
        "+train#handlers": [
            {
                "_target_": "StatsHandler",
                "iteration_print_logger": "$lambda engine: pathlib.Path(@losses + str(@rank))"
                ".write_text(str(engine.state.output[0]['loss']))",
                "epoch_log": False,
            }
        ],
        "losses": losses,
    }
    (tmp_path / "probe.json").write_text(json.dumps(probe))
    options = ("--max_steps", "2", "--validation_cases", "2", "--train#handlers#0#interval", "1")
    run_alone(
        "ct_segmentation",
        ["train", "multi_gpu_train", str(tmp_path / "probe")],
        tmp_path,
        dataset_dir=files,
        ranks=2,
        options=options,
    )
    assert (tmp_path / "model.pt").exists()
    first, second = (float(Path(losses + rank).read_text()) for rank in "01")
    assert first != second
    run_alone(
        "ct_segmentation",
        ["train", "evaluate", "multi_gpu_evaluate"],
        tmp_path,
        dataset_dir=files,
        ranks=2,
    )
    rows = (tmp_path / "val_mean_dice_raw.csv").read_text().splitlines()
    assert len({row.split()[0] for row in rows[1:]}) == 3, "every case, whichever rank had it"


@pytest.fixture(scope="module")
def labelled(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms as a data set of the classification bundle."""
    folder = tmp_path_factory.mktemp("labelled")
    names = sorted((files / "images").iterdir())
    rows = [f"{name},{('negative', 'positive')[number % 2]}" for number, name in enumerate([*names, *names])]
    (folder / "labels.csv").write_text("\n".join(["file,class", *rows]) + "\n")
    return folder


def run_here(configs: list[str], kind: str, **options: object) -> None:
    """As `run_alone` of the classification, in this process, which has the libraries loaded already."""
    folder = LIBRARY / "volume_classification" / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(folder / f"{name}.json") for name in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        image_size=[32, 32, 32],
        **options,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def test_monai_alone_trains_evaluates_and_runs_the_classification(labelled: Path, tmp_path: Path) -> None:
    places: dict[str, object] = {"dataset_dir": str(labelled), "output_dir": str(tmp_path)}
    steps: dict[str, object] = {"max_steps": 1, "train#handlers#0#interval": 1}
    run_here(["train"], "train", ckpt_dir=str(tmp_path), **steps, **places)
    run_here(["train", "evaluate"], "train", ckpt_dir=str(tmp_path), **places)
    assert "val_auc" in (tmp_path / "metrics.csv").read_text()
    loaded: dict[str, object] = {"handlers#1#load_path": str(tmp_path / "model.pt")}
    run_here(["inference"], "inference", **loaded, **places)
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(rows) == 3
    assert all(
        sum(float(value) for value in row.split(",")[1:]) == pytest.approx(1, abs=1e-4) for row in rows
    )


def test_an_unknown_bundle_is_refused_with_those_there_are() -> None:
    with pytest.raises(JobConfigurationError, match="ct_segmentation"):
        named_bundle("ct_segmentatoin")


def test_a_part_that_cannot_be_built_names_its_key() -> None:
    configuration = TrainingConfiguration(
        named_bundle("ct_segmentation"), max_steps=1, overrides={"network_def#strides": [2]}
    )
    with pytest.raises(BundleError, match="ct_segmentation: network cannot be built"):
        configuration.part("network")


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
