"""What a function bundles without numpy must import without it; and what is exported exists."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import healthimaging
from healthimaging import errors

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
        ("import healthimaging.catalog.rows", ["boto3", "botocore"]),
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


@pytest.mark.parametrize(
    "error",
    [
        errors.FrameChecksumError("m", image_set_id="i", sop_instance_uid="1.2", frame_number=3),
        errors.FrameUnavailableError("m", code="c", image_set_id="i", sop_instance_uid="1.2", frame_number=3),
        errors.ServiceError("m", operation="GetImageSet", code="c"),
        errors.SeriesNotFoundError("m", series_instance_uid="1.2"),
        errors.StoreInterruptedError("m", outcomes=(), unanswered=("1.2",)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_whole_in_another_process(error: errors.HealthImagingError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - written a moment ago
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
