"""The platform's own stacks, deployed with the CDK into the tests' cloud, with one patient in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from arrivals import Arrival, arrival

from workbench.catalog import wait_for_catalog
from workbench.deployment import Deployment
from workbench.environment import load_environment
from workbench.ingest import ingest
from workbench.progress import silent
from workbench.provision import bootstrap, deploy
from workbench.session import Session


@pytest.fixture(scope="session", autouse=True)
def own_assembly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The CDK command line locks the folder that it writes to: a second one at work in this checkout, of a
    person or of another test run, must not meet this one's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_OUTPUT", str(tmp_path_factory.mktemp("assembly")))
        yield


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
