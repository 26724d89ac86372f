"""A small patient, as files that could arrive from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.label import write_label
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """The files of a small patient who has not been imported yet."""

    patient: Patient
    images: list[Path]
    label: Path


def arrival(name: str, folder: Path, *, thick: int = 16) -> Arrival:
    """A body with two lungs, small enough to import in a moment.

    Its 16 slices are fewer than any rule of the environment `local` asks for, so that it starts nothing by
    itself; `thick` is another number of them.
    """
    slices, rows, columns = np.ogrid[0:thick, 0:48, 0:64]
    body = ((rows - 24) / 22) ** 2 + ((columns - 32) / 30) ** 2 + 0 * slices < 1
    lungs = ((rows - 24) / 12) ** 2 + ((np.abs(columns - 32) - 14) / 9) ** 2 + ((slices - 8) / 7) ** 2 < 1
    volume = CtVolume(
        array=np.where(lungs, -800, np.where(body, 40, -1000)).astype(np.int16),
        affine=np.diag([4.0, 4.0, 5.0, 1.0]),
    )
    patient = Patient(
        name=name,
        patient_name=f"Synthetic^{name}",
        patient_id=name.upper(),
        study_id="1",
        accession_number=name.upper(),
        study_date="20000103",
    )
    datasets = ct_datasets(volume, patient)
    images = write_series(datasets, folder / name)
    label = write_label(patient, datasets, np.broadcast_to(lungs, volume.array.shape), folder)
    return Arrival(patient=patient, images=images, label=label)
