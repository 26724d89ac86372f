"""The local cloud's ECR as the registry of the image store.

A push puts a manifest whose configuration digest is the image's digest in the store; a pull asks ECR for that
manifest with the credentials of who pulls, so that a role without permission to pull is refused as on AWS.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.exceptions

from local.containers.errors import ContainerError, ImageNotFoundError
from local.containers.image import Image

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_NAME = re.compile(
    r"^(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/"
    r"(?P<repository>[a-z0-9._/-]+)(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))?$"
)


@dataclass(frozen=True, kw_only=True)
class RegistryName:
    """Name of an image in ECR."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, name: str) -> RegistryName:
        """Read "000000000000.dkr.ecr.us-east-1.amazonaws.com/repository:tag" (or @sha256:...)."""
        match = _NAME.match(name)
        if match is None:
            raise ContainerError(
                f"{name!r} is not an Amazon ECR image (ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG)"
            )
        tag = match["tag"] if match["tag"] or match["digest"] else "latest"
        return cls(
            account=match["account"],
            region=match["region"],
            repository=match["repository"],
            tag=tag,
            digest=match["digest"],
        )


def manifest_of(image: Image) -> str:
    """The manifest that stands for a stored image."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": _CONFIG_TYPE, "digest": image.digest, "size": 0},
            "layers": [],
            "annotations": {"org.opencontainers.image.base.name": image.config.base},
        },
        sort_keys=True,
    )


def push(*, image: Image, name: str) -> str:
    """Register an image with ECR, by the AWS_* environment's credentials; the manifest's digest."""
    registry = RegistryName.parse(name)
    client = boto3.client("ecr", region_name=registry.region)
    host = urlsplit(client.meta.endpoint_url).hostname
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise ContainerError(
            f"an image of the local store cannot go to {host}: it holds no layers. "
            "Set AWS_ENDPOINT_URL to the local cloud, or push to AWS with a container engine"
        )
    manifest = manifest_of(image)
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    try:
        client.put_image(
            registryId=registry.account,
            repositoryName=registry.repository,
            imageManifest=manifest,
            imageManifestMediaType=MANIFEST_TYPE,
            imageTag=registry.tag or "latest",
        )
    except botocore.exceptions.ClientError as error:
        # The same image under the same tag of an immutable repository is already what was asked for.
        if not _is_same(client, error, registry, digest):
            raise ContainerError(f"push of {name} failed: {error}") from error
    return digest


def pull(*, client: Any, name: str) -> str:
    """Digest (in the image store) of an ECR image, by an ECR client of who pulls.

    Source: docs.aws.amazon.com/AmazonECR/latest/userguide/repository-policies.html: a pull needs
    ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:GetDownloadUrlForLayer and
    ecr:BatchGetImage.

    Raises:
        botocore.exceptions.ClientError: AccessDenied, or no such repository.
        ImageNotFoundError: the repository has no such image.
    """
    registry = RegistryName.parse(name)
    client.get_authorization_token()
    identity = {"imageDigest": registry.digest} if registry.digest else {"imageTag": registry.tag}
    answer = client.batch_get_image(
        registryId=registry.account, repositoryName=registry.repository, imageIds=[identity]
    )
    if not answer["images"]:
        raise ImageNotFoundError(name)
    try:
        return str(json.loads(answer["images"][0]["imageManifest"])["config"]["digest"])
    except (ValueError, KeyError, TypeError):
        raise ContainerError(
            f"{name} was not pushed by the local docker front; push it with local/containers/docker"
        ) from None


def _is_same(
    client: Any, error: botocore.exceptions.ClientError, registry: RegistryName, digest: str
) -> bool:
    if error.response["Error"]["Code"] not in (
        "ImageAlreadyExistsException",
        "ImageTagAlreadyExistsException",
    ):
        return False
    found = client.batch_get_image(repositoryName=registry.repository, imageIds=[{"imageTag": registry.tag}])
    return any(image["imageId"]["imageDigest"] == digest for image in found["images"])
