"""What a model package of the environment before says, and the candidate that becomes of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.functions.promote.errors import NotOfferedError, UnsupportedPackageError

PROMOTED = "promoted"
"""Prefix of the model bucket under which copies are. Only this function writes there."""

_ARN = re.compile(
    r"arn:aws[a-z-]*:sagemaker:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):"
    r"model-package/(?P<group>[A-Za-z0-9-]+)/(?P<version>[0-9]+)"
)
_URI = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)")
_TOKENS = uuid.UUID("5b0d5c7c-6d53-4d35-9f5c-6a6f0c1f2b67")
"""Namespace of idempotency tokens; any constant would do."""

_KEPT = (
    "SupportedContentTypes",
    "SupportedResponseMIMETypes",
    "SupportedTransformInstanceTypes",
    "SupportedRealtimeInferenceInstanceTypes",
)
"""Members of an inference specification that are as true here as there."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What this environment takes, and from where."""

    source_environment: str
    source_account: str
    groups: Mapping[str, str]
    """Model package group there -> group here."""
    inference_image: str
    """The image that this environment deployed: a candidate runs in it, not in the one of its origin."""
    model_bucket: str


@dataclass(frozen=True, kw_only=True)
class S3Object:
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A package of the environment before."""

    arn: str
    group: str
    version: str

    @property
    def folder(self) -> str:
        """Below which its copy is here; a package is one version of one group of one account."""
        return f"{PROMOTED}/{self.arn.split(':')[4]}/{self.group}/{self.version}"

    @property
    def description(self) -> str:
        """Description of the candidate. It is in the answer of ListModelPackages, other than metadata, so a
        look at the list finds out whether the candidate is there.
        """
        return f"Candidate from {self.arn}"

    @property
    def token(self) -> str:
        """Two deliveries of one event that overlap register one candidate."""
        return str(uuid.uuid5(_TOKENS, self.arn))


def source_of(arn: str, *, settings: Settings) -> Source:
    """The package with this ARN.

    Raises:
        NotOfferedError: It is none that this environment takes.
    """
    match = _ARN.fullmatch(arn)
    if match is None or match["account"] != settings.source_account or match["group"] not in settings.groups:
        msg = f"{settings.source_environment} does not offer {arn}"
        raise NotOfferedError(msg)
    return Source(arn=arn, group=match["group"], version=match["version"])


def model_of(package: Mapping[str, Any]) -> S3Object:
    """The archive of the package's model.

    Raises:
        UnsupportedPackageError: It has none, or more than one.
    """
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    if len(containers) != 1 or "ModelDataUrl" not in containers[0]:
        msg = "The package does not have one container with a ModelDataUrl"
        raise UnsupportedPackageError(msg)
    return object_of(containers[0]["ModelDataUrl"])


def evaluation_of(package: Mapping[str, Any]) -> S3Object:
    """The evaluation on which the package was approved.

    Raises:
        UnsupportedPackageError: It has none, so nobody here could decide about it.
    """
    statistics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
    if "S3Uri" not in statistics:
        msg = "The package has no evaluation (ModelMetrics.ModelQuality.Statistics)"
        raise UnsupportedPackageError(msg)
    return object_of(statistics["S3Uri"])


def object_of(uri: str) -> S3Object:
    """Bucket and key of an `s3://` URI."""
    match = _URI.fullmatch(uri)
    if match is None:
        msg = "The package names something that is not an object in S3"
        raise UnsupportedPackageError(msg)
    return S3Object(bucket=match["bucket"], key=match["key"])


def candidate(
    package: Mapping[str, Any],
    *,
    source: Source,
    settings: Settings,
    model: S3Object,
    evaluation: S3Object,
    sha256: str,
) -> dict[str, Any]:
    """The request of CreateModelPackage. A person of this environment decides about it."""
    specification = package["InferenceSpecification"]
    origin = package.get("CustomerMetadataProperties", {})
    provenance = {
        "sourceModelPackageArn": source.arn,
        "sourceEnvironment": settings.source_environment,
        "sourceModelDataUrl": model_of(package).uri,
        "modelSha256": sha256,
        # Through several environments these two stay those of the training.
        "trainedModelPackageArn": origin.get("trainedModelPackageArn", source.arn),
        "manifestUri": origin.get("manifestUri"),
    }
    return {
        "ModelPackageGroupName": settings.groups[source.group],
        "ModelPackageDescription": source.description,
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [{"Image": settings.inference_image, "ModelDataUrl": model.uri}],
            **{name: specification[name] for name in _KEPT if specification.get(name)},
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation.uri}}
        },
        "CustomerMetadataProperties": {name: value for name, value in provenance.items() if value},
        "ClientToken": source.token,
    }
