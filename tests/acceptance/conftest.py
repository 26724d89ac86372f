"""The platform's own stacks, deployed with the CDK into the tests' cloud, with one patient in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from permissions import withheld

from workbench.catalog import wait_for_catalog
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.label import SERIES_DESCRIPTION, write_label
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient
from workbench.deployment import Deployment
from workbench.environment import load_environment
from workbench.ingest import ingest
from workbench.progress import silent
from workbench.provision import bootstrap, deploy
from workbench.session import Session

__all__ = ["SERIES_DESCRIPTION"]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """The files of a small patient who has not been imported yet."""

    patient: Patient
    images: list[Path]
    label: Path


def arrival(name: str, folder: Path) -> Arrival:
    """A body with two lungs, small enough to import in a moment."""
    slices, rows, columns = np.ogrid[0:16, 0:48, 0:64]
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


@pytest.fixture(scope="session")
def deployment(cloud) -> Deployment:
    """All stacks of the environment `local`, in a cloud of the tests' own."""
    environment = load_environment("local")
    assert environment.local is not None
    session = Session(replace(environment, local=replace(environment.local, endpoint_url=cloud.endpoint_url)))
    bootstrap(session, progress=silent)
    deploy(session, progress=silent)
    return Deployment(session)


@pytest.fixture(scope="session")
def study(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Arrival:
    """A patient whose images and label are imported and indexed."""
    patient = arrival("acceptance", tmp_path_factory.mktemp("study"))
    report = ingest(deployment, [*patient.images, patient.label])
    assert not report.failed
    wait_for_catalog(deployment, {one.image_set_id: one.version_id for one in report.image_sets})
    return patient


@pytest.fixture
def without(deployment: Deployment) -> Callable[[str, str], AbstractContextManager[None]]:
    """`without(role_arn, action)`: the role lacks that action inside the `with` block."""
    iam = deployment.session.client("iam")
    return lambda role_arn, action: withheld(iam, role_arn=role_arn, action=action)
