"""What is in the built images, and what is not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from container_under_test import ImageUnderTest
from packaging.utils import canonicalize_name

from local.containers.buildah import stand_in, tool

PACKAGES = ("runtime", "training", "arrival")
LIMIT_MB = {"runtime": 2300, "training": 1800, "arrival": 350}
"""Of the image with the stand-in (about 1.06 GB, the receiver's 0.18 GB): a package that brings CUDA would
be noticed.
"""


@pytest.fixture(scope="module", params=PACKAGES)
def built(
    request: pytest.FixtureRequest,
    runtime_image: ImageUnderTest,
    training_image: ImageUnderTest,
    arrival_image: ImageUnderTest,
) -> Iterator[tuple[str, ImageUnderTest, Path]]:
    """Each package with its image and the image's files."""
    image = {"runtime": runtime_image, "training": training_image, "arrival": arrival_image}[request.param]
    with tool.root_folder(image.container) as root:
        yield request.param, image, root


def _pins(*files: Path) -> dict[str, str]:
    lines = "\n".join(file.read_text() for file in files)
    return {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", lines, re.M)
    }


def _check_packages(package: str, image: ImageUnderTest, found: dict[str, str]) -> None:
    """All that is locked is there in its version; on the stand-in nothing else but pip and setuptools."""
    found = {canonicalize_name(name): version.partition("+")[0] for name, version in found.items()}
    folder = REPOSITORY / package
    pins = _pins(folder / "requirements.txt", folder / "requirements-base.txt")
    assert {name: found.get(name) for name in pins} == pins
    if stand_in.LABEL in image.config["Labels"]:
        assert set(found) - set(pins) <= {"pip", "setuptools"}


def test_the_packages_are_those_of_the_lock_file(built: tuple[str, ImageUnderTest, Path]) -> None:
    package, image, _ = built
    listing = json.loads(image.run("python", "-m", "pip", "list", "--format", "json"))
    _check_packages(package, image, {one["name"]: one["version"] for one in listing})
    assert image.run("python", "-m", "pip", "check") == "No broken requirements found."


def test_the_bill_of_materials_is_of_this_image(built: tuple[str, ImageUnderTest, Path]) -> None:
    package, image, _ = built
    summary = json.loads((REPOSITORY / "build" / "images" / "summary.json").read_text())
    (row,) = [one for one in summary["images"] if one["name"].endswith(f"/{package}")]
    found = tool.image(image.name)
    assert found is not None
    assert row["id"] == found["id"], "make images has not been run since"
    assert row["bytes"] / 1e6 < LIMIT_MB[package]
    bill = json.loads((REPOSITORY / "build" / "sbom" / f"image-{package}.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    _check_packages(package, image, {one["name"]: one["version"] for one in bill["components"]})


def test_there_is_no_compiler_and_no_cache(built: tuple[str, ImageUnderTest, Path]) -> None:
    _, _, root = built
    programs = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin")
        for path in (root / folder).iterdir()
    }
    assert not programs & {"gcc", "cc", "g++", "c++", "clang", "ld", "make", "nvcc", "cargo"}
    assert not (root / "root" / ".cache").exists()
    assert not list((root / "tmp").glob("pip-*"))
    assert not list((root / "var" / "lib" / "apt" / "lists").iterdir())


def test_the_program_is_the_package_and_the_connector(built: tuple[str, ImageUnderTest, Path]) -> None:
    package, _, root = built
    program = root / "opt" / "program"
    assert {path.name for path in program.iterdir()} == {package, "healthimaging"}
    names = {path.relative_to(program).as_posix() for path in program.rglob("*")}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".md"))]
    assert not [name for name in names if name.startswith("runtime/functions")]


def test_nothing_of_the_machine_that_built_it_is_in_it(built: tuple[str, ImageUnderTest, Path]) -> None:
    """Its pip configuration was mounted; the mount points that are left are empty."""
    _, image, root = built
    left = [
        path for path in (root / "etc/pip.conf", *(root / "run/machine-pip").rglob("*")) if path.is_file()
    ]
    assert not [path for path in left if path.stat().st_size]
    assert not [line for line in image.config.get("Env", ()) if line.startswith("PIP_")]


def test_it_can_be_called(built: tuple[str, ImageUnderTest, Path]) -> None:
    package, image, _ = built
    assert image.config["Entrypoint"] == ["python", "-m", package]
    assert image.config["WorkingDir"] == "/opt/program"
    # SageMaker expects root, and a container without a default argument. ECS says both of the receiver's.
    assert (image.config.get("User", ""), image.config.get("Cmd")) == ("", None)
    labels = image.config["Labels"]
    capabilities = {name: value for name, value in labels.items() if "sagemaker.capabilities" in name}
    offered = ("accept-bind-to-port", "multi-models") if package == "runtime" else ()
    assert capabilities == {f"com.amazonaws.sagemaker.capabilities.{name}": "true" for name in offered}


def test_nothing_outside_is_reached(runtime_image: ImageUnderTest) -> None:
    """The premise of every test here, from inside a container."""
    attempt = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 443)))"
    unreachable = "101"  # ENETUNREACH
    assert runtime_image.run("python", "-c", attempt) == unreachable
