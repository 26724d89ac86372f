"""What a bundle's output becomes: masks, scores and coded terms."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydicom.sr.codedict import codes
from synthetic_bundle import inference_config, write_checkpoint_bundle

from runtime.bundles.bundle import load_bundle, warm_up
from runtime.bundles.channel_masks import channel_masks
from runtime.bundles.class_scores import class_scores
from runtime.bundles.metadata import Channel
from runtime.bundles.segment_terms import TERMS_FILE, class_terms, segment_terms
from runtime.bundles.task import Task
from runtime.errors import BundleError, UnsuitablePredictionError

ORGANS = tuple(Channel(index=index, name=name) for index, name in enumerate(("background", "liver", "tumor")))
FINDINGS = tuple(Channel(index=index, name=name) for index, name in enumerate(("Tumor core", "Whole tumor")))
GAP = tuple(
    Channel(index=index, name=name) for index, name in ((0, "background"), (1, "liver"), (3, "tumor"))
)
SHAPE = (2, 3, 4)


def _values(*channels: float) -> torch.Tensor:
    """The same values at every voxel."""
    return torch.tensor(channels).reshape(-1, 1, 1, 1).expand(-1, *SHAPE).clone()


def _present(prediction: torch.Tensor, channels: tuple[Channel, ...]) -> list[bool]:
    masks = channel_masks(prediction, channels)
    assert masks.dtype == bool
    assert masks.shape[1:] == SHAPE[::-1]
    assert all(mask.all() or not mask.any() for mask in masks)
    return [bool(mask.all()) for mask in masks]


@pytest.mark.parametrize(
    ("prediction", "channels", "wanted"),
    [
        ((2.0,), ORGANS, [False, True]),
        ((0.0,), ORGANS, [False, False]),
        # Labels between two neighbours that were interpolated.
        ((1.6,), ORGANS, [False, True]),
        ((1.4,), ORGANS, [True, False]),
        # One-hot, and masks that overlap.
        ((0.0, 1.0, 0.0), ORGANS, [True, False]),
        ((1.0, 1.0), FINDINGS, [True, True]),
        # Probabilities of alternatives: the greatest wins, also below one half; a tie is the first.
        ((0.3, 0.4, 0.3), ORGANS, [True, False]),
        ((0.4, 0.4, 0.2), ORGANS, [False, False]),
        # Probabilities of independent findings.
        ((0.6, 0.7), FINDINGS, [True, True]),
        ((0.5, 0.7), FINDINGS, [False, True]),
        # One channel says inside or outside, whatever its number.
        ((1.0,), (Channel(index=0, name="lung"),), [True]),
        ((0.2,), (Channel(index=1, name="lung"),), [False]),
        # channel_def without an entry for 0: what has no label is background.
        ((2.0,), (Channel(index=1, name="liver"), Channel(index=2, name="tumor")), [False, True]),
        ((0.2, 0.7), (Channel(index=1, name="liver"), Channel(index=2, name="tumor")), [False, True]),
        # Labels are told by their numbers, which may leave some out.
        ((3.0,), GAP, [False, True]),
    ],
)
def test_masks(prediction: tuple[float, ...], channels: tuple[Channel, ...], wanted: list[bool]) -> None:
    assert _present(_values(*prediction), channels) == wanted


def test_axes_become_dicoms() -> None:
    labels = torch.zeros((1, *SHAPE))
    labels[0, 1, 2, 3] = 2
    assert np.argwhere(channel_masks(labels, ORGANS)).tolist() == [[1, 3, 2, 1]]


@pytest.mark.parametrize(
    ("prediction", "channels", "message"),
    [
        ((7.0,), ORGANS, r"labels \[7.0\] that channel_def does not name"),
        ((-3.0, 9.0, 1.0), ORGANS, "neither masks nor probabilities but values from -3 to 9"),
        ((1.0,), FINDINGS, "gives label 0 a name that is not background"),
        # One channel without a background: what a network gives before its sigmoid is no mask.
        ((2.5,), (Channel(index=0, name="lung"),), "neither a mask nor probabilities but values from 2.5"),
        ((-4.0,), (Channel(index=1, name="lung"),), "neither a mask nor probabilities"),
        ((math.nan,), (Channel(index=0, name="lung"),), "neither a mask nor probabilities"),
        # Which of three channels is number 3?
        ((0.1, 0.2, 0.7), GAP, "channel_def numbers its entries 0, 1, 3"),
        ((0.0, 0.0, 1.0), GAP, "channel_def numbers its entries 0, 1, 3"),
    ],
)
def test_no_masks(prediction: tuple[float, ...], channels: tuple[Channel, ...], message: str) -> None:
    with pytest.raises(UnsuitablePredictionError, match=message):
        channel_masks(_values(*prediction), channels)


def test_scores_are_named_and_coded() -> None:
    scores = class_scores(torch.tensor([[0.25, 1.0005, 0.5]]), ORGANS, class_terms(["liver", "tumor"]))
    assert [(score.label, score.probability) for score in scores] == [
        ("background", 0.25),
        ("liver", 1.0),
        ("tumor", 0.5),
    ]
    assert scores[0].term is None
    assert scores[2].term is not None
    assert scores[2].term.meaning == "Neoplasm"


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.5, 0.5], "2 values for the 3 classes"),
        ([0.5, 2.0, 0.1], "from 0.1 to 2, which are no probabilities"),
        ([0.5, math.nan, 0.1], "which are no probabilities"),
    ],
)
def test_no_scores(vector: list[float], message: str) -> None:
    with pytest.raises(UnsuitablePredictionError, match=message):
        class_scores(torch.tensor(vector), ORGANS, {})


def test_scores_of_classes_whose_places_are_not_known() -> None:
    with pytest.raises(UnsuitablePredictionError, match="channel_def numbers its entries 0, 1, 3"):
        class_scores(torch.tensor([0.2, 0.2, 0.6]), GAP, {})


CLASSES = {"0": "background", "1": "tumor", "2": "something else"}
IMAGE = MetaTensor(
    torch.rand((1, 40, 40, 20), generator=torch.Generator().manual_seed(1)),
    affine=torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0])),
)


def _classification(root: Path, *steps: dict[str, object]) -> Path:
    config = inference_config(inferer={"_target_": "SimpleInferer"})
    resize = {"_target_": "Resized", "keys": ["image", "label"], "spatial_size": [32, 32, 32]}
    config["preprocessing"]["transforms"][0]["keys"] = ["image", "label"]
    config["preprocessing"]["transforms"].append(resize)
    config["postprocessing"]["transforms"] = list(steps)
    network = {
        "_target_": "DenseNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "init_features": 4,
        "growth_rate": 2,
        "block_config": [1, 1],
    }
    output = {"type": "probabilities", "format": "classes", "num_channels": 3, "spatial_shape": [1, 3]}
    return write_checkpoint_bundle(root, channels=CLASSES, network=network, config=config, output=output)


SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
DECISION = {
    "_target_": "AsDiscreted",
    "keys": ["pred", "label"],
    "argmax": [True, False],
    "to_onehot": 3,
}
ON_DEVICE = {"_target_": "ToTensord", "keys": ["pred", "label"]}


@pytest.mark.parametrize("activation", [SOFTMAX, SIGMOID])
@pytest.mark.parametrize("nested", [False, True])
def test_a_classification_gives_probabilities(
    activation: dict[str, object], nested: bool, tmp_path: Path
) -> None:
    decision = {"_target_": "Compose", "transforms": [DECISION]} if nested else DECISION
    bundle = load_bundle(_classification(tmp_path, activation, decision, ON_DEVICE))
    assert bundle.task is Task.CLASSIFICATION
    warm_up(bundle)
    phases: list[str] = []

    def phase(name: str) -> torch.autograd.profiler.record_function:
        phases.append(name)
        return torch.autograd.profiler.record_function(name)

    scores = bundle.classify(IMAGE.clone(), phase=phase)
    assert phases == ["preprocess", "network", "postprocess"]
    assert [score.label for score in scores] == list(CLASSES.values())
    with torch.no_grad():
        item = bundle.preprocessing({"image": IMAGE.clone()})["image"].as_subclass(torch.Tensor)
        logits = bundle.network(item[None])[0]
    wanted = logits.softmax(0) if activation is SOFTMAX else logits.sigmoid()
    assert [score.probability for score in scores] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_a_classification_without_activation_is_refused(tmp_path: Path) -> None:
    root = _classification(tmp_path, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: 9 * x + 9"})
    with pytest.raises(BundleError, match="postprocessing must apply softmax or sigmoid"):
        warm_up(load_bundle(root))


@pytest.mark.parametrize(
    ("name", "code", "meaning"),
    [
        ("Spleen", "78961009", "Spleen"),
        ("kidney_left", "18639004", "Left kidney"),
        ("Right-Hippocampus", "5366008", "Hippocampus"),
        ("femur_right", "71341001", "Femur"),
        ("rib_left_12", "113197003", "Rib"),
        ("left rib 3", "113197003", "Rib"),
        ("vertebrae_L5", "49668003", "L5 vertebra"),
        ("flux capacitor", "85756007", "Tissue"),
        ("left", "85756007", "Tissue"),
    ],
)
def test_terms(name: str, code: str, meaning: str) -> None:
    term = segment_terms([name])[name]
    assert (term.type.value, term.type.scheme_designator, term.type.meaning) == (code, "SCT", meaning)
    assert all(0 <= value <= 255 for value in term.color)
    assert segment_terms([name])[name] == term


def test_every_code_of_the_table_is_one() -> None:
    """Codes are in pydicom's dictionary of DICOM's context groups, or are sides that SNOMED CT names."""
    known = {code.value for code in codes.SCT.concepts.values()}
    sided = {"44029006", "3341006", "18639004", "9846003"}
    table = tomllib.loads(TERMS_FILE.read_text())
    assert {entry["value"] for entry in table["segments"].values()} <= known | sided
    assert {entry["value"] for entry in table["categories"].values()} <= known
    assert {entry["category"] for entry in table["segments"].values()} <= set(table["categories"])
    assert all(name == name.lower() and "_" not in name for name in table["segments"])
