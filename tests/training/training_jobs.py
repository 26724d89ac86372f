"""Runs the training image's jobs on phantoms, as containers run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training_phantoms import PhantomReader, environment, write_manifest

from healthimaging.manifest import Split
from training.__main__ import main
from training.loop.train import OpenReader

PROGRAM = Path(__file__).with_name("training_phantoms.py")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A job that has run: its /opt/ml and what it said."""

    base: Path
    exit_code: int
    output: str


def run_main(command: str, base: Path, *, open_reader: OpenReader = PhantomReader) -> int:
    """A job in this process, which has the libraries loaded already; its exit code."""
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    os.environ["SAGEMAKER_BASE_DIR"] = str(base)
    try:
        return main([command], open_reader=open_reader)
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.signal(signal.SIGTERM, handler)


def run_job(command: str, base: Path) -> Finished:
    """A job in a process of its own, as in its container."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), command],
        env=environment(base),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return Finished(base=base, exit_code=done.returncode, output=done.stdout)


def lay_out_evaluation(trained: Finished, base: Path, splits: Mapping[Split, Sequence[str]]) -> None:
    """The model as SageMaker packs it and a manifest, where the pipeline's Evaluate step has them."""
    write_manifest(base / "processing" / "input" / "manifest", splits)
    model = base / "processing" / "input" / "model"
    model.mkdir(parents=True)
    with tarfile.open(model / "model.tar.gz", "w:gz") as tar:
        for entry in sorted((trained.base / "model").iterdir()):
            tar.add(entry, arcname=entry.name)
