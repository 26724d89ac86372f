"""What a receiver tells about its work: to the log and the metrics, or to a person's screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from arrival.receiving.object_names import BatchName


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What an import job said about a batch; names are those of the objects."""

    batch: BatchName
    job_id: str
    imported: int
    failed: int
    seconds: float
    """From the last instance's arrival until all this was known."""
    image_sets: tuple[str, ...] = field(default=())


class Observer(Protocol):
    """Is told, by any thread. Nothing that it gets describes a patient: titles and addresses are devices'."""

    def accepted(self, *, ae_title: str, address: str) -> None:
        """An association was established."""

    def rejected(self, *, ae_title: str, address: str, reason: str) -> None:
        """An association was rejected, or its TLS failed."""

    def received(self, batch: BatchName, *, size: int) -> None:
        """An instance is kept and will be imported."""

    def quarantined(self, batch: BatchName, *, size: int) -> None:
        """An instance is kept and will not be imported."""

    def refused(self, *, status: int, reason: str) -> None:
        """An instance was not kept, and the device was told so."""

    def started(self, batch: BatchName, *, job_id: str, instances: int) -> None:
        """An import job runs."""

    def imported(self, result: BatchResult) -> None:
        """An import job has ended, and its batch is put away."""

    def job_failed(self, batch: BatchName, *, job_id: str) -> None:
        """A job as a whole failed; its instances stay and are tried again."""

    def trouble(self, where: str, *, kind: str, batch: BatchName | None = None) -> None:
        """Something went wrong that will be tried again."""

    def tick(self) -> None:
        """Called about once a second."""
