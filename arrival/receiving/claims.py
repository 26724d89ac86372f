"""Which receiver imports a batch, and by which job: one object in S3 for each batch that is being imported.

Whoever makes the object (`If-None-Match: *`) has the batch, and renews its claim by writing it again
(`If-Match`: nobody else wrote meanwhile). A claim that was not renewed for longer than it says is taken over
the same way. Of two that try at once S3 lets one through
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Ages are told by S3's clock
alone: LastModified against the Date of its answers.

A claim saves work; correctness does not hang on it. It names the client token of the job before the job is
started, so two receivers that both think they have a batch get one job from HealthImaging, and both then do
the same: put away what the job's manifest names.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from arrival.errors import ClaimLostError
from arrival.receiving.object_names import BatchName

LEASE_SECONDS = 120.0
"""So long a claim holds that is not renewed; longer than any step between two renewals takes."""

_REFUSED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_GONE = frozenset({"NoSuchKey", "404"})


@dataclass(frozen=True, kw_only=True)
class Work:
    """How far a batch has come."""

    token: str
    """Client token of the job: known here before the job is started."""
    job_id: str = ""
    """Empty until the job is known."""
    round: int = 1
    """The how manyth job over this batch."""
    failures: int = 0
    """Jobs in a row that failed as a whole."""
    lease_seconds: float = LEASE_SECONDS

    def next_round(self, *, failures: int = 0, lease_seconds: float = LEASE_SECONDS) -> Work:
        """A new job over what is left in the batch."""
        return Work(
            token=uuid.uuid4().hex, round=self.round + 1, failures=failures, lease_seconds=lease_seconds
        )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A batch that this receiver has."""

    name: BatchName
    work: Work
    etag: str


class Claims:
    """The claims of one inbox bucket.

    Args:
        s3: boto3 `s3` client.
        bucket: The inbox.
        lease_seconds: Of new claims.
    """

    def __init__(self, s3: Any, *, bucket: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._s3, self._bucket = s3, bucket
        self.lease_seconds = lease_seconds

    def take(self, name: BatchName) -> Claim | None:
        """The claim on a batch, new or taken over with the work as the last owner left it; None while
        somebody else has it.
        """
        fresh = Work(token=uuid.uuid4().hex, lease_seconds=self.lease_seconds)
        made = self._write(name, fresh, IfNoneMatch="*")
        if made is not None:
            return made
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=name.claim)
        except ClientError as error:
            if error.response["Error"].get("Code") in _GONE:
                # It was given back this moment: there will be another look.
                return None
            raise
        age = (moment_of(found) - found["LastModified"]).total_seconds()
        work = _work(json.loads(found["Body"].read()))
        if age < work.lease_seconds:
            return None
        return self._write(name, replace(work, lease_seconds=self.lease_seconds), IfMatch=found["ETag"])

    def write(self, claim: Claim, work: Work) -> Claim:
        """Note how far the work has come, which also renews the claim.

        Raises:
            ClaimLostError: Somebody else has the batch now.
        """
        made = self._write(claim.name, work, IfMatch=claim.etag)
        if made is None:
            raise ClaimLostError(f"Batch {claim.name.batch} was taken over by another receiver.")
        return made

    def give_back(self, claim: Claim) -> None:
        """There is nothing left to do. A claim that is somebody else's by now stays."""
        try:
            self._s3.delete_object(Bucket=self._bucket, Key=claim.name.claim, IfMatch=claim.etag)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _REFUSED | _GONE:
                raise

    def _write(self, name: BatchName, work: Work, **condition: str) -> Claim | None:
        # Equal contents have equal ETags: without something new in each, a claim that was renewed would look
        # as it did before.
        document = {**asdict(work), "write": secrets.token_hex(8)}
        try:
            answer = self._s3.put_object(
                Bucket=self._bucket,
                Key=name.claim,
                Body=json.dumps(document).encode("utf-8"),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"].get("Code") in _REFUSED | _GONE:
                return None
            raise
        return Claim(name=name, work=work, etag=answer["ETag"])


def moment_of(answer: Mapping[str, Any]) -> datetime:
    """When S3 gave an answer, by its own clock (UTC)."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _work(document: Mapping[str, Any]) -> Work:
    return Work(
        token=str(document["token"]),
        job_id=str(document["job_id"]),
        round=int(document["round"]),
        failures=int(document["failures"]),
        lease_seconds=float(document["lease_seconds"]),
    )
