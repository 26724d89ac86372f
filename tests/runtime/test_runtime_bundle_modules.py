"""Two bundles whose ``scripts`` have the same names live in one process."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from synthetic_bundle import inference_config, write_checkpoint_bundle

from runtime.bundles.bundle import load_bundle
from runtime.bundles.files import read_bundle_files
from runtime.bundles.modules import BundleModules
from runtime.errors import BundleError

NETWORK = """
import torch

import scripts.constants


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 1)

    def forward(self, x):
        from scripts import late

        logits = torch.zeros((x.shape[0], 2, *x.shape[2:]))
        logits[:, late.chosen()] = 1
        return logits + 0 * self.conv(x)
"""


def _write(root: Path, answer: int) -> Path:
    scripts = root / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "__init__.py").write_text("")
    (scripts / "constants.py").write_text(f"ANSWER = {answer}\n")
    (scripts / "late.py").write_text("from .constants import ANSWER\n\n\ndef chosen():\n    return ANSWER\n")
    (scripts / "net.py").write_text(NETWORK)
    with BundleModules(root).importable():
        write_checkpoint_bundle(
            root, channels={"0": "background", "1": "lung"}, network={"_target_": "scripts.net.Net"}
        )
    return root


def test_each_bundle_finds_its_own_scripts(tmp_path: Path) -> None:
    bundles = [load_bundle(_write(tmp_path / str(answer), answer)) for answer in (0, 1)]
    image = MetaTensor(torch.rand((1, 32, 32, 16)), affine=torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0])))
    found: dict[int, float] = {}

    def use(answer: int) -> None:
        # The network imports when it runs, and in two threads at once.
        found[answer] = float(bundles[answer].predict(image.clone()).mean())

    threads = [threading.Thread(target=use, args=(answer,)) for answer in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: 0.0, 1: 1.0}
    assert not [name for name in sys.modules if name.partition(".")[0] == "scripts"]
    assert not list(tmp_path.rglob("__pycache__")), "the model directory is left as it was"


def test_scripts_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    root = _write(tmp_path, 0)
    before = read_bundle_files(root).fingerprint
    (root / "scripts" / "__pycache__").mkdir()
    (root / "scripts" / "__pycache__" / "net.pyc").write_bytes(b"compiled")
    assert read_bundle_files(root).fingerprint == before
    (root / "scripts" / "constants.py").write_text("ANSWER = 1\n")
    assert read_bundle_files(root).fingerprint != before


def test_what_was_importable_before_is_so_again(tmp_path: Path) -> None:
    (tmp_path / "synthetic_bundle.py").write_text("OWN = True\n")
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    here = sys.modules["synthetic_bundle"]
    modules = BundleModules(tmp_path)
    assert modules.names == {"synthetic_bundle"}, "the standard library is nobody's own"
    for _ in range(2):
        with modules.importable(), modules.importable():
            import synthetic_bundle

            assert synthetic_bundle.OWN  # type: ignore[attr-defined]  # the bundle's
    assert sys.modules["synthetic_bundle"] is here


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    root = _write(tmp_path, 0)
    net = root / "scripts" / "net.py"
    net.write_text("import a_package_that_nobody_has\n" + NETWORK)
    with pytest.raises(BundleError, match="'a_package_that_nobody_has' is not installed"):
        load_bundle(root)


def test_expressions_may_use_the_bundles_modules(tmp_path: Path) -> None:
    root = _write(tmp_path, 1)
    config = inference_config(imports=["$from scripts.late import chosen"], label="$chosen()")
    config["postprocessing"]["transforms"][2] = {
        "_target_": "Lambdad",
        "keys": "pred",
        "func": "$lambda x: 0 * x[:1] + @label",
    }
    with BundleModules(root).importable():
        write_checkpoint_bundle(
            root,
            channels={"0": "background", "1": "lung"},
            network={"_target_": "scripts.net.Net"},
            config=config,
        )
    image = MetaTensor(torch.rand((1, 32, 32, 16)), affine=torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0])))
    assert load_bundle(root).predict(image).unique().tolist() == [1.0]
