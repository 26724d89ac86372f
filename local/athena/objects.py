"""The objects in S3 as the local Athena reads and writes them.

Read where MiniStack keeps them on disk: a query must not pass every byte through the one server process.
Written and deleted through S3 itself, so that what S3 does with an object (versions, notifications) is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from botocore.exceptions import ClientError

from local.athena.dialect import QueryError


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an object, or what is below a prefix, is in S3."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """Raises `QueryError` where the text is no S3 URI."""
        parsed = urlparse(uri)
        if parsed.scheme not in ("s3", "s3a", "s3n") or not parsed.netloc:
            raise QueryError(f"INVALID_TABLE_PROPERTY: {uri!r} is not an S3 location")
        return cls(bucket=parsed.netloc, key=parsed.path.lstrip("/"))

    @property
    def folder(self) -> Place:
        """The same with a slash at its end, as a prefix of what is in it."""
        key = self.key if not self.key or self.key.endswith("/") else f"{self.key}/"
        return Place(bucket=self.bucket, key=key)


class Store(Protocol):
    """How objects are changed."""

    def put(self, place: Place, body: bytes, *, new: bool = False) -> None:
        """Write an object; with `new`, raise `FileExistsError` where there is one."""

    def delete(self, places: Sequence[Place]) -> None:
        """Delete objects of one bucket."""


@dataclass(frozen=True, kw_only=True)
class ClientStore:
    """By a client of this cloud. Not for the event loop: the server would wait for itself."""

    s3: Any

    def put(self, place: Place, body: bytes, *, new: bool = False) -> None:
        condition = {"IfNoneMatch": "*"} if new else {}
        try:
            self.s3.put_object(Bucket=place.bucket, Key=place.key, Body=body, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] == "PreconditionFailed":
                raise FileExistsError(place.key) from error
            raise _refused(error) from error

    def delete(self, places: Sequence[Place]) -> None:
        for start in range(0, len(places), 1000):
            some = places[start : start + 1000]
            try:
                answer = self.s3.delete_objects(
                    Bucket=some[0].bucket,
                    Delete={"Objects": [{"Key": one.key} for one in some], "Quiet": True},
                )
            except ClientError as error:
                raise _refused(error) from error
            for problem in answer.get("Errors", ()):
                raise QueryError(f"GENERIC_INTERNAL_ERROR: S3 did not delete: {problem['Code']}")


class LoopStore:
    """By MiniStack's own functions, for code that runs on its event loop."""

    def put(self, place: Place, body: bytes, *, new: bool = False) -> None:
        from ministack.services import s3

        if new and place.key in (s3._buckets.get(place.bucket) or {"objects": {}})["objects"]:
            raise FileExistsError(place.key)
        status, _, answer = s3._put_object(place.bucket, place.key, body, {"content-length": str(len(body))})
        if status >= 300:
            raise QueryError(f"GENERIC_INTERNAL_ERROR: S3 answered {status}: {answer.decode()[:300]}")

    def delete(self, places: Sequence[Place]) -> None:
        from ministack.services import s3

        for place in places:
            s3._delete_object(place.bucket, place.key)


def path(place: Place, *, account_id: str | None = None) -> Path:
    """The file that has an object's content; it need not exist. `account_id` outside of a request."""
    from ministack.services import s3

    found = s3._object_disk_path(place.bucket, place.key, account_id)
    if found is None:
        raise FileNotFoundError(place.key)
    return Path(found)


def keys(prefix: Place, *, wanted: Callable[[str], bool] = lambda key: True) -> list[str]:
    """The keys below a prefix, in order. Called in the context of a request."""
    from ministack.services import s3

    bucket = s3._buckets.get(prefix.bucket)
    if bucket is None:
        return []
    # One step for the interpreter, so that requests may go on changing the bucket.
    everything = list(bucket["objects"])
    return sorted(key for key in everything if key.startswith(prefix.key) and wanted(key))


def _refused(error: ClientError) -> QueryError:
    problem = error.response["Error"]
    word = "PERMISSION_DENIED" if "Denied" in problem["Code"] else "GENERIC_INTERNAL_ERROR"
    return QueryError(f"{word}: S3: {problem['Code']}: {problem.get('Message', '')}")
