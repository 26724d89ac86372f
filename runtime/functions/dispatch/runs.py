"""A run: one request about one image set to one endpoint, sent once.

The request object in S3 is also the record of how far the run is, in its metadata:

1. **claimed**: the object is put on the condition that it is not there (`If-None-Match: *`). Of several
   invocations that hold events of the same image set, one succeeds; the others find the object.
2. The endpoint is invoked.
3. **accepted**: the object is put again, with where the answer will be. From now on every event of these
   images ends here, until the object expires with its prefix (30 days).

An invocation that dies between 1 and 3 leaves a claim. Its message comes again, and a claim that is older
than any invocation can last is taken over, by one of them (`If-Match`): so no run is lost. Dying between 2
and 3 sends the request twice. That costs a few minutes of an endpoint and stores nothing twice, because the
inference image gives the result of one image set version by one model always the same UIDs. Only if the image
set got a new version in between, with the same images, can there be a result of each: the second request has
to name the new one, whose patient may have been corrected. Sending at least once, with that deduplication
behind it, is therefore right; a lock that could also prevent this rare second request does not exist, because
invoking and noting it cannot be one step.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from healthimaging.reference import ImageSetRef
from runtime.functions.dispatch.errors import RunUnderWayError

CLAIM_SECONDS = 180
"""Age at which a claim is taken over: more than the function's time limit."""

INVOCATION_SECONDS = 3600
"""How long the endpoint may work on a request: as long as SageMaker allows. Unasked, it gives 15 minutes, and
a large volume on a CPU, or behind another one in the container, would fail each time
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointAsync.html).
"""

_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""The object is not as the condition wants it; or (409) somebody else puts it at this moment."""

_STATE = "state"
_CLAIMED = "claimed"
_ACCEPTED = "accepted"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One request to one endpoint."""

    image_set: ImageSetRef
    images: str
    """Digest of the images (`images_digest`), in place of the version: a new version with the same images of
    the same patient and study is not a new run.
    """
    endpoint: str
    model: str
    """ARN of the model package behind the endpoint: another model is another run."""

    @property
    def id(self) -> str:
        """The same for the same images, endpoint and model, whenever and however often it is asked for."""
        parts = (
            self.image_set.datastore_id,
            self.image_set.image_set_id,
            self.images,
            self.endpoint,
            self.model,
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    @property
    def name(self) -> str:
        """Of its object: all requests of an image set are side by side."""
        return f"{self.image_set.datastore_id}/{self.image_set.image_set_id}/{self.id}.json"

    @property
    def request(self) -> bytes:
        """What the endpoint is asked."""
        return json.dumps(
            {
                "datastoreId": self.image_set.datastore_id,
                "imageSetId": self.image_set.image_set_id,
                "versionId": self.image_set.version_id,
            }
        ).encode()


class Requests:
    """Sends runs to their endpoints."""

    def __init__(self, *, s3: Any, sagemaker_runtime: Any, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._sagemaker_runtime = sagemaker_runtime
        self._bucket = bucket
        self._prefix = prefix

    def send(self, run: Run) -> bool:
        """Send the request, unless it has been sent before.

        Returns:
            Whether it was sent now.

        Raises:
            RunUnderWayError: Another invocation has claimed the run and not yet sent it.
        """
        if not self._claim(run):
            return False
        accepted = self._sagemaker_runtime.invoke_endpoint_async(
            EndpointName=run.endpoint,
            InputLocation=f"s3://{self._bucket}/{self._key(run)}",
            ContentType="application/json",
            Accept="application/json",
            InferenceId=run.id,
            InvocationTimeoutSeconds=INVOCATION_SECONDS,
        )
        locations = {"output": accepted.get("OutputLocation"), "failure": accepted.get("FailureLocation")}
        self._put(run, {_STATE: _ACCEPTED, **{name: uri for name, uri in locations.items() if uri}})
        return True

    def _claim(self, run: Run) -> bool:
        """Whether the run is now this invocation's to send; False when it has been sent."""
        try:
            self._put(run, {_STATE: _CLAIMED}, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise
        else:
            return True
        found = self._s3.head_object(Bucket=self._bucket, Key=self._key(run))
        if found["Metadata"].get(_STATE) == _ACCEPTED:
            return False
        if (datetime.now(UTC) - found["LastModified"]).total_seconds() < CLAIM_SECONDS:
            msg = f"run {run.id} is being sent by another invocation"
            raise RunUnderWayError(msg)
        try:
            # Not if another invocation has taken it over, or sent it, since it was looked at.
            self._put(run, {_STATE: _CLAIMED}, IfMatch=found["ETag"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise
            msg = f"run {run.id} has been taken over by another invocation"
            raise RunUnderWayError(msg) from error
        return True

    def _put(self, run: Run, metadata: dict[str, str], **condition: str) -> None:
        self._s3.put_object(
            Bucket=self._bucket,
            Key=self._key(run),
            Body=run.request,
            ContentType="application/json",
            Metadata=metadata,
            **condition,
        )

    def _key(self, run: Run) -> str:
        return f"{self._prefix}{run.name}"
