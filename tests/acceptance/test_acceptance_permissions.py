"""Roles hold exactly what their work needs: with one permission less, the step that needs it is denied."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from arrivals import Arrival, arrival

from workbench.dataset import default_sql, make_dataset
from workbench.demo.label import SERIES_DESCRIPTION
from workbench.deployment import Deployment
from workbench.errors import ImportFailed, TrainingFailed
from workbench.ingest import ingest
from workbench.train import train

Without = Callable[[str, str], AbstractContextManager[None]]


def told(error: BaseException) -> str:
    """All that a person would read of an error of the workbench."""
    return " ".join([str(error), *getattr(error, "details", ())])


def test_import_role(deployment: Deployment, without: Without, tmp_path: Path) -> None:
    role = deployment.stack("data")["ImportRoleArn"]
    images = arrival("unreadable", tmp_path).images
    with without(role, "s3:GetObject"), pytest.raises(ImportFailed) as caught:
        ingest(deployment, images)
    assert "AccessDenied" in told(caught.value)
    assert "s3:GetObject" in told(caught.value)
    report = ingest(deployment, images)
    assert len(report.imported) == len(images), "with the permission back, the same import succeeds"


def test_index_function_role(deployment: Deployment, without: Without, tmp_path: Path) -> None:
    function = deployment.stack("catalog")["IndexFunctionName"]
    client = deployment.session.client
    role = client("lambda").get_function_configuration(FunctionName=function)["Role"]
    group = client("lambda").get_function_configuration(FunctionName=function)["LoggingConfig"]["LogGroup"]
    with without(role, "medical-imaging:GetImageSetMetadata"):
        report = ingest(deployment, arrival("unindexed", tmp_path).images)
        [image_set] = report.image_sets
        deadline = time.monotonic() + 60
        lines = ""
        while "AccessDenied" not in lines:
            assert time.monotonic() < deadline, f"the function was not denied; its log: {lines[-2000:]}"
            time.sleep(0.5)
            events = client("logs").filter_log_events(logGroupName=group)["events"]
            lines = "\n".join(event["message"] for event in events)
    assert "GetImageSetMetadata: AccessDenied" in lines
    assert image_set.image_set_id in lines, "the log names what could not be indexed"


def test_training_role(deployment: Deployment, without: Without, study: Arrival) -> None:
    sql = default_sql(patients=[study.patient.patient_id], label_description=SERIES_DESCRIPTION)
    dataset = make_dataset(deployment, sql, name="acceptance", validation=0.0)
    role = deployment.stack("training")["TrainingRoleArn"]
    with without(role, "medical-imaging:GetImageFrame"), pytest.raises(TrainingFailed) as caught:
        train(deployment, dataset.uri, parameters={"MaxSteps": "1"})
    assert "GetImageFrame: AccessDenied" in told(caught.value)
