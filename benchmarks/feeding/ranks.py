"""The training job on small chests, with one rank and with two: does dividing the work change the losses?

Everything but the machine is real: `python -m training train` as the container runs it, reading image sets
and segmentations of the local cloud, with the processes of a host that has no GPU (gloo). The shipped
segmentation bundle, with two values replaced that no division could keep: batch normalisation takes its
statistics over the items of one rank, and its Dice loss sums over a batch before it divides.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread

from benchmarks.feeding.volumes import patient, write_manifest
from benchmarks.inferring.endpoint import MODELS_PYTHON
from benchmarks.local_cloud import REPOSITORY, aws_environment
from benchmarks.reading.archive import Archive
from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.manifest import patient_key
from workbench.demo.ct_series import ct_datasets
from workbench.demo.label import write_label
from workbench.demo.lung_mask import silver_lung_mask
from workbench.demo.nrrd_volume import CtVolume

CASES = 4
THINNED = 8
"""Of rows and columns every eighth is kept, so that a step takes a tenth of a second."""
STEPS = 20
OVERRIDES = {"network_def#norm": "instance", "loss#batch": False}
JOB_SECONDS = 180.0
_LOSS = re.compile(r"\bstep=(\d+) train_loss=(\S+)")


@dataclass(frozen=True, kw_only=True)
class Division:
    """How the items of a step are shared out."""

    ranks: int
    batch_size: int
    accumulate: int = 1

    @property
    def name(self) -> str:
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"{ranks}, batch of {self.batch_size}, {self.accumulate} a step"


DOUBLE_BATCH = Division(ranks=1, batch_size=2)
DIVISIONS = (
    DOUBLE_BATCH,
    Division(ranks=2, batch_size=1),
    Division(ranks=1, batch_size=1, accumulate=2),
)


def store_cases(archive: Archive, volume: CtVolume, folder: Path) -> Manifest:
    """Import small chests with a segmentation of their lungs; the manifest has all of them for training."""
    cases = []
    for number in range(CASES):
        small = _thinned(volume, number)
        person = patient("ranks", number)
        datasets = ct_datasets(small, person)
        label = write_label(person, datasets, silver_lung_mask(small.array, spacing=small.spacing), folder)
        cases.append(
            Case(
                patient_key=patient_key(person.patient_id),
                split="train",
                image=_ref(archive, archive.import_series(datasets)),
                label=_ref(archive, archive.import_series([dcmread(label)])),
            )
        )
    return Manifest(
        query="every small chest of the benchmark",
        datastore_id=archive.datastore_id,
        seed=0,
        labels={"kind": "segmentation"},
        cases=tuple(cases),
    )


def losses(manifest: Manifest, division: Division, *, endpoint_url: str, folder: Path) -> Mapping[int, float]:
    """Run the job; its training losses by step.

    Raises:
        RuntimeError: The job failed, or it told no loss.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="ranks-") as name:
        base = Path(name)
        _lay_out(
            base,
            manifest,
            {
                "bundle": "ct_segmentation",
                "max_steps": str(STEPS),
                "seed": "7",
                "batch_size": str(division.batch_size),
                "accumulate": str(division.accumulate),
                "processes_per_host": str(division.ranks),
                "overrides": json.dumps(OVERRIDES),
            },
        )
        done = subprocess.run(
            [MODELS_PYTHON, "-W", "ignore", "-m", "training", "train"],
            cwd=REPOSITORY,
            env=aws_environment(endpoint_url)
            | {
                "PYTHONPATH": str(REPOSITORY),
                "SAGEMAKER_BASE_DIR": str(base),
                "TRAINING_JOB_NAME": "benchmark",
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=JOB_SECONDS,
        )
    found = {int(step): float(loss) for step, loss in _LOSS.findall(done.stdout)}
    if done.returncode or not found:
        raise RuntimeError(f"The job of {division.name} failed:\n{done.stdout[-3000:]}")
    return found


def largest_difference(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Relative, over all steps.

    Raises:
        RuntimeError: They are losses of different steps.
    """
    if one.keys() != other.keys():
        raise RuntimeError(f"The jobs told the losses of steps {sorted(one)} and {sorted(other)}")
    return max(abs(one[step] - other[step]) / abs(one[step]) for step in one)


def _lay_out(base: Path, manifest: Manifest, hyperparameters: Mapping[str, str]) -> None:
    """What SageMaker puts below /opt/ml before the container starts."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    host = "127.0.0.1"
    documents: dict[str, object] = {
        "hyperparameters": hyperparameters,
        "resourceconfig": {"current_host": host, "hosts": [host], "network_interface_name": "lo"},
        "inputdataconfig": {"manifest": {"TrainingInputMode": "File"}},
    }
    for name, document in documents.items():
        (config / f"{name}.json").write_text(json.dumps(document))
    (base / "model").mkdir()
    write_manifest(manifest, base / "input" / "data" / "manifest")


def _thinned(volume: CtVolume, number: int) -> CtVolume:
    """Every volume from rows and columns of its own, so that no two are equal."""
    array = volume.array[:, number::THINNED, number::THINNED]
    scale = np.diag([THINNED, THINNED, 1.0, 1.0])
    return CtVolume(array=np.ascontiguousarray(array), affine=volume.affine @ scale)


def _ref(archive: Archive, image_set_id: str) -> ImageSetRef:
    return ImageSetRef(datastore_id=archive.datastore_id, image_set_id=image_set_id, version_id="1")
