"""Keeps instances, and says so only when they are kept."""

from __future__ import annotations

from typing import Any

from arrival.errors import NotKeptError
from arrival.importing.import_job import Archive
from arrival.receiving.batches import OpenBatches
from arrival.receiving.deidentifying import Deidentifying, Prepared, as_it_came
from arrival.receiving.durable import keep, keep_json
from arrival.receiving.events import Observer
from arrival.receiving.instance import Instance, Refusal, Status
from arrival.receiving.object_names import BatchName


class Keeper:
    """Brings every instance into its batch in S3.

    Args:
        s3: boto3 `s3` client.
        archive: Whose inbox it is.
        batches: The batches that this receiver fills.
        deidentifying: How instances lose their patient; None if they are kept as they came.
        observer: Is told.
    """

    def __init__(
        self,
        *,
        s3: Any,
        archive: Archive,
        batches: OpenBatches,
        deidentifying: Deidentifying | None,
        observer: Observer,
    ) -> None:
        self._s3, self._bucket = s3, archive.inbox_bucket
        self._batches = batches
        self._deidentifying = deidentifying
        self._observer = observer

    def keep(self, instance: Instance) -> Refusal | None:
        """None once the instance is durable in S3 and may be acknowledged; else what to answer.

        What goes to quarantine is acknowledged too: it is safe, and the device, which would send it again and
        again, can do nothing about it.
        """
        try:
            prepared = self._prepare(instance)
        except Exception as error:  # noqa: BLE001 - of pydicom, on damage; its text may quote values
            return Refusal(
                status=Status.CANNOT_UNDERSTAND, reason=f"it cannot be de-identified ({type(error).__name__})"
            )
        size = len(prepared.body)
        with self._batches.place(prepared.study, size=size) as batch:
            try:
                self._put(prepared, batch)
            except NotKeptError as error:
                self._observer.trouble(
                    "keeping", kind=type(error.__cause__ or error).__name__, batch=batch
                )
                return Refusal(status=Status.OUT_OF_RESOURCES, reason="storage does not answer, send again")
        if prepared.reasons:
            self._observer.quarantined(batch, size=size)
        else:
            self._observer.received(batch, size=size)
        return None

    def _prepare(self, instance: Instance) -> Prepared:
        if self._deidentifying is None:
            return as_it_came(instance)
        return self._deidentifying.prepare(instance)

    def _put(self, prepared: Prepared, batch: BatchName) -> None:
        """What says about the instance before the instance: no instance is ever without it."""
        if prepared.record is not None:
            key = f"{batch.records}{prepared.name}.json"
            keep_json(self._s3, bucket=self._bucket, key=key, document=prepared.record)
        if prepared.reasons:
            stem = batch.quarantine + prepared.name
            keep_json(
                self._s3, bucket=self._bucket, key=f"{stem}.json", document={"reasons": list(prepared.reasons)}
            )
            keep(self._s3, bucket=self._bucket, key=f"{stem}.dcm", body=prepared.body)
            return
        keep(self._s3, bucket=self._bucket, key=f"{batch.prefix}{prepared.name}.dcm", body=prepared.body)
