"""docs/connector.md: its code runs as it stands there, and its tables are those of the code."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pydicom
import pytest
from cloud_archive import Archive
from connector_guide import GUIDE, code_blocks
from oblique_series import ct_series

import healthimaging
from healthimaging import errors
from healthimaging.dicomweb.stow import REQUEST_BYTES
from healthimaging.frames.codecs import CODECS
from healthimaging.frames.connections import BODY_SECONDS
from healthimaging.frames.fetching import WORKERS
from healthimaging.frames.retries import RETRY_SECONDS
from healthimaging.frames.transport import frame_source
from healthimaging.refusals import TRANSIENT_STATUS
from healthimaging.threads import CANCEL_SECONDS
from healthimaging.volumes.resampling import WIDEST_GAP


def rows(heading: str) -> list[list[str]]:
    """Cells of the table rows below a heading, without its first row."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_code_runs_as_it_stands(
    cloud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    source, hu = ct_series(slices=6)
    stored = Archive.create(cloud).image_set(source).ref
    use, handling = (block for block in code_blocks() if "monai" not in block)
    assert len([line for line in use.splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {
        "datastore_id": stored.datastore_id,
        "image_set_id": stored.image_set_id,
        "folder": tmp_path,
    }
    exec(use, names)  # noqa: S102 - the guide's own code
    assert np.array_equal(names["volume"].array, hu)
    assert names["coarse"].array.shape == (6, 12, 16)
    assert names["coarse"].geometry.spacing == pytest.approx((1.0, 1.5, 2.5))
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in source}
    files = [pydicom.dcmread(file) for file in tmp_path.glob("*.dcm")]
    assert {file.SOPInstanceUID for file in files} == set(by_uid)
    assert all(np.array_equal(file.pixel_array, by_uid[file.SOPInstanceUID].pixel_array) for file in files)
    printed = capsys.readouterr().out
    for expected in (
        f"{stored} primary",
        "6 of 6 frames",
        "(6, 24, 32) int16",
        "['CT']",
        "[True]",
        "Timings(",
    ):
        assert expected in printed
    exec(handling, names)  # noqa: S102 - the guide's own code
    assert np.array_equal(names["volumes"][0].array, hu)


def test_every_error_is_in_the_table() -> None:
    told = [name for row in rows("Errors") for name in quoted(row[0])]
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.HealthImagingError)
    }
    assert len(told) == len(set(told))
    assert set(told) == defined - {"HealthImagingError"}


def test_tolerances_are_those_of_the_code() -> None:
    told = [row for row in rows("Conventions and tolerances") if quoted(row[0])]
    assert len(told) == 7
    for name, value, *_ in told:
        module, _, constant = quoted(name)[0].rpartition(".")
        assert getattr(importlib.import_module(f"healthimaging.{module}"), constant) == float(value), name


def test_decoders_are_those_of_the_code() -> None:
    told = {
        syntax if syntax.startswith("1.") else f"1.2.840.10008.1.2.4{syntax}": row[-1] == "pixels"
        for row in rows("What is verified")
        for syntax in quoted(row[0])
    }
    assert told == {uid: codec.checksum_over_pixels for uid, codec in CODECS.items()}


def test_the_comparison_has_every_row() -> None:
    numbers = [row[0] for row in rows("Beside AHItoDICOMInterface")[2:]]
    expected = [str(n) for n in range(1, 27)]
    expected.insert(18, "18b")
    assert numbers == expected


def test_what_the_guide_names_exists() -> None:
    words = set(quoted(GUIDE))
    for word in words:
        found = re.fullmatch(
            r"(ImageSet|Series|Study|Volume|Geometry|DicomWeb)\.(\w+)(\(.*\))?", word, re.DOTALL
        )
        if found is None:
            continue
        owner = getattr(healthimaging, found[1])
        known = {*dir(owner), *getattr(owner, "__dataclass_fields__", {})}
        assert found[2] in known, word


def test_limits_are_those_of_the_code() -> None:
    client = healthimaging.connect(
        boto3.Session(aws_access_key_id="a", aws_secret_access_key="b"), region_name="us-east-1"
    )
    source, config = frame_source(client), client.meta.config
    told = " ".join(GUIDE.split())
    assert config.retries == {"mode": "adaptive", "total_max_attempts": source.attempts}
    for fact in (
        f"up to {source.attempts} times within {RETRY_SECONDS:g} s",
        f"boto3's adaptive mode with {source.attempts} attempts",
        f"{config.connect_timeout} s to connect, {config.read_timeout} s of silence",
        f"{BODY_SECONDS:g} s for the body",
        f"seconds ({inspect.signature(healthimaging.DicomWeb).parameters['total_timeout'].default})",
        f"Up to {WORKERS} requests are under way at once",
        f"requests of up to {REQUEST_BYTES // 2**20} MB",
        f"more than {WIDEST_GAP:g} times the usual distance",
    ):
        assert fact in told, fact
    assert {str(status) for status in TRANSIENT_STATUS} <= set(re.findall(r"\b[45]\d\d\b", told))
    assert CANCEL_SECONDS == 1


def test_the_readme_names_the_guide() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    assert "(docs/connector.md)" in readme
