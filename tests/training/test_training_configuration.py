"""A bundle's training configuration under the platform: overrides, overlays, layouts, loaders, ranks."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from botocore.exceptions import ClientError
from monai.transforms import RandFlipd

from training.configuration.bundle import LIBRARY, Task, named_bundle, read_bundle
from training.configuration.shapes import example_shape
from training.configuration.sources import open_bundle
from training.configuration.training import TrainingConfiguration
from training.errors import BundleError, JobConfigurationError

CT = "ct_segmentation"
MR = "volume_classification"


class Batches:
    """Ready micro-batches, always the same."""

    def __init__(self, *batches: dict[str, torch.Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from self._batches


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A bundle of one's own, to change."""
    return Path(shutil.copytree(LIBRARY / CT, tmp_path / "own"))


def configured(name: str = CT, **options: Any) -> TrainingConfiguration:
    return TrainingConfiguration(named_bundle(name), **options)


def edited(root: Path, file: str, **changes: Any) -> None:
    path = root / "configs" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_override_reaches_the_part_that_it_names() -> None:
    configuration = configured(overrides={"learning_rate": 0.25, "network_def#norm": "instance"})
    assert configuration.part("optimizer").param_groups[0]["lr"] == 0.25
    names = {type(module).__name__ for module in configuration.part("network").modules()}
    assert "InstanceNorm3d" in names
    assert "BatchNorm3d" not in names


def test_an_override_may_give_an_argument_that_the_bundle_leaves_out() -> None:
    configuration = configured(overrides={"network_def#dropout": 0.3})
    assert any(
        isinstance(one, torch.nn.Dropout) and one.p == 0.3 for one in configuration.part("network").modules()
    )


def test_an_override_of_what_a_macro_copies_changes_the_copy_alone() -> None:
    configuration = configured(overrides={"validate#postprocessing#transforms#0#softmax": False})
    softmax = [
        configuration.part(f"{section}#postprocessing").transforms[0].softmax
        for section in ("train", "validate")
    ]
    assert softmax == [(True,), (False,)]


def test_overrides_without_a_place_are_listed_with_what_they_may_mean() -> None:
    with pytest.raises(BundleError) as caught:
        configured(overrides={"learning_rat": 1, "network_def#strids": [2], "run": []})
    for words in ("no learning_rat (is it learning_rate", "network_def#strides", "run is the platform's own"):
        assert words in str(caught.value)


def test_an_override_that_would_not_be_served_is_refused() -> None:
    with pytest.raises(
        BundleError, match=r"train#deterministic_transforms#4#a_min.*inference\.json does not share"
    ):
        configured(overrides={"train#deterministic_transforms#4#a_min": -500})


def test_an_overlay_is_laid_over_the_configuration() -> None:
    assert type(configured(overrides={"overlays": ["segresnet"]}).part("network")).__name__ == "SegResNet"


@pytest.mark.parametrize("name", ["../../etc/passwd", "unet"])
def test_an_overlay_that_the_bundle_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"overlays must name|there is no configs/unet"):
        configured(overrides={"overlays": [name]})


@pytest.mark.parametrize("name", ["multi_gpu_train", "evaluate"])
def test_an_overlay_that_is_a_program_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"{name} is a program of its own"):
        configured(overrides={"overlays": [name]})


@pytest.mark.parametrize(
    "key",
    [
        "train#dataset#cache_rate",
        "train#dataloader#num_workers",
        "train#trainer#max_epochs",
        "validate#dataset#data",
    ],
)
def test_an_override_without_effect_is_refused(key: str) -> None:
    with pytest.raises(BundleError, match=f"{key} is the platform's own"):
        configured(overrides={key: 1})
    assert configured(overrides={"train#dataloader#batch_size": 3}).batch_size == 3


def test_classes_of_an_overlay_and_single_names_are_what_is_trained(copied: Path) -> None:
    edited(copied, "segresnet.json", classes=["background", "liver"])
    by_overlay = TrainingConfiguration(read_bundle(copied), overrides={"overlays": ["segresnet"]})
    assert by_overlay.channels == {"liver": 1}
    assert configured(overrides={"classes#1": "liver"}).channels == {"liver": 1}


def test_classes_change_what_is_trained_and_how_many_outputs_there_are() -> None:
    configuration = configured(MR, overrides={"classes": ["CN", "MCI", "AD"], "image_size": [32, 32, 32]})
    assert configuration.channels == {"CN": 0, "MCI": 1, "AD": 2}
    assert configuration.bundle.outputs == 3
    with torch.no_grad():
        answer = configuration.part("network").eval()(torch.rand(1, 1, 32, 32, 32))
    assert answer.shape == (1, 3)


