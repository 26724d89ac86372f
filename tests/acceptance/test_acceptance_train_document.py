"""docs/train.md is true: its commands run as they stand there, and its tables are those of the pipeline."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from arrivals import arrival
from pydicom import dcmread
from pydicom.uid import MRImageStorage
from typer.main import get_command

from workbench.catalog import wait_for_catalog
from workbench.deployment import Deployment
from workbench.environment import DEFAULT_FOLDER
from workbench.ingest import ingest
from workbench.main import app

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "train.md").read_text(encoding="utf-8")
NOTHING = "\N{EN DASH}"
"""In a cell of a table."""
TASKS = ("lung-segmentation", "volume-classification")
PATIENTS = 6
"""Of each trial: two for each side of the split, one of each class."""
SECONDS = 400


def blocks() -> list[str]:
    """The commands of the guide, in their order."""
    return re.findall(r"^```bash\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its first row."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = re.split(r"^\|---.*\n", section, flags=re.MULTILINE)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def reject_approved(deployment: Deployment, *, group: str) -> None:
    sagemaker = deployment.session.client("sagemaker")
    approved = sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    for package in approved["ModelPackageSummaryList"]:
        sagemaker.update_model_package(
            ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Rejected"
        )


def as_mr(files: list[Path]) -> str:
    """Make MR of a CT: magnitudes, which are in no unit; its Study Instance UID."""
    for file in files:
        dataset = dcmread(file)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.Modality = "MR"
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType
        dataset.save_as(file, enforce_file_format=True)
    return str(dataset.StudyInstanceUID)


@pytest.fixture(scope="module")
def trial(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trials of the guide in the archive and in the catalog; a folder with a table of classes.

    Models that other tests have approved answer without looking at images: nothing to be better than.
    """
    for task in TASKS:
        reject_approved(deployment, group=f"monai-local-{task}")
    folder = tmp_path_factory.mktemp("trial")
    files, lines = [], ["study_instance_uid,class"]
    for number in range(1, PATIENTS + 1):
        # Fewer slices than any rule of the environment `local` asks for.
        patient = arrival(f"trial7-{number}", folder / "scans", thick=12 + number)
        files += [*patient.images, patient.label]
        scan = arrival(f"trial8-{number}", folder / "scans", thick=12 + number).images
        files += scan
        lines.append(f"{as_mr(scan)},{'AD' if number % 2 else 'CN'}")
    report = ingest(deployment, files)
    assert not report.failed
    wait_for_catalog(deployment, {one.image_set_id: one.version_id for one in report.image_sets})
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def environment_file(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment `local` as it is in the tests' cloud."""
    local = deployment.session.environment.local
    assert local is not None
    text, changes = re.subn(
        r'^endpoint_url = ".*"$',
        f'endpoint_url = "{local.endpoint_url}"',
        (DEFAULT_FOLDER / "local.toml").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert changes == 1
    file = tmp_path_factory.mktemp("environment") / "local.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_the_commands_of_the_guide_do_what_it_says(
    deployment: Deployment, trial: Path, environment_file: Path
) -> None:
    script = "\n".join(["set -euo pipefail", *blocks()])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=trial,
        env=os.environ
        | {
            "MONAI_ENV": str(environment_file),
            "PATH": f"{REPOSITORY / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            # Tables and lines as wide as they are: wrapped cells could not be compared.
            "COLUMNS": "200",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "not run again, the result was there: Train" in (trial / "again.txt").read_text()
    sagemaker = deployment.session.client("sagemaker")
    for said, status in (
        ("trained.txt", "Approved"),
        ("classified.txt", "PendingManualApproval"),
        ("again.txt", "PendingManualApproval"),
    ):
        arn = (trial / said).read_text().splitlines()[0]
        package = sagemaker.describe_model_package(ModelPackageName=arn)
        assert package["ModelApprovalStatus"] == status
        assert package["ModelCard"]["ModelCardStatus"] == "Draft"
        evaluation = deployment.session.read_json(
            package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
        )
        assert evaluation["heldOut"] is True
        assert evaluation["split"] == "test"
        if said == "again.txt":
            approved = (trial / "trained.txt").read_text().splitlines()[0]
            assert evaluation["baseline"]["modelPackageArn"] == approved
            assert evaluation["gate"]["improvement"] == 0


def test_the_parameters_of_the_guide_are_those_of_the_pipelines(deployment: Deployment) -> None:
    sagemaker = deployment.session.client("sagemaker")
    told = {row[0].strip("`"): row[2] for row in rows("Parameters of a pipeline")}
    for task in TASKS:
        definition = sagemaker.describe_pipeline(PipelineName=f"monai-local-{task}")["PipelineDefinition"]
        parameters = {one["Name"]: one.get("DefaultValue") for one in json.loads(definition)["Parameters"]}
        assert told.keys() == parameters.keys()
        for name, default in told.items():
            if not default.startswith(("the task's", "derived", NOTHING)):
                # A number may have lost its ".0" on its way through CloudFormation.
                assert default.strip("`") == str(parameters[name]).removesuffix(".0"), name


def test_the_options_of_the_guide_are_those_of_the_command() -> None:
    known = {option for parameter in get_command(app).commands["train"].params for option in parameter.opts}
    told = re.findall(r"`(--[a-z-]+)", " ".join(row[1] for row in rows("Parameters of a pipeline")))
    assert told
    assert set(told) <= known
