"""What can go wrong with images and containers."""

from __future__ import annotations


class ContainerError(Exception):
    """An image or a container could not be had; the message says what to do."""


class BuildError(ContainerError):
    """A Dockerfile or its context cannot be built."""


class ImageNotFoundError(ContainerError):
    """No image has this name."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        super().__init__(
            f"no image {reference!r} in the local image store; "
            "build and push it first (cdk deploy, make images)"
        )


class EnvironmentCreationError(ContainerError):
    """pip could not make the environment of an image."""