def test_a_segmentations_class_can_be_renamed() -> None:
    assert configured(overrides={"classes": ["background", "liver"]}).channels == {"liver": 1}


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["background", "liver", "spleen"], "3 names and the network 2 outputs"),
        (["liver", "background"], "channel 0 to background"),
        ("liver", "list of at least two names"),
    ],
)
def test_classes_that_the_network_cannot_give_are_refused(classes: object, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        configured(overrides={"classes": classes})


def test_a_bundle_in_yaml_with_its_engines_at_the_top_is_understood(copied: Path) -> None:
    config = json.loads((copied / "configs" / "train.json").read_text())
    train, validate = config.pop("train"), config.pop("validate")
    text = json.dumps(config | {"_train": 0}).replace("@train#", "@train_").replace("@validate#", "@val_")
    flat = json.loads(text)
    del flat["_train"]
    for prefix, section in (("train", train), ("val", validate)):
        for name, value in section.items():
            moved = json.dumps(value)
            for old, new in (("train#", "train_"), ("validate#", "val_"), ("train_trainer", "trainer")):
                moved = moved.replace(f"@{old}", f"@{new}").replace(f"%{old}", f"%{new}")
            key = {"train_trainer": "trainer", "val_evaluator": "evaluator"}.get(
                f"{prefix}_{name}", f"{prefix}_{name}"
            )
            flat[key] = json.loads(moved.replace("@val_evaluator", "@evaluator"))
    (copied / "configs" / "train.json").unlink()
    (copied / "configs" / "train.yaml").write_text(yaml.safe_dump(flat))
    configuration = TrainingConfiguration(read_bundle(copied), max_steps=1)
    assert configuration.key_metric_name == "val_mean_dice"
    assert len(configuration.preprocessing("validate").transforms) == 5
    assert isinstance(configuration.part("network"), torch.nn.Module)


def test_a_trainer_of_the_bundles_own_is_refused(copied: Path) -> None:
    train = json.loads((copied / "configs" / "train.json").read_text())
    train["train"]["trainer"]["_target_"] = "scripts.trainer.DetectionTrainer"
    edited(copied, "train.json", **train)
    with pytest.raises(BundleError, match="DetectionTrainer; the platform drives MONAI's SupervisedTrainer"):
        TrainingConfiguration(read_bundle(copied))


def test_a_bundle_without_validation_trains_without(copied: Path) -> None:
    train = json.loads((copied / "configs" / "train.json").read_text())
    del train["validate"]
    train["train"]["handlers"] = []
    (copied / "configs" / "train.json").write_text(json.dumps(train))
    configuration = TrainingConfiguration(read_bundle(copied), max_steps=1)
    assert not configuration.validates
    assert configuration.preprocessing("train").transforms
    with pytest.raises(BundleError, match="has no evaluator"):
        configuration.preprocessing("validate")


def test_a_bundles_own_code_is_found_and_kept_apart_from_anothers(copied: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    for root, number in ((copied, 1), (other, 2)):
        (root / "scripts").mkdir()
        (root / "scripts" / "__init__.py").touch()
        (root / "scripts" / "answer.py").write_text(f"def number() -> int:\n    return {number}\n")
        edited(root, "train.json", answer={"_target_": "scripts.answer.number"})
    first, second = (TrainingConfiguration(read_bundle(root)) for root in (copied, other))
    assert [first.part("answer"), second.part("answer")] == [1, 2]
    assert first.preparation_fingerprint("train") != second.preparation_fingerprint("train")


def test_the_fingerprint_follows_the_deterministic_transforms_and_nothing_else() -> None:
    def fingerprint(**overrides: Any) -> str:
        return configured(
            overrides={key.replace("__", "#"): one for key, one in overrides.items()}
        ).preparation_fingerprint("train")

    plain = fingerprint()
    assert fingerprint(learning_rate=1.0) == plain
    assert fingerprint(train__random_transforms__3__prob=0.0) == plain
    assert fingerprint(patch_size=[32, 32, 32]) != plain, "the padding refers to it"
    configuration = configured()
    assert isinstance(configuration.preprocessing("train").transforms[-6], RandFlipd)
    assert configuration.preparation_fingerprint("train") == plain, "built or not"


def changed_chain(root: Path, chain: Any, **options: Any) -> TrainingConfiguration:
    """The bundle with another chain for its training cases."""
    train = json.loads((root / "configs" / "train.json").read_text())
    train["train"]["preprocessing"] = {"_target_": "Compose", "transforms": chain, **options}
    edited(root, "train.json", **train)
    return TrainingConfiguration(read_bundle(root))


def test_a_chain_within_a_chain_is_part_of_the_fingerprint(copied: Path) -> None:
    def fingerprint(pixdim: float) -> str:
        spaced = {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [pixdim] * 3}
        inner = {"_target_": "Compose", "transforms": [spaced]}
        return changed_chain(
            copied, [inner, {"_target_": "RandFlipd", "keys": "image"}]
        ).preparation_fingerprint("train")

    assert fingerprint(2.0) != fingerprint(4.0), "the inner chain is applied before an item is kept"
    assert fingerprint(2.0) == fingerprint(2.0)


def test_what_follows_a_random_transform_that_is_switched_off_is_part_of_the_fingerprint(
    copied: Path,
) -> None:
    def fingerprint(pixdim: float) -> str:
        chain = [
            {"_target_": "RandFlipd", "keys": "image", "_disabled_": True},
            {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [pixdim] * 3},
        ]
        configuration = changed_chain(copied, chain)
        assert len(configuration.preprocessing("train").transforms) == 1
        return configuration.preparation_fingerprint("train")

    assert fingerprint(2.0) != fingerprint(4.0)


def test_how_a_chain_is_run_is_part_of_the_fingerprint(copied: Path) -> None:
    chain = [{"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [2.0] * 3}]
    eager = changed_chain(copied, chain).preparation_fingerprint("train")
    assert changed_chain(copied, chain, lazy=True).preparation_fingerprint("train") != eager


def test_steps_come_from_the_job_or_its_epochs_or_the_bundle(copied: Path) -> None:
    assert configured().max_steps == 140
    assert configured(max_steps=7).max_steps == 7
    by_epochs = configured(max_epochs=3)
    by_epochs.bring_loaders(training=Batches(), validation=None, steps_per_epoch=5)
    assert by_epochs.max_steps == 15
    assert by_epochs.part("lr_scheduler").total_steps == 15
    train = json.loads((copied / "configs" / "train.json").read_text())
    del train["max_steps"]
    train["lr_scheduler"]["total_steps"] = "$5 * @train#trainer#max_epochs"
    train["train"]["trainer"]["max_epochs"] = 4
    (copied / "configs" / "train.json").write_text(json.dumps(train))
    own = TrainingConfiguration(read_bundle(copied))
    own.bring_loaders(training=Batches(), validation=None, steps_per_epoch=5)
    assert own.max_steps == 20
    with pytest.raises(JobConfigurationError, match="not both"):
        configured(max_steps=1, max_epochs=1)


def test_mixed_precision_on_demand_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(JobConfigurationError, match="has no GPU"):
        configured(amp="on")
    with pytest.raises(JobConfigurationError, match="not 'auto', 'on' or 'off'"):
        configured(amp="yes")


def test_two_micro_batches_make_the_step_of_one_batch_of_both() -> None:
    """Gradients are added up before the optimizer moves, and the schedule counts optimizer steps."""
    random = torch.Generator().manual_seed(1)
    items = [
        {
            "image": torch.rand((1, 1, 32, 32, 32), generator=random),
            "label": torch.randint(0, 2, (1, 1, 32, 32, 32), generator=random),
        }
        for _ in range(2)
    ]
    both = {name: torch.cat([item[name] for item in items]) for name in items[0]}
    weights, rates = [], []
    # Normalisation over the batch would see other batches.
    overrides = {
        "network_def#norm": "instance",
        "loss#batch": False,
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
    }
    for batches, accumulate in (([both], 1), (items, 2)):
        torch.manual_seed(3)
        configuration = configured(max_steps=3, accumulate=accumulate, overrides=overrides)
        configuration.bring_loaders(training=Batches(*batches), validation=None, steps_per_epoch=3)
        network = configuration.part("network")
        configuration.part("trainer").run()
        weights.append([one.detach().clone() for one in network.parameters()])
        rates.append(configuration.part("lr_scheduler").get_last_lr())
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert rates[0] == rates[1]


def test_a_schedule_that_is_referred_to_counts_optimizer_steps_too(copied: Path) -> None:
    train = json.loads((copied / "configs" / "train.json").read_text())
    handlers = train["train"]["handlers"]
    train["by_steps"] = handlers[1]
    handlers[1] = "@by_steps"
    edited(copied, "train.json", **train)
    configuration = TrainingConfiguration(read_bundle(copied), max_steps=3, accumulate=2)
    configuration.bring_loaders(training=Batches(), validation=None, steps_per_epoch=3)
    assert type(configuration.part("by_steps")).__name__ == "OptimizerStepSchedule"


def test_the_key_metric_can_be_exchanged_for_another_of_the_bundle() -> None:
    configuration = configured(MR)
    configuration.use_metric("val_accuracy")
    assert configuration.key_metric_name == "val_accuracy"
    with pytest.raises(BundleError, match="no metric val_dice"):
        configured(MR).use_metric("val_dice")


def test_evaluators_use_the_bare_network_of_a_distributed_training() -> None:
    configuration = configured()
    configuration.distribute(rank=1, world_size=2, device=torch.device("cpu"))
    raw = configuration._parser
    assert raw["network"]["_target_"].endswith("DistributedDataParallel")
    assert raw["train#trainer#network"] == "@network"
    assert isinstance(configuration.part("validate#evaluator#network"), torch.nn.Module)
    assert type(configuration.part("validate#evaluator#network")).__name__ == "UNet"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [([96, 96, 48], (96, 96, 48)), (["16*n", "2**p*n", "*"], (64, 64, 64)), (["32*n+1"], (65,))],
)
def test_sizes_that_metadata_describe_have_an_example(
    given: list[int | str], wanted: tuple[int, ...]
) -> None:
    assert example_shape(given) == wanted


@pytest.mark.parametrize("entry", ["__import__('os')", "m*2", "0*n", None])
def test_what_is_no_size_is_refused(entry: Any) -> None:
    with pytest.raises(ValueError, match="is no size"):
        example_shape([entry])


class OneObject:
    """S3 with one object."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def download_file(self, bucket: str, key: str, file: str) -> None:
        if bucket != "models":
            raise ClientError({"Error": {"Code": "404", "Message": ""}}, "HeadObject")
        Path(file).write_bytes(self._content)


def packed(root: Path, *, below: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for entry in sorted(root.iterdir()):
            tar.add(entry, arcname=f"{below}{entry.name}")
    return buffer.getvalue()


@pytest.mark.parametrize("below", ["", "my_bundle/"])
def test_a_bundle_comes_from_an_archive_whose_name_holds_its_hash(tmp_path: Path, below: str) -> None:
    content = packed(LIBRARY / MR, below=below)
    reference = f"s3://models/bundles/mine-{hashlib.sha256(content).hexdigest()}.tar.gz"
    bundle = open_bundle(reference, scratch=tmp_path, s3=lambda: OneObject(content))
    assert bundle.task is Task.CLASSIFICATION
    assert bundle.digest() == named_bundle(MR).digest()
    assert open_bundle(MR, scratch=tmp_path, s3=lambda: None).name == MR


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("s3://models/mine.tar.gz", "SHA-256 must be in its name"),
        (f"s3://models/mine-{'0' * 64}.tar.gz", "is not the archive that its name promises"),
        (f"s3://other/mine-{'0' * 64}.tar.gz", "cannot be fetched: 404"),
    ],
)
def test_an_archive_that_is_not_what_it_says_is_refused(tmp_path: Path, reference: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        open_bundle(reference, scratch=tmp_path, s3=lambda: OneObject(b"other"))


def test_a_damaged_archive_and_one_without_a_bundle_are_refused(tmp_path: Path) -> None:
    for number, (content, reason) in enumerate(
        [(b"no archive", "cannot be unpacked"), (packed(LIBRARY / MR / "configs"), "holds 0")]
    ):
        reference = f"s3://models/mine-{hashlib.sha256(content).hexdigest()}.tar.gz"
        scratch = tmp_path / str(number)
        scratch.mkdir()
        with pytest.raises(BundleError, match=reason):
            open_bundle(reference, scratch=scratch, s3=partial(OneObject, content))


def test_a_bundle_whose_code_has_a_folder_of_configs_is_found(tmp_path: Path) -> None:
    root = Path(shutil.copytree(LIBRARY / MR, tmp_path / "own"))
    (root / "scripts" / "configs").mkdir(parents=True)
    (root / "scripts" / "configs" / "more.json").write_text("{}")
    shutil.copytree(root / "configs", root / "others" / "configs")
    content = packed(root)
    reference = f"s3://models/mine-{hashlib.sha256(content).hexdigest()}.tar.gz"
    assert open_bundle(reference, scratch=tmp_path, s3=lambda: OneObject(content)).name == MR


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    content = packed(tmp_path / "nothing")
    reference = f"s3://models/mine-{hashlib.sha256(content).hexdigest()}.tar.gz"
    with pytest.raises(BundleError, match="holds 0"):
        open_bundle(reference, scratch=tmp_path, s3=lambda: OneObject(content))


def test_a_network_for_images_needs_transforms_that_make_images_of_volumes(copied: Path) -> None:
    metadata = json.loads((copied / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [64, 64]
    edited(copied, "metadata.json", **metadata)
    with pytest.raises(BundleError, match="looks at two-dimensional images"):
        TrainingConfiguration(read_bundle(copied))
    train = json.loads((copied / "configs" / "train.json").read_text())
    train["train"]["random_transforms"].append({"_target_": "SqueezeDimd", "keys": "image", "dim": -1})
    edited(copied, "train.json", **train)
    assert TrainingConfiguration(read_bundle(copied)).preprocessing("train").transforms
