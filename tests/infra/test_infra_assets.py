"""Assets: a function's package is complete, an image's context is only its own, and both are the same
everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infra_assembly import Assembly

from infra.environment import load_environment
from infra.repository import ROOT

LAMBDA_LIMIT = 250 * 2**20
"""Bytes of an unpacked function and its layers."""

IN_EVERY_LAMBDA = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
"""What the Python runtimes of Lambda bring: boto3 with what it needs."""


@pytest.fixture(scope="module")
def function_asset(synthesize: Callable[[str], Assembly]) -> Path:
    assembly = synthesize("dev")
    key = assembly.only("AWS::Lambda::Function")["Properties"]["Code"]["S3Key"]
    return assembly.folder / f"asset.{key.removesuffix('.zip')}"


def test_the_function_runs_with_its_package_and_boto3_alone(
    synthesize: Callable[[str], Assembly], function_asset: Path, tmp_path: Path
) -> None:
    function = synthesize("dev").only("AWS::Lambda::Function")["Properties"]
    assert function["Runtime"] == f"python{sys.version_info.major}.{sys.version_info.minor}"
    module, _, name = function["Handler"].rpartition(".")
    provided = tmp_path / "provided"
    provided.mkdir()
    for package in IN_EVERY_LAMBDA:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (provided / source.name).symlink_to(source)
    program = f"""
import importlib, json, sys
sys.path[:0] = [{str(function_asset)!r}, {str(provided)!r}]
handler = getattr(importlib.import_module({module!r}), {name!r})
print(json.dumps(handler({{"Records": []}}, None)))
"""
    settings = {"CATALOG_BUCKET": "catalog", "AWS_DEFAULT_REGION": "us-east-1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        env=settings,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"batchItemFailures": []}
    assert set(function["Environment"]["Variables"]) <= set(settings)


def test_the_function_fits_into_lambda(function_asset: Path) -> None:
    size = sum(path.stat().st_size for path in function_asset.rglob("*") if path.is_file())
    assert size < 0.6 * LAMBDA_LIMIT


def test_compiled_parts_of_the_function_run_on_its_system(function_asset: Path) -> None:
    tags = [
        line.removeprefix("Tag: ")
        for wheel in function_asset.glob("*.dist-info/WHEEL")
        for line in wheel.read_text().splitlines()
        if line.startswith("Tag: ") and not line.endswith("-any")
    ]
    # Python 3.11 functions run on Amazon Linux 2 with glibc 2.26.
    assert tags
    assert {tag.rpartition("-")[2] for tag in tags} <= {"manylinux2014_x86_64", "manylinux_2_17_x86_64"}


def image_sources(assembly: Assembly, environment: str) -> list[dict[str, Any]]:
    """What the CDK will build, from the asset manifest of the training stack."""
    (path,) = (assembly.folder / f"assembly-{environment}").glob(f"{environment}training*.assets.json")
    return [entry["source"] for entry in json.loads(path.read_text())["dockerImages"].values()]


@pytest.mark.parametrize("package", ["training", "runtime"])
def test_an_image_holds_its_package_and_the_connector(
    synthesize: Callable[[str], Assembly], package: str
) -> None:
    assembly = synthesize("dev")
    (image,) = [
        source for source in image_sources(assembly, "dev") if source["dockerFile"] == f"{package}/Dockerfile"
    ]
    context = (assembly.folder / "assembly-dev" / image["directory"]).resolve()
    assert {path.name for path in context.iterdir()} == {"healthimaging", package}
    files = [path.relative_to(context) for path in context.rglob("*")]
    assert not [path for path in files if "__pycache__" in path.parts or path.suffix == ".pyc"]
    assert not [path for path in files if path.parts[:2] == ("runtime", "functions")]
    assert Path(package, "Dockerfile") in files
    assert Path(package, "requirements.txt") in files


def test_images_build_on_what_the_environment_says(synthesize: Callable[[str], Assembly]) -> None:
    for environment in ("local", "dev"):
        wanted = load_environment(environment).images
        built = {
            source["dockerFile"].split("/")[0]: source.get("dockerBuildArgs", {}).get("BASE_IMAGE")
            for source in image_sources(synthesize(environment), environment)
        }
        assert built == {"training": wanted.training_base, "runtime": wanted.inference_base}
    for package in built:
        assert "ARG BASE_IMAGE=" in (ROOT / package / "Dockerfile").read_text(encoding="utf-8")


def test_functions_are_the_same_in_every_environment(synthesize: Callable[[str], Assembly]) -> None:
    keys = {
        synthesize(environment).only("AWS::Lambda::Function")["Properties"]["Code"]["S3Key"]
        for environment in ("local", "dev")
    }
    assert len(keys) == 1


def test_a_functions_hash_is_of_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.assets import function_code

    def digest(root: Path) -> str:
        monkeypatch.setattr(function_code, "ROOT", root)
        return function_code._FunctionPackage(folder="runtime/index", packages=("connector",)).digest()

    for name in ("one", "two"):
        root = tmp_path / name
        for path in ("runtime/__init__.py", "runtime/index/handler.py", "connector/__init__.py"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("A = 1\n")
        (root / "runtime/index/requirements.txt").write_text("pyarrow==20.0.0\n")
    first, second = tmp_path / "one", tmp_path / "two"
    before = digest(first)
    # The same files in another place, with traces of use, beside what the function does not import.
    (second / "connector/__pycache__").mkdir()
    (second / "connector/__pycache__/x.py").write_text("stale")
    (second / "runtime/other.py").write_text("B = 2\n")
    assert digest(second) == before
    for changed in ("connector/__init__.py", "runtime/__init__.py", "runtime/index/requirements.txt"):
        text = (second / changed).read_text()
        (second / changed).write_text(text + "# changed\n")
        assert digest(second) != before, changed
        (second / changed).write_text(text)
    assert digest(second) == before
