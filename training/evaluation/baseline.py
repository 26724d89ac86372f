"""The model that is in use: the newest approved package of the group, verified and opened like a new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from healthimaging import HealthImagingError, Manifest
from training.errors import BaselineError, TrainingError
from training.evaluation.gate import trained_patients
from training.evaluation.model import ARCHIVE, Model, ModelFolder, open_model, same_task

Connect = Callable[[str], Any]
"""Makes a client of an AWS service."""


@dataclass(frozen=True, kw_only=True)
class Approved:
    """What the registry says about a package."""

    arn: str
    model_uri: str
    evaluation_uri: str | None
    manifest_uri: str | None
    sha256: str | None
    """Of the archive, where its promotion recorded it."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """An approved model, ready to be measured.

    Attributes:
        arn: Its package.
        model: The model.
        seen: Keys of the patients that it was trained on; None where this cannot be known.
        unknown: Why it cannot.
    """

    arn: str
    model: Model
    seen: frozenset[str] | None
    unknown: str | None


def connected(service: str) -> Any:
    """A client with the credentials, region and endpoint of the environment."""
    return boto3.client(service)


def newest_approved(group: str, *, connect: Connect) -> Approved | None:
    """The group's newest approved package; None when nothing is approved yet.

    Raises:
        BaselineError: The registry cannot be read, or the package is not made as this platform makes them.
    """
    try:
        sagemaker = connect("sagemaker")
        arn = _newest(sagemaker, group)
        if arn is None:
            return None
        package = sagemaker.describe_model_package(ModelPackageName=arn)
    except (ClientError, BotoCoreError) as error:
        msg = f"The approved packages of {group} cannot be read: {describe(error)}"
        raise BaselineError(msg) from error
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    if len(containers) != 1 or "ModelDataUrl" not in containers[0]:
        msg = f"{arn} does not have one container with a ModelDataUrl"
        raise BaselineError(msg)
    statistics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
    properties = package.get("CustomerMetadataProperties", {})
    return Approved(
        arn=arn,
        model_uri=containers[0]["ModelDataUrl"],
        evaluation_uri=statistics.get("S3Uri"),
        manifest_uri=properties.get("manifestUri"),
        sha256=properties.get("modelSha256"),
    )


def open_baseline(approved: Approved, *, against: Model, scratch: Path, connect: Connect) -> Baseline:
    """Fetches, verifies and opens the approved model.

    Args:
        approved: What the registry says.
        against: The model that it will be compared with.
        scratch: An empty folder.
        connect: Makes AWS clients.

    Raises:
        BaselineError: It cannot be fetched, is not what was evaluated when it was approved, cannot be opened,
            or does something else than `against`.
    """
    try:
        s3 = connect("s3")
        folder, unpacked = scratch / "archive", scratch / "unpacked"
        folder.mkdir()
        unpacked.mkdir()
        s3.download_file(*_place(approved.model_uri), str(folder / ARCHIVE))
        opened = open_model(folder, unpacked)
        _verify(approved, opened, s3=s3)
        model = Model(opened.bundle)
        seen, unknown = _seen(approved, opened, s3=s3)
    except (ClientError, BotoCoreError, OSError) as error:
        msg = f"The approved model cannot be fetched: {describe(error)}"
        raise BaselineError(msg) from error
    except BaselineError:
        raise
    except TrainingError as error:
        msg = f"The approved model cannot be opened: {error}"
        raise BaselineError(msg) from error
    except Exception as error:
        # The approved bundle's own code, which may raise anything.
        msg = f"The approved model cannot be opened: {type(error).__name__}"
        raise BaselineError(msg) from error
    different = same_task(against, model)
    if different is not None:
        msg = f"The approved model cannot be compared: {different}"
        raise BaselineError(msg)
    return Baseline(arn=approved.arn, model=model, seen=seen, unknown=unknown)


def describe(error: Exception) -> str:
    """An error of AWS in a few words; its text may name more than a failure text should."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response.get('Error', {}).get('Code', 'Unknown')}"
    return type(error).__name__


def _newest(sagemaker: Any, group: str) -> str | None:
    request = {
        "ModelPackageGroupName": group,
        "ModelApprovalStatus": "Approved",
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
    }
    # A page without packages says nothing while another one follows. Taken for the end, it would let a model
    # pass that nobody compared.
    while True:
        page = sagemaker.list_model_packages(**request)
        if page["ModelPackageSummaryList"]:
            return str(page["ModelPackageSummaryList"][0]["ModelPackageArn"])
        if not page.get("NextToken"):
            return None
        request["NextToken"] = page["NextToken"]


def _verify(approved: Approved, opened: ModelFolder, *, s3: Any) -> None:
    """The archive has to be the one that was measured when the package was registered."""
    recorded = {approved.sha256} if approved.sha256 else set()
    if approved.evaluation_uri is not None:
        bucket, key = _place(approved.evaluation_uri)
        try:
            evaluation = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            weights = evaluation["weights"]
            archive = (evaluation.get("modelArchive") or {}).get("sha256")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"The evaluation of {approved.arn} does not say which weights it is about"
            raise BaselineError(msg) from error
        if weights != opened.weights:
            msg = f"The weights of {approved.arn} are not those that its evaluation measured"
            raise BaselineError(msg)
        recorded |= {archive} if archive else set()
    if recorded - {opened.archive_sha256}:
        msg = f"The archive of {approved.arn} is not the one that was evaluated"
        raise BaselineError(msg)


def _seen(approved: Approved, opened: ModelFolder, *, s3: Any) -> tuple[frozenset[str] | None, str | None]:
    """The patients that the approved model was trained on: as its record says, else as its manifest says.

    The manifest's address alone is not enough: it can be overwritten, the digest in the record cannot.
    """
    recorded = trained_patients(opened.provenance)
    if recorded is not None:
        return recorded, None
    wanted = opened.provenance.get("manifestSha256")
    if not wanted:
        return None, "it does not say which manifest it was trained from"
    if approved.manifest_uri is None:
        return None, "its package names no manifest"
    bucket, key = _place(approved.manifest_uri)
    try:
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (ClientError, BotoCoreError) as error:
        # A promoted model's manifest stays in the account that trained it.
        return None, f"its manifest cannot be read ({describe(error)})"
    if _sha256(content) != wanted:
        return None, "its manifest was changed after the training"
    try:
        manifest = Manifest.from_json(content)
    except HealthImagingError:
        return None, "its manifest is not one that this version reads"
    return frozenset(case.patient_key for case in manifest.cases if case.split == "train"), None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _place(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    bucket, key = parts.netloc, parts.path.removeprefix("/")
    if parts.scheme != "s3" or not bucket or not key:
        msg = f"{uri!r} is not an object in S3"
        raise BaselineError(msg)
    return bucket, key
