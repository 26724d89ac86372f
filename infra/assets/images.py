"""The images of this repository, built from it by `cdk deploy`: of training, inference and the receiver."""

from __future__ import annotations

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from constructs import Construct

from infra.repository import ROOT

CONNECTOR = "healthimaging"
"""The package that every image contains besides its own."""

BASE_IMAGE = "BASE_IMAGE"
"""The build argument that every Dockerfile has for the image to build on."""


class Image(Construct):
    """The image of one package: its folder and the connector, nothing else of the repository.

    The context is chosen here and not by a `.dockerignore`, so that what is hashed is what is built: caches,
    tests and unrelated edits never make a new image.
    """

    def __init__(
        self, scope: Construct, id: str, *, package: str, base: str | None, without: tuple[str, ...] = ()
    ) -> None:
        super().__init__(scope, id)
        self._asset = ecr_assets.DockerImageAsset(
            self,
            "Asset",
            directory=str(ROOT),
            file=f"{package}/Dockerfile",
            build_args={BASE_IMAGE: base} if base else None,
            platform=ecr_assets.Platform.LINUX_AMD64,
            exclude=[
                "*",
                f"!{CONNECTOR}",
                f"!{package}",
                *without,
                "**/__pycache__",
                "**/*.py[co]",
                "**/.*",
                "**/*.md",
            ],
        )

    @property
    def uri(self) -> str:
        return self._asset.image_uri

    @property
    def repository(self) -> ecr.IRepository:
        return self._asset.repository
