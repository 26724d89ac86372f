"""The connector as a distribution of its own: what it declares is what it contains and all that it needs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from cloud_archive import Archive
from oblique_series import ct_series
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "healthimaging"
PROJECT: dict[str, Any] = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]

EXTRAS = {"segmentation": {"segmentation"}, "monai": {"monai", "monai_reader"}}
"""Modules that need more than the connector declares for everyone, by the extra that brings it."""

MODULES = {".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")}
OPTIONAL = set().union(*EXTRAS.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the folder beside nothing else of the repository, without a network."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "repository" / "healthimaging"
    shutil.copytree(FOLDER, source, ignore=shutil.ignore_patterns("__pycache__"))
    before = {path.name for path in source.iterdir()}
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(work), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Bundles of functions and images copy this folder.
    assert {path.name for path in source.iterdir()} == before
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`sys.path` of an environment that holds the wheel and what it declares, directly and indirectly."""
    installed = tmp_path_factory.mktemp("site-packages")
    waiting, done = [Requirement(line) for line in PROJECT["dependencies"]], set()
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in done:
            continue
        done.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            (installed / top).symlink_to(Path(str(found.locate_file(top))))
        needed = (Requirement(line) for line in found.requires or [])
        waiting += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert not done & {"aws-cdk-lib", "torch", "monai", "highdicom", "fastapi", "ministack"}
    return [str(wheel), str(installed)]


def run(path: list[str], program: str, **environment: str) -> Any:
    """What a program prints, as JSON; it sees the standard library and `path`."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {path!r}\n{program}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_holds_the_modules_and_the_mark_of_a_typed_package(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {f"healthimaging/{path.relative_to(FOLDER).as_posix()}" for path in FOLDER.rglob("*.py")}
    assert names == modules | {"healthimaging/py.typed"}


def test_the_wheel_declares_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    declared = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    for_all = {str(Requirement(line)) for line in PROJECT["dependencies"]}
    assert {str(one) for one in declared if one.marker is None} == for_all
    for extra, lines in PROJECT["optional-dependencies"].items():
        with_it = {one.name for one in declared if one.marker and one.marker.evaluate({"extra": extra})}
        assert with_it == {Requirement(line).name for line in lines}
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)


def test_the_repository_offers_the_same_as_an_extra() -> None:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert root["project"]["optional-dependencies"]["healthimaging"] == PROJECT["dependencies"]
    assert root["project"].get("dependencies", []) == []
    assert root["project"]["requires-python"] == PROJECT["requires-python"]
    assert root["tool"]["setuptools"]["package-data"]["healthimaging"] == ["py.typed"]


@pytest.mark.parametrize("lock", ["requirements.txt", "tests/requirements-models.txt"])
def test_what_the_tests_run_with_is_within_the_declared_ranges(lock: str) -> None:
    pins = {
        canonicalize_name(one.name): next(iter(one.specifier)).version
        for one in (
            Requirement(line) for line in (ROOT / lock).read_text().splitlines() if line[:1].isalpha()
        )
    }
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + extras["segmentation"]
    if "torch" in pins:
        lines += extras["monai"]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


DISTRIBUTIONS = cache(packages_distributions)  # reads the metadata of all that is installed


def third_party_imports(module: str) -> set[str]:
    tree = ast.parse((FOLDER / (module.replace(".", "/") + ".py")).read_text())
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    return roots - {"healthimaging", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_is_declared(module: str) -> None:
    lines = list(PROJECT["dependencies"])
    for extra, modules in EXTRAS.items():
        lines += PROJECT["optional-dependencies"][extra] if module in modules else []
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    # botocore is what boto3 consists of.
    declared |= {"botocore"} if "boto3" in declared else set()
    brings = DISTRIBUTIONS()
    for root in third_party_imports(module):
        assert {canonicalize_name(name) for name in brings.get(root, [root])} & declared, root


def test_nothing_is_declared_that_is_not_imported() -> None:
    used = set().union(*map(third_party_imports, MODULES - OPTIONAL))
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == used - {"botocore"}


def test_every_module_imports_without_what_is_optional(alone: list[str]) -> None:
    program = f"""
import importlib, importlib.util, json
for name in {sorted(MODULES - OPTIONAL)!r}:
    importlib.import_module("healthimaging" if name == "__init__" else "healthimaging." + name)
others = ["aws_cdk", "torch", "monai", "highdicom", "infra", "local", "runtime", "training", "workbench"]
print(json.dumps([name for name in others if importlib.util.find_spec(name)]))
"""
    assert run(alone, program) == []


def test_an_optional_module_says_what_it_misses(alone: list[str]) -> None:
    program = """
import json, healthimaging
try:
    healthimaging.write_segmentation
except ModuleNotFoundError as error:
    print(json.dumps(error.name))
"""
    assert run(alone, program) == "highdicom"


def test_it_reads_an_image_set_alone(alone: list[str], cloud: Any) -> None:
    source, hu = ct_series(slices=5)
    opened = Archive.create(cloud).image_set(source)
    program = f"""
import json, healthimaging
client = healthimaging.connect(endpoint_url={cloud.endpoint_url!r})
found = healthimaging.ImageSet.open(client, {opened.ref.datastore_id!r}, {opened.ref.image_set_id!r})
(volume,) = found.volumes()
print(json.dumps([volume.array.tolist(), [d.SOPInstanceUID for d in found.datasets()]]))
"""
    array, uids = run(alone, program, **cloud.environment)
    assert array == hu.tolist()
    assert sorted(uids) == sorted(dataset.SOPInstanceUID for dataset in source)
