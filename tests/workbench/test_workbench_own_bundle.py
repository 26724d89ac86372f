"""A bundle of one's own as an archive: the same for the same files, without weights, and nothing from
outside of its folder.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from workbench.errors import BundleUnusable
from workbench.training import own_bundle
from workbench.training.own_bundle import pack_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "my_bundle"
    files = {
        "configs/metadata.json": '{"version": "1"}',
        "configs/train.json": "{}",
        "scripts/net.py": "x = 1",
        "scripts/__pycache__/net.pyc": "cache",
        "models/model.pt": "weights",
        ".git/config": "hidden",
        "docs/README.md": "text",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_it_holds_what_is_trained_from_and_no_weights(bundle: Path) -> None:
    packed = pack_bundle(bundle)
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        assert archive.getnames() == [
            "my_bundle/configs/metadata.json",
            "my_bundle/configs/train.json",
            "my_bundle/docs/README.md",
            "my_bundle/scripts/net.py",
        ]
        entry = archive.getmember("my_bundle/scripts/net.py")
        assert (entry.mtime, entry.uid, entry.uname, entry.mode) == (0, 0, "", 0o644)
        stored = archive.extractfile(entry)
        assert stored is not None
        assert stored.read() == b"x = 1"


def test_the_name_is_of_the_content_alone(bundle: Path, tmp_path: Path) -> None:
    first = pack_bundle(bundle)
    for file in bundle.rglob("*"):
        os.utime(file, (1, 1))
    (bundle / "scripts" / "net.py").chmod(0o600)
    (bundle / "models" / "model.pt").write_text("other weights")
    assert pack_bundle(bundle) == first
    assert first.file_name.startswith("my_bundle-")
    (bundle / "scripts" / "net.py").write_text("x = 2")
    assert pack_bundle(bundle).file_name != first.file_name


def test_what_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bad bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{")
    (folder / "secret").symlink_to("/etc/passwd")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "data.bin").write_bytes(b"x" * 100)
    monkeypatch.setattr(own_bundle, "LARGEST_BYTES", 50)
    with pytest.raises(BundleUnusable) as caught:
        pack_bundle(folder)
    for words in (
        "other characters",
        "configs/train.json is missing",
        "not JSON",
        "secret is a link to outside",
        "gone is a link to nowhere",
        "MB",
    ):
        assert words in caught.value.message
    assert "init_bundle" in caught.value.advice


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleUnusable, match="not a folder"):
        pack_bundle(tmp_path / "nothing")
