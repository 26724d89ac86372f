"""Objects that are named by their content, such as manifests and bundles: evidence of what a model was made
of. They are written once and never overwritten.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from workbench.errors import WorkbenchError

_THERE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""What S3 answers where the object is there already, or is just being written by somebody else
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html)."""


def put_once(
    client: Any, *, bucket: str, key: str, body: bytes, content_type: str, readable: bool = False
) -> bool:
    """Write an object whose key holds the hash of its content; False if it was there already.

    Args:
        client: boto3 client of S3.
        bucket: Where to.
        key: Named by content.
        body: The content.
        content_type: Its media type.
        readable: Whoever writes may read here: an object that is there is compared with `body`.

    Raises:
        WorkbenchError: An object of that name has another content.
    """
    try:
        client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] not in _THERE:
            raise
        if readable and client.get_object(Bucket=bucket, Key=key)["Body"].read() != body:
            raise WorkbenchError(
                f"s3://{bucket}/{key} is there with another content than its name says.",
                advice="Look at its versions: somebody has overwritten it. Choose another --name.",
            ) from error
        return False
    return True
