"""The toolkit of SageMaker Studio: `monai-aws`, the connector, the notebooks, and every wheel that they need.

Notebooks have no way to the internet, so nothing can be installed there that does not come along. The wheels
are those for the Python and the system of Studio's image, whatever machine synthesizes; they are kept under
`build/toolkit` by what they were chosen by, so that pip runs only when that changes. The asset's hash is of
sources and pins: the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from infra.assets.function_code import RUNTIME
from infra.repository import ROOT

STUDIO_PYTHON = "3.12"
"""Python of SageMaker Distribution 3 and 4, the images that Studio offers
(https://github.com/aws/sagemaker-distribution, RELEASE.md of each version).
"""

KERNEL = "monai-aws"
"""Name of the Jupyter kernel in which the toolkit is installed."""

_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
"""Studio's image has a later glibc than 2.28."""

_REQUIREMENTS = "workbench/requirements.txt"
_SOURCES = {
    "workbench": (".py", ".css", ".html", ".js"),
    "arrival": (".py",),
    "healthimaging": (".py", ".typed"),
    "infra/environments": (".toml",),
    "notebooks": (".ipynb",),
}
"""Folders of the repository that the toolkit holds, and which of their files."""

_LEFT_OUT = ("workbench/demo/",)
"""The demo runs the local cloud and is not for Studio."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CACHE = ROOT / "build" / "toolkit"


@jsii.implements(cdk.ILocalBundling)
class Toolkit:
    """The archive: `requirements.txt`, `wheels/`, and `source/` with the same layout as this repository."""

    def __init__(self, *, python: str = STUDIO_PYTHON) -> None:
        self._python = python

    def digest(self) -> str:
        """Changes exactly when what is packed changes."""
        digest = hashlib.sha256(self._wheels_digest().encode())
        for entry in self._entries():
            digest.update(f"\0{entry.name}\0".encode())
            digest.update(entry.content)
        return digest.hexdigest()

    def try_bundle(self, output_dir: str, _options: object = None, **_option: object) -> bool:
        """Called by the CDK when the asset is not yet in its output. False would mean: use Docker."""
        target = Path(output_dir) / "toolkit.zip"
        try:
            # Environments share the archive, and so do assemblies: it is as large as all else in them.
            os.link(self._archive(), target)
        except OSError:
            # Another file system, or a synthesis of other sources has just taken the archive away.
            self.write(target)
        return True

    def _archive(self) -> Path:
        """The archive of the present sources; those of earlier ones are removed."""
        ready = _CACHE / f"{self.digest()}.zip"
        if not ready.exists():
            wheels = self._wheels()
            with tempfile.TemporaryDirectory(dir=wheels.parent) as work:
                made = Path(work) / "toolkit.zip"
                self.write(made)
                for stale in _CACHE.glob("*.zip"):
                    stale.unlink(missing_ok=True)
                os.replace(made, ready)
        return ready

    def write(self, path: Path) -> None:
        """Write the archive. Wheels are compressed already, so nothing is compressed."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for entry in self._entries():
                archive.writestr(zipfile.ZipInfo(entry.name, _EPOCH), entry.content)
            for wheel in sorted(self._wheels().glob("*.whl")):
                archive.writestr(zipfile.ZipInfo(f"wheels/{wheel.name}", _EPOCH), wheel.read_bytes())

    def _entries(self) -> Iterator[_Entry]:
        """Everything but the wheels, in one order everywhere."""
        yield _Entry(name="requirements.txt", content=(ROOT / _REQUIREMENTS).read_bytes())
        for folder, suffixes in _SOURCES.items():
            for path in sorted((ROOT / folder).rglob("*"), key=lambda path: path.as_posix()):
                name = path.relative_to(ROOT).as_posix()
                if path.suffix in suffixes and not name.startswith(_LEFT_OUT) and path.is_file():
                    content = path.read_bytes()
                    if path.suffix == ".ipynb":
                        content = _with_kernel(content)
                    yield _Entry(name=f"source/{name}", content=content)

    def _wheels_digest(self) -> str:
        pins = (ROOT / _REQUIREMENTS).read_bytes()
        return hashlib.sha256(pins + "\0".join(["", self._python, *_PLATFORMS]).encode()).hexdigest()

    def _wheels(self) -> Path:
        """Folder with the wheels, filled at most once for the same pins."""
        ready = _CACHE / f"python{self._python}-{self._wheels_digest()[:16]}"
        if ready.is_dir():
            return ready
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as work:
            made = Path(work) / "made"
            made.mkdir()
            self._download(made)
            try:
                # In one step, so that a synthesis that runs at the same time never sees half of it.
                os.replace(made, ready)
            except OSError:
                if not ready.is_dir():
                    raise
        return ready

    def _download(self, folder: Path) -> None:
        command = [
            sys.executable, "-m", "pip", "download",
            "--quiet", "--disable-pip-version-check", "--no-input",
            "--dest", str(folder),
            # The pins are complete: a test installs them and nothing else.
            "--no-deps",
            "--implementation", "cp", "--python-version", self._python,
            *(part for platform in _PLATFORMS for part in ("--platform", platform)),
            "--only-binary", ":all:",
            "--requirement", str(ROOT / _REQUIREMENTS),
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"pip could not download {_REQUIREMENTS} for SageMaker Studio:\n{done.stderr.strip()}"
            )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One file of the archive."""

    name: str
    content: bytes


def _with_kernel(notebook: bytes) -> bytes:
    """The notebook, opened in the toolkit's kernel: Studio's own lacks what it imports."""
    document = json.loads(notebook)
    document["metadata"]["kernelspec"] = {
        "display_name": "MONAI on AWS",
        "language": "python",
        "name": KERNEL,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


class ToolkitAsset(Construct):
    """The archive in the CDK's asset bucket, put there by the deployment."""

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id)
        toolkit = Toolkit()
        self.version = toolkit.digest()[:16]
        asset = s3_assets.Asset(
            self,
            "Asset",
            path=str(ROOT / "workbench"),
            asset_hash=toolkit.digest(),
            asset_hash_type=cdk.AssetHashType.CUSTOM,
            bundling=cdk.BundlingOptions(
                # Of a container nothing is used; the CDK wants one to be named.
                image=RUNTIME.bundling_image,
                local=toolkit,
                output_type=cdk.BundlingOutput.ARCHIVED,
            ),
        )
        stack = cdk.Stack.of(self)
        # The synthesizer knows both: they name the bucket that `cdk bootstrap` made.
        self.bucket: str = _text(stack.resolve(asset.s3_bucket_name))
        self.key: str = _text(stack.resolve(asset.s3_object_key))
        self.arn = stack.format_arn(
            service="s3", region="", account="", resource=self.bucket, resource_name=self.key
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the toolkit's place is not known at synthesis: {value!r}")
    return value
