"""Assets: a function's package is complete, an image's context is only its own, and both are the same
everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from infra_assembly import ENVIRONMENTS, Assembly

from infra.environment import load_environment
from infra.repository import ROOT

LAMBDA_LIMIT = 250 * 2**20
"""Bytes of an unpacked function and its layers."""

IN_EVERY_LAMBDA = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
"""What the Python runtimes of Lambda bring: boto3 with what it needs."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a function that changes nothing, and what it answers."""

    event: dict[str, Any]
    answer: Any
    settings: dict[str, str] = field(default_factory=dict)
    """Its environment variables, all that the stack sets."""
    context: str = "None"
    """Lambda's context, as an expression."""


NO_MESSAGES = {"Records": []}

AT_ITS_END = "types.SimpleNamespace(function_name='f', get_remaining_time_in_millis=lambda: 0)"
"""Of an invocation that has no time left: a function that is started by a schedule does nothing in it."""

ASKING = {"CATALOG_BUCKET": "catalog", "DATABASE": "monai_dev", "WORKGROUP": "monai-dev"}

DISPATCHING = {
    "RESULT_BUCKET": "results",
    "REQUEST_PREFIX": "requests/",
    "DISPATCH_ROUTES": "[]",
    "QUIET_SECONDS": "60",
}

CALLS = {
    "index": Call(
        event=NO_MESSAGES, answer={"batchItemFailures": []}, settings={"CATALOG_BUCKET": "catalog"}
    ),
    "compact": Call(
        event={"source": "aws.events", "detail-type": "Scheduled Event"},
        answer={"removed": 0, "statements": 0, "complete": False},
        settings={**ASKING, "SETTLE_SECONDS": "600"},
        context=AT_ITS_END,
    ),
    "reconcile_catalog": Call(
        event={"source": "aws.events", "detail-type": "Scheduled Event"},
        answer={"compared": 0, "missed": 0, "gone": 0, "damaged": 0, "again": 0, "complete": False},
        settings={
            **ASKING,
            "DATASTORE_ID": "d" * 32,
            "QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/111122223333/index",
            "AFTER_SECONDS": "900",
        },
        context=AT_ITS_END,
    ),
    "dispatch": Call(
        event=NO_MESSAGES,
        answer={"batchItemFailures": []},
        settings=DISPATCHING,
    ),
    "reconcile": Call(
        event={"source": "aws.events", "detail-type": "Scheduled Event"},
        answer={"undecided": 0, "missed": 0, "failed": 0, "complete": True},
        settings={
            **DISPATCHING,
            "DATASTORE_ID": "d" * 32,
            "EVERY_SECONDS": "3600",
            "AFTER_SECONDS": "60",
            "DAYS": "7",
        },
    ),
    "announce": Call(
        event=NO_MESSAGES,
        answer={"batchItemFailures": []},
        settings={
            "RESULT_BUCKET": "results",
            "NOTED_PREFIX": "failures/noted/",
            "DATASTORE_ID": "d" * 32,
            "EVENT_BUS": "default",
        },
    ),
    "promote": Call(
        event=NO_MESSAGES,
        answer={"batchItemFailures": []},
        settings={
            "SOURCE_ENVIRONMENT": "dev",
            "SOURCE_ACCOUNT": "111122223333",
            "GROUPS": "{}",
            "INFERENCE_IMAGE": "image",
            "MODEL_BUCKET": "models",
        },
    ),
    # Asked to delete, it does nothing but answer CloudFormation.
    "close_default_group": Call(
        event={"RequestType": "Delete", "PhysicalResourceId": "sg-1", "ResponseURL": "data:,"}, answer=None
    ),
}
"""By the folder of the function below `runtime/functions`."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function of an environment, and the package that it is deployed with."""

    name: str
    properties: dict[str, Any]
    asset: Path


def functions(assembly: Assembly) -> dict[str, Function]:
    """Every function of every stack, by the folder of its handler."""
    found = {}
    for _, resource in assembly.resources("AWS::Lambda::Function"):
        properties = resource["Properties"]
        module, _, _ = properties["Handler"].rpartition(".")
        name = module.removeprefix("runtime.functions.").partition(".")[0]
        asset = assembly.folder / f"asset.{properties['Code']['S3Key'].removesuffix('.zip')}"
        found[name] = Function(name=name, properties=properties, asset=asset)
    return found


@pytest.fixture(scope="module")
def all_functions(synthesize: Callable[[str], Assembly]) -> dict[str, Function]:
    """The functions of all environments: some exist in one of them only."""
    return {
        name: one for environment in ENVIRONMENTS for name, one in functions(synthesize(environment)).items()
    }


