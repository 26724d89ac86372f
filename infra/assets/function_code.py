"""Packages of Lambda functions: the code and everything it imports, made with pip alone, without Docker.

The dependencies are wheels for Lambda's system, whatever machine synthesizes; they are kept under
`build/functions` by what they were made from, so that pip runs only when that changes. The asset's hash is of
sources and pins, not of files on this disk: the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_

from infra.repository import ROOT

RUNTIME = lambda_.Runtime.PYTHON_3_11
"""Python of every function: the version that the repository's own environments have, so that tests run
what is deployed.
"""

ARCHITECTURE = lambda_.Architecture.X86_64

_PYTHON_VERSION = "3.11"
_PLATFORM = "manylinux2014_x86_64"
"""Wheels for glibc 2.17: python3.11 functions run on Amazon Linux 2, whose glibc 2.26 is too old for
manylinux_2_28.
"""

_UNUSED = (
    # Of every distribution: caches, tests, what only a compiler reads, and what differs between two runs of
    # pip.
    "**/__pycache__",
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.pxi",
    "*.dist-info/RECORD",
    "*.dist-info/direct_url.json",
    "bin",
    # Of pyarrow: headers and the network protocol. A function may have 250 MB unpacked.
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_flight.*",
)
_SOURCE_SUFFIXES = (".py", ".json")
_CACHE = ROOT / "build" / "functions"


def function_code(*, folder: str, packages: Iterable[str]) -> lambda_.Code:
    """The code asset of the function in `folder` (relative to the repository).

    Args:
        folder: The function's package. Its `requirements.txt`, if it has one, pins what it needs beyond the
            Lambda runtime's own boto3.
        packages: Further packages of this repository that the function imports.
    """
    package = _FunctionPackage(folder=folder, packages=tuple(packages))
    return lambda_.Code.from_asset(
        str(ROOT / folder),
        asset_hash=package.digest(),
        asset_hash_type=cdk.AssetHashType.CUSTOM,
        bundling=cdk.BundlingOptions(image=RUNTIME.bundling_image, local=package),
    )


@jsii.implements(cdk.ILocalBundling)
class _FunctionPackage:
    """Makes the asset of one function in the folder that the CDK asks for."""

    def __init__(self, *, folder: str, packages: tuple[str, ...]) -> None:
        self._requirements = ROOT / folder / "requirements.txt"
        self._folder = folder
        self._packages = packages

    def try_bundle(self, output_dir: str, _options: object = None, **_option: object) -> bool:
        """Called by the CDK when the asset is not yet in its output. False would mean: use Docker."""
        target = Path(output_dir)
        if self._requirements.is_file():
            shutil.copytree(self._dependencies(), target, dirs_exist_ok=True)
        for source in self._sources():
            copy = target / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return True

    def digest(self) -> str:
        """Changes exactly when what is packed changes."""
        digest = hashlib.sha256(self._dependencies_digest().encode())
        for source in self._sources():
            digest.update(f"\0{source.relative_to(ROOT).as_posix()}\0".encode())
            digest.update(source.read_bytes())
        return digest.hexdigest()

    def _sources(self) -> Iterator[Path]:
        """The function's files, those of the packages it imports, and the `__init__` files on the way, in
        one order everywhere.
        """
        found = {
            path
            for folder in (self._folder, *self._packages)
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in _SOURCE_SUFFIXES and not _is_trace(path.relative_to(ROOT))
        }
        for parent in Path(self._folder).parents:
            init = ROOT / parent / "__init__.py"
            if parent != Path(".") and init.is_file():
                found.add(init)
        yield from sorted(found, key=lambda path: path.relative_to(ROOT).as_posix())

    def _dependencies_digest(self) -> str:
        pins = self._requirements.read_bytes() if self._requirements.is_file() else b""
        made_from = "\0".join([_PYTHON_VERSION, _PLATFORM, *_UNUSED]).encode()
        return hashlib.sha256(pins + b"\0" + made_from).hexdigest()

    def _dependencies(self) -> Path:
        """Folder with the function's installed dependencies, made at most once for the same pins."""
        ready = _CACHE / f"{self._folder.replace('/', '-')}-{self._dependencies_digest()[:16]}"
        if ready.is_dir():
            return ready
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as work:
            made = Path(work) / "made"
            made.mkdir()
            _install(self._requirements, into=made)
            try:
                # In one step, so that a synthesis that runs at the same time never sees half of it.
                os.replace(made, ready)
            except OSError:
                if not ready.is_dir():
                    raise
        return ready


def _is_trace(path: Path) -> bool:
    """Whether a tool left the file behind: compiled modules, and caches in hidden folders."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def _install(requirements: Path, *, into: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "install",
        "--quiet", "--disable-pip-version-check", "--no-compile", "--no-input",
        "--target", str(into),
        "--implementation", "cp", "--python-version", _PYTHON_VERSION, "--platform", _PLATFORM,
        "--only-binary", ":all:",
        "--requirement", str(requirements),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            f"pip could not install {requirements.relative_to(ROOT)} for Lambda:\n{done.stderr.strip()}"
        )
    for pattern in _UNUSED:
        for path in list(into.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
