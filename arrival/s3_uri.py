"""S3 URIs."""

from __future__ import annotations


def split_s3_uri(uri: str) -> tuple[str, str]:
    """ "s3://bucket/a/b" -> ("bucket", "a/b")."""
    # Not as a URL: keys may have "?" and "#" in them.
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
