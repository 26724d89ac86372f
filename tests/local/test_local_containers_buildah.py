"""The buildah front, as far as it can be tested where buildah is not: what it takes from this machine."""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path

import pytest

from local.containers.buildah import debian, report, tool
from local.containers.buildah.__main__ import base_of
from local.containers.buildah.pip_settings import write_settings
from local.containers.errors import BuildError, ContainerError

ROOT = Path(__file__).resolve().parents[2]


def test_what_pip_is_configured_with_is_mounted_where_the_build_finds_it(tmp_path: Path) -> None:
    index, wheels, certificate = tmp_path / "index" / "simple", tmp_path / "wheels", tmp_path / "ca.crt"
    index.mkdir(parents=True)
    wheels.mkdir()
    certificate.touch()
    settings = {
        "global.extra-index-url": f"file://{index} https://example.com/simple",
        "global.find-links": str(wheels),
        "global.cert": str(certificate),
        "global.editor": "vi",
        "install.prefer-binary": "true",
    }
    file = tmp_path / "made" / "pip.conf"
    mounts = {mount.source: mount.target for mount in write_settings(settings, file)}
    assert mounts.pop(file) == "/etc/pip.conf"
    # The folder beside the index too: its pages link there.
    assert set(mounts) == {index.parent, wheels, certificate}
    document = configparser.RawConfigParser()
    document.read(file)
    assert document["global"]["extra-index-url"].split() == [
        f"file://{mounts[index.parent]}/simple",
        "https://example.com/simple",
    ]
    assert document["global"]["find-links"] == mounts[wheels]
    assert document["global"]["cert"] == mounts[certificate]
    assert "editor" not in document["global"]
    assert document["install"]["prefer-binary"] == "true"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "sources.list",
            "# deb http://no.example/debian old\ndeb http://a.example/debian bookworm main\n",
        ),
        ("debian.sources", "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm\nComponents: main\n"),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "other.list").write_text("deb http://b.example/debian-security bookworm-security main\n")
    (tmp_path / name).write_text(text)
    assert debian.mirror({}, [tmp_path]) == "http://a.example/debian"
    assert debian.mirror({"DEBIAN_MIRROR": "http://c.example/d"}, [tmp_path]) == "http://c.example/d"
    with pytest.raises(ContainerError, match="DEBIAN_MIRROR"):
        debian.mirror({}, [tmp_path / "other.list", tmp_path / "gone"])


def test_both_dockerfiles_build_on_one_base(tmp_path: Path) -> None:
    bases = {base_of(ROOT / package / "Dockerfile", {}) for package in ("runtime", "training")}
    assert len(bases) == 1
    assert base_of(ROOT / "runtime" / "Dockerfile", {"BASE_IMAGE": "mine:1"}) == "mine:1"
    empty = tmp_path / "Dockerfile"
    empty.write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
    with pytest.raises(BuildError, match="FROM"):
        base_of(empty, {})


def test_what_the_base_image_brings_is_in_no_lock_file() -> None:
    """One release of torch, the tests' too; everything else has hashes."""
    (torch,) = {
        line
        for package in ("runtime", "training")
        for line in (ROOT / package / "requirements-base.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert torch in (ROOT / "tests" / "requirements-models.txt").read_text().splitlines()
    for package in ("runtime", "training"):
        blocks = (ROOT / package / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
        pins = [line for line in blocks if line[:1].isalnum()]
        assert pins
        assert [line for line in pins if "--hash=sha256:" not in line] == []
        assert not [line for line in pins if line.startswith("torch==")]


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    assert report.size_of(tmp_path) == 1000


def test_a_bill_lists_what_is_installed_in_a_folder(tmp_path: Path) -> None:
    info = tmp_path / "demo-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.2\nLicense: MIT\n")
    report.write_bill([str(tmp_path)], tmp_path / "bill.json")
    bill = json.loads((tmp_path / "bill.json").read_text())
    assert [(one["name"], one["version"]) for one in bill["components"]] == [("demo", "1.2")]


def test_a_machine_without_buildah_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tool.BuildahMissingError, match="apt-get install"):
        tool.require("buildah", "debootstrap")
