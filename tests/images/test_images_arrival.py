"""What ECS does with the receiver's image: started as nobody, asked by its health check, ended by SIGTERM."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from container_under_test import ImageUnderTest

from local.containers.buildah import tool

NOBODY = "65534:65534"
PORT = 11113
TITLE = "MONAI_TEST"
SEND = f"""
from pydicom.data import get_testdata_file
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

device = AE(ae_title="SCANNER")
device.add_requested_context(CTImageStorage)
association = device.associate("127.0.0.1", {PORT}, ae_title="{TITLE}")
print(association.send_c_store(get_testdata_file("CT_small.dcm")).Status)
association.release()
"""
"""A device: it runs from the image too, which has all that it takes."""


@pytest.fixture(scope="module")
def variables(cloud: Any, archive: Any) -> dict[str, str]:
    """As the stack `arrival` tells them, for the local cloud."""
    s3 = cloud.client("s3")
    for name in ("receiver-inbox", "receiver-imports"):
        s3.create_bucket(Bucket=name)
    return {
        **cloud.environment,
        "ARRIVAL_AE_TITLE": TITLE,
        "ARRIVAL_PORT": str(PORT),
        "ARRIVAL_ALLOWED": json.dumps([{"ae_title": "SCANNER", "cidr": "127.0.0.0/8"}]),
        "ARRIVAL_QUIET_SECONDS": "3600",
        "ARRIVAL_DATASTORE_ID": archive.datastore_id,
        "ARRIVAL_INBOX_BUCKET": "receiver-inbox",
        "ARRIVAL_IMPORT_BUCKET": "receiver-imports",
        "ARRIVAL_IMPORT_ROLE_ARN": "arn:aws:iam::000000000000:role/none",
        "ARRIVAL_DEIDENTIFY": "false",
    }


def command(image: ImageUnderTest, variables: dict[str, str], argument: str) -> list[str]:
    named = (word for name, value in variables.items() for word in ("--env", f"{name}={value}"))
    entry_point = [*image.config["Entrypoint"], argument]
    return ["buildah", "run", *tool.ISOLATION, "--user", NOBODY, *named, image.container, "--", *entry_point]


@contextmanager
def receiving(
    image: ImageUnderTest, variables: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command(image, variables, "receive"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while echo(image, variables):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def echo(image: ImageUnderTest, variables: dict[str, str]) -> int:
    """The health check's exit code."""
    return subprocess.run(command(image, variables, "echo"), capture_output=True, check=False).returncode


def test_nobody_receives_and_writes_no_file(
    arrival_image: ImageUnderTest, variables: dict[str, str], cloud: Any, tmp_path: Path
) -> None:
    assert echo(arrival_image, variables) != 0, "nobody is there yet"
    with receiving(arrival_image, variables, tmp_path / "receiver.log"):
        sent = arrival_image.run("python", "-c", SEND)
        assert sent == "0", (tmp_path / "receiver.log").read_text()
        kept = cloud.client("s3").list_objects_v2(Bucket="receiver-inbox", Prefix="received/")["Contents"]
        assert len([one for one in kept if one["Key"].endswith(".dcm")]) == 1
    with tool.root_folder(arrival_image.container) as root:
        # Its file system is read-only on ECS: what it would have written here, it could not write there.
        found = [
            file
            for folder in ("opt", "tmp", "var", "home")
            for file in (root / folder).rglob("*")
            if file.lstat().st_uid == int(NOBODY.split(":")[0])
        ]
    assert not found
    assert "CompressedSamples" not in (tmp_path / "receiver.log").read_text(), "a patient's name in the log"


def test_what_is_missing_is_said_at_once(arrival_image: ImageUnderTest, variables: dict[str, str]) -> None:
    few = {
        name: value for name, value in variables.items() if name not in ("ARRIVAL_AE_TITLE", "ARRIVAL_PORT")
    }
    done = subprocess.run(
        command(arrival_image, few, "receive"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "ARRIVAL_AE_TITLE" in done.stderr
    assert "ARRIVAL_PORT" in done.stderr
