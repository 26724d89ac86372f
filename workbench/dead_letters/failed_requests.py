"""Asynchronous requests that an endpoint failed, as the announce function notes them in the result bucket.

A note lies at `failures/noted/<run id>.json` until a request of the same run id succeeds. Asking again leaves
it: whoever took it away at that moment could take away the note of the next failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from workbench.dead_letters.letter import DeadLetter, Held
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.predicting.asynchronous import INVOCATION_SECONDS

NOTED = "failures/noted/"
THREADS = 16


@dataclass(frozen=True)
class FailedRequests:
    """The notes in the result bucket."""

    deployment: Deployment

    @contextmanager
    def open(self) -> Iterator[list[Held]]:
        """Every note; nobody else is kept from them."""
        s3, bucket = self._s3, self._bucket
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=NOTED)
        found = [one for page in pages for one in page.get("Contents", ())]
        with ThreadPoolExecutor(THREADS) as pool:
            yield list(pool.map(self._held, found))

    @property
    def _s3(self) -> Any:
        return self.deployment.session.client("s3")

    @property
    def _bucket(self) -> str:
        return self.deployment.stack("data")["ResultBucketName"]

    def _held(self, entry: Mapping[str, Any]) -> Held:
        bucket, key = self._bucket, entry["Key"]
        note: Mapping[str, Any] = json.loads(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())

        def replay() -> None:
            if note.get("request") is None:
                raise WorkbenchError(
                    f"Run {note['runId']} brought its request with it: there is none to send again.",
                    advice="Ask anew: monai-aws predict IMAGE_SET_ID.",
                )
            try:
                self.deployment.session.client("sagemaker-runtime").invoke_endpoint_async(
                    EndpointName=note["endpoint"],
                    InputLocation=note["request"],
                    ContentType="application/json",
                    Accept="application/json",
                    InferenceId=note["runId"],
                    InvocationTimeoutSeconds=INVOCATION_SECONDS,
                )
            except ClientError as error:
                # What is wrong with this request, a removed endpoint, is not wrong with the next.
                if error.response["Error"]["Code"] != "ValidationError":
                    raise
                raise WorkbenchError(
                    f"Endpoint {note['endpoint']} does not take run {note['runId']} again: {error}",
                    advice="If the endpoint is gone, ask another one: monai-aws predict IMAGE_SET_ID.",
                ) from error

        def discard() -> None:
            # No persona may delete objects: who deploys can, and the note expires by itself.
            self._s3.delete_object(Bucket=bucket, Key=key)

        letter = DeadLetter(
            id=str(note["runId"]),
            place="request",
            when=entry["LastModified"],
            about=_about(note),
            reason=str(note["error"]["type"]),
            replay="asks the endpoint again; the note goes when that succeeds",
        )
        return Held(letter=letter, replay=replay, discard=discard)


def _about(note: Mapping[str, Any]) -> dict[str, str]:
    found = {"endpoint": str(note["endpoint"])}
    image_sets = note.get("imageSets", ())
    if len(image_sets) == 1:
        found |= {name: str(value) for name, value in image_sets[0].items()}
    elif image_sets:
        found["imageSets"] = " ".join(str(one["imageSetId"]) for one in image_sets)
    if note.get("failure"):
        found["failure"] = str(note["failure"])
    return found
