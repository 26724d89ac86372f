"""S3 URIs."""

from __future__ import annotations

from urllib.parse import urlsplit


def split_s3_uri(uri: str) -> tuple[str, str]:
    """ "s3://bucket/a/b" -> ("bucket", "a/b")."""
    parts = urlsplit(uri, allow_fragments=False)
    return parts.netloc, parts.path.removeprefix("/")
