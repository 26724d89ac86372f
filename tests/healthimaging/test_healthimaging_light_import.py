"""What a function bundles without numpy must import without it; and what is exported exists."""

from __future__ import annotations

import subprocess
import sys

import pytest

import healthimaging

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"numpy", "pydicom", "highdicom", "imagecodecs", "torch", "monai", *EXTRA}:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    ("statement", "also_blocked"),
    [
        ("import healthimaging", ["boto3", "botocore"]),
        ("import healthimaging.metadata", ["boto3", "botocore"]),
        ("import healthimaging.catalog_rows", ["boto3", "botocore"]),
        ("import healthimaging.manifest", ["boto3", "botocore"]),
        ("import healthimaging.errors", ["boto3", "botocore"]),
        ("from healthimaging import connect", []),
    ],
)
def test_needs_no_more_than_promised(statement: str, also_blocked: list[str]) -> None:
    program = f"EXTRA = {also_blocked!r}\n{BLOCKED}\n{statement}\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", healthimaging.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(healthimaging, name).__name__ == name
    assert name in dir(healthimaging)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        healthimaging.Nothing  # noqa: B018 - the access is the test
