"""DescribeImages of MiniStack's ECR, corrected: an image that is named and is not there is an error.

MiniStack answers an empty list. The CDK CLI takes any answer for "the image exists" and would never build
one. Source: docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html,
ImageNotFoundException.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Describe = Callable[[dict[str, Any]], Any]


def install() -> None:
    """Correct DescribeImages. MiniStack looks the function up for each request."""
    from ministack.core.responses import error_response_json
    from ministack.services import ecr

    describe: Describe = ecr._describe_images

    def corrected(data: dict[str, Any]) -> Any:
        name = data.get("repositoryName", "")
        if name in ecr._repositories:
            for identity in data.get("imageIds") or []:
                if ecr._find_image(name, identity) is None:
                    return error_response_json(
                        "ImageNotFoundException",
                        f"The image with imageId {identity} does not exist within the repository '{name}'",
                        400,
                    )
        return describe(data)

    ecr._describe_images = corrected