@pytest.fixture(params=sorted(CALLS))
def function(request: pytest.FixtureRequest, all_functions: dict[str, Function]) -> Function:
    return all_functions[request.param]


def test_every_function_is_tried(all_functions: dict[str, Function]) -> None:
    assert set(all_functions) == set(CALLS)
    folders = {path.parent.name for path in (ROOT / "runtime" / "functions").glob("*/handler.py")}
    assert folders == set(CALLS)


@pytest.fixture(scope="module")
def provided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lambda brings, and nothing else."""
    folder = tmp_path_factory.mktemp("provided")
    for package in IN_EVERY_LAMBDA:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (folder / source.name).symlink_to(source)
    return folder


def test_a_function_runs_with_its_package_and_boto3_alone(
    function: Function, provided: Path, tmp_path: Path
) -> None:
    assert function.properties["Runtime"] == f"python{sys.version_info.major}.{sys.version_info.minor}"
    call = CALLS[function.name]
    module, _, name = function.properties["Handler"].rpartition(".")
    with cloudformation() as url:
        program = f"""
import importlib, json, sys, types
sys.path[:0] = [{str(function.asset)!r}, {str(provided)!r}]
handler = getattr(importlib.import_module({module!r}), {name!r})
event = json.loads({json.dumps(call.event).replace("data:,", url)!r})
print(json.dumps(handler(event, {call.context})))
"""
        settings = {**call.settings, "AWS_DEFAULT_REGION": "us-east-1", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", program],
            capture_output=True,
            text=True,
            env=settings,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    # A line before it may be a metric.
    assert json.loads(done.stdout.splitlines()[-1]) == call.answer
    assert set(function.properties.get("Environment", {}).get("Variables", {})) == set(call.settings)


@contextmanager
def cloudformation() -> Iterator[str]:
    """An address that takes the answer of a custom resource."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_function_fits_into_lambda(function: Function) -> None:
    size = sum(path.stat().st_size for path in function.asset.rglob("*") if path.is_file())
    assert size < 0.6 * LAMBDA_LIMIT


def test_compiled_parts_of_a_function_run_on_its_system(function: Function) -> None:
    tags = [
        line.removeprefix("Tag: ")
        for wheel in function.asset.glob("*.dist-info/WHEEL")
        for line in wheel.read_text().splitlines()
        if line.startswith("Tag: ") and not line.endswith("-any")
    ]
    # Python 3.11 functions run on Amazon Linux 2 with glibc 2.26.
    assert {tag.rpartition("-")[2] for tag in tags} <= {"manylinux2014_x86_64", "manylinux_2_17_x86_64"}
    compiled = [path for path in function.asset.rglob("*.so*") if path.is_file()]
    assert bool(compiled) == bool(tags)


def test_the_package_of_the_index_function_has_compiled_parts(all_functions: dict[str, Function]) -> None:
    # Otherwise the test above would look at nothing.
    assert list(all_functions["index"].asset.rglob("*.so"))


def test_a_function_without_pins_carries_its_own_code_alone(all_functions: dict[str, Function]) -> None:
    asset = all_functions["close_default_group"].asset
    assert {path.relative_to(asset).as_posix() for path in asset.rglob("*") if path.is_file()} == {
        "runtime/__init__.py",
        "runtime/functions/__init__.py",
        "runtime/functions/close_default_group/__init__.py",
        "runtime/functions/close_default_group/handler.py",
    }


def image_sources(assembly: Assembly, environment: str) -> list[dict[str, Any]]:
    """What the CDK will build, from the asset manifests of the stacks with images."""
    folder = assembly.folder / f"assembly-{environment}"
    return [
        entry["source"]
        for stack in ("arrival", "training")
        for path in folder.glob(f"{environment}{stack}*.assets.json")
        for entry in json.loads(path.read_text())["dockerImages"].values()
    ]


@pytest.mark.parametrize("package", ["arrival", "training", "runtime"])
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
        # The receiver needs no GPU: it builds on what its Dockerfile says.
        assert built == {"training": wanted.training_base, "runtime": wanted.inference_base, "arrival": None}
    for package in built:
        assert "ARG BASE_IMAGE=" in (ROOT / package / "Dockerfile").read_text(encoding="utf-8")


def test_functions_are_the_same_in_every_environment(synthesize: Callable[[str], Assembly]) -> None:
    keys: dict[str, set[str]] = {}
    for environment in ENVIRONMENTS:
        for name, one in functions(synthesize(environment)).items():
            keys.setdefault(name, set()).add(one.properties["Code"]["S3Key"])
    assert keys
    assert {name for name, different in keys.items() if len(different) > 1} == set()


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
