"""The receiver: what listens, what imports, and what looks after what others left behind."""

from __future__ import annotations

import logging
import queue
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.errors import cause_of
from arrival.importing.import_job import (
    BYTES_PER_FILE,
    BYTES_PER_JOB,
    FILES_PER_JOB,
    Archive,
    JobRunsError,
)
from arrival.importing.pacing import StartPace
from arrival.receiving.access import Access
from arrival.receiving.association import TIMEOUT_SECONDS, Server
from arrival.receiving.batch import RECEIVED, Batch
from arrival.receiving.batch_job import BatchJobs
from arrival.receiving.intake import Deidentifying, Intake, Taken
from arrival.receiving.lives import BEAT_SECONDS, SILENT_SECONDS, Lives
from arrival.receiving.metrics import Metrics
from arrival.receiving.objects import Objects
from arrival.receiving.settling import Settled, Settling
from arrival.receiving.studies import Closed, Studies

logger = logging.getLogger(__name__)

JOBS_AT_ONCE = 4
"""Batches that are worked on at the same time. The others wait for their turn, in S3."""
LOOK_SECONDS = 0.5
"""How often batches are looked at."""
RETRY_SECONDS = 300.0
LONGEST_RETRY_SECONDS = 900.0
"""After a batch could not be imported: the first pause, which doubles, and what it doubles to. What fails for
ever fails more than once an hour: the alarm on ImportAttemptsFailed goes by that.
"""
PATIENT_LOOKS = 3
"""At a job that runs, each of `LOOK_FOR_SECONDS`, before the next one counts as a failed attempt: with the
pauses an hour.
"""
START_SECONDS = 300.0
"""For a start that is refused for its rate, or for the number of jobs that run; then others have a turn."""
STOP_SECONDS = 90.0
"""For associations that are open when the process is asked to end. Fargate kills after 120."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Since the receiver was started."""

    received: int = 0
    """Acknowledged instances."""
    repeated: int = 0
    """Of these: those that were there already, with the same content."""
    taken_over: int = 0
    """Received by another process and brought to their end by this one."""
    quarantined: int = 0
    imported: int = 0
    failed: int = 0
    missing: int = 0
    """Acknowledged, and deleted from S3 by somebody else before they were imported."""
    waiting: int = 0
    """Studies that are not quiet yet, or whose import has not ended."""

    @property
    def pending(self) -> int:
        """Instances that have not come to their end: 0 when nothing waits."""
        ended = self.imported + self.failed + self.quarantined + self.missing
        return self.received - self.repeated + self.taken_over - ended


@dataclass(kw_only=True)
class Receiver:
    """One receiver. It keeps nothing on its own disk: killed at any moment, S3 has all that was acknowledged,
    and the next receiver, or another one that runs, imports it.
    """

    archive: Archive
    access: Access
    s3: Any
    medical_imaging: Any
    quiet_seconds: float
    address: tuple[str, int]
    key: KeyMaterial | None = None
    """With it studies are de-identified."""
    tls: ssl.SSLContext | None = None
    metrics: Metrics
    settled: Callable[[Settled], None] = lambda _settled: None
    """Hears of every batch that was imported."""
    silent_seconds: float = SILENT_SECONDS
    every_seconds: float = 1.0
    look_seconds: float = LOOK_SECONDS
    silent_connection_seconds: float = TIMEOUT_SECONDS
    files_per_job: int = FILES_PER_JOB
    bytes_per_job: int = BYTES_PER_JOB
    bytes_per_file: int = BYTES_PER_FILE
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _totals: dict[str, int] = field(default_factory=dict, init=False)
    _importing: set[Batch] = field(default_factory=set, init=False)
    _again_at: dict[Batch, tuple[float, Closed]] = field(default_factory=dict, init=False)
    _attempts: dict[Batch, int] = field(default_factory=dict, init=False)
    _queue: queue.SimpleQueue[Closed | None] = field(default_factory=queue.SimpleQueue, init=False)
    _workers: list[threading.Thread] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        inbox = Objects(s3=self.s3, bucket=self.archive.inbox_bucket)
        imports = Objects(s3=self.s3, bucket=self.archive.import_bucket)
        self._inbox = inbox
        self._lives = Lives(imports=imports, receiver=self.name, silent_seconds=self.silent_seconds)
        self._studies = Studies(
            receiver=self.name,
            quiet_seconds=self.quiet_seconds,
            files_per_batch=self.files_per_job,
            bytes_per_batch=self.bytes_per_job,
        )
        deidentifying = (
            None if self.key is None else Deidentifying(deidentifier=Deidentifier(key=self.key), key=self.key)
        )
        self._server = Server(
            intake=Intake(
                inbox=inbox,
                imports=imports,
                studies=self._studies,
                deidentifying=deidentifying,
                bytes_per_file=self.bytes_per_file,
            ),
            access=self.access,
            metrics=self.metrics,
            address=self.address,
            tls=self.tls,
            healthy=lambda: self.healthy,
            received=self._received,
            silent_seconds=self.silent_connection_seconds,
        )
        self._settling = Settling(
            jobs=BatchJobs(
                medical_imaging=self.medical_imaging,
                s3=self.s3,
                archive=self.archive,
                imports=imports,
                pace=StartPace(patience_seconds=START_SECONDS),
                every_seconds=self.every_seconds,
            ),
            inbox=inbox,
            imports=imports,
        )

    def start(self) -> None:
        """Listen and work, in threads of its own.

        Raises:
            OSError: The port is taken.
            ClientError: The buckets cannot be used: better now than when a study comes.
        """
        self._lives.beat()
        # As daemons: the process can end in the midst of an import, and another one brings it to its end.
        self._workers = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._work, *[self._import_batches] * JOBS_AT_ONCE)
        ]
        self._server.start()
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        logger.info("receiver %s listens on port %d", self.name, self.port)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def healthy(self) -> bool:
        """Whether all threads that import are there. Without one of them studies would wait unseen: the
        receiver then says no longer that it is alive, and others take over what it has.
        """
        return all(worker.is_alive() for worker in self._workers if worker.ident is not None)

    @property
    def associations(self) -> int:
        """How many are open, with connections that have not said anything yet."""
        return self._server.associations

    @property
    def totals(self) -> Totals:
        """What has come and what became of it."""
        with self._lock:
            busy = len(self._importing) + len(self._again_at)
            return Totals(**self._totals, waiting=busy + self._studies.waiting)

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> None:
        """Take no further association, and let those that there are end for a while.

        What is not imported yet is taken over by another receiver, or by the next.
        """
        self._server.stop(within_seconds=within_seconds)
        self._stop.set()
        for _ in range(JOBS_AT_ONCE):
            self._queue.put(None)
        self._survive("say that it has ended", lambda: self._lives.beat(ended=True))
        logger.info("receiver %s has ended; %d batches are left to others", self.name, self.totals.waiting)

    def _received(self, taken: Taken) -> None:
        new_in_quarantine = taken.quarantined and not taken.repeated
        self._count(received=1, repeated=int(taken.repeated), quarantined=int(new_in_quarantine))

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._totals[name] = self._totals.get(name, 0) + number

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            if self.healthy:
                self._survive("say that it is alive", self._lives.beat)
            else:
                logger.error("a thread that imports has ended; another receiver has to take over")

    def _work(self) -> None:
        """Import what is closed at once, and look for what others left behind now and then."""
        look_at = 0.0
        while not self._stop.is_set() and self.healthy:
            for closed in [*self._studies.closed(), *self._due()]:
                self._enqueue(closed)
            if time.monotonic() >= look_at:
                self._survive("look for what others left", self._take_over)
                look_at = time.monotonic() + max(self.look_seconds, self.silent_seconds / 2)
            self._stop.wait(self.look_seconds)

    def _due(self) -> list[Closed]:
        now = time.monotonic()
        with self._lock:
            due = [
                batch
                for batch, (at, _) in self._again_at.items()
                if at <= now and batch not in self._importing
            ]
            return [self._again_at.pop(batch)[1] for batch in due]

    def _take_over(self) -> None:
        alive: set[str] | None = None
        batches = {batch for one in self._inbox.list(RECEIVED) if (batch := Batch.of_key(one.key))}
        for batch in sorted(batches, key=lambda one: one.prefix):
            first = batch.first_try
            if batch.receiver == self.name or self._has(batch):
                continue
            if first is not None and (first in batches or self._has(first)):
                # Its instances are still on their way here.
                continue
            if alive is None:
                alive = self._lives.alive()
            if batch.receiver not in alive and self._lives.claim(batch, alive=alive):
                logger.info("taking over batch %s", batch.name)
                self._enqueue(Closed(batch=batch, kept=None, last=time.monotonic()))

    def _has(self, batch: Batch) -> bool:
        with self._lock:
            return batch in self._importing or batch in self._again_at

    def _enqueue(self, closed: Closed) -> None:
        with self._lock:
            self._importing.add(closed.batch)
        self._queue.put(closed)

    def _import_batches(self) -> None:
        while (closed := self._queue.get()) is not None and not self._stop.is_set():
            self._settle(closed)

    def _settle(self, closed: Closed) -> None:
        again: Closed | None = None
        wait = 0.0
        try:
            done = self._settling.settle(closed)
            self._tell(closed, done)
            if done.left is not None:
                kept = None if closed.kept is None else done.again
                again = Closed(batch=done.left, kept=kept, last=closed.last)
            if done.ended or done.left is not None:
                self.settled(done)
        except Exception as error:  # noqa: BLE001 - S3 has it all; whatever it was, it is tried again
            again, wait = closed, self.pause_after(closed.batch, error)
        with self._lock:
            self._importing.discard(closed.batch)
            if again is not closed:
                self._attempts.pop(closed.batch, None)
            if again is not None:
                self._again_at[again.batch] = (time.monotonic() + wait, again)

    def pause_after(self, batch: Batch, error: Exception) -> float:
        """Seconds until a batch that could not be imported is tried again; the log and a metric say so."""
        with self._lock:
            failures = self._attempts[batch] = self._attempts.get(batch, 0) + 1
        # A job may take its time; one that runs for an hour is reported.
        is_told = not isinstance(error, JobRunsError) or failures > PATIENT_LOOKS
        pause = min(RETRY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_RETRY_SECONDS)
        logger.error(
            "batch %s could not be imported (%s), attempt %d; again in %d s",
            *(batch.name, cause_of(error), failures, pause),
        )
        if is_told:
            self._survive("count an attempt", lambda: self.metrics.emit(ImportAttemptsFailed=1))
        return pause

    def _tell(self, closed: Closed, done: Settled) -> None:
        if done.imported or done.failed or done.missing:
            seconds = time.monotonic() - closed.last
            self.metrics.emit(
                Imported=done.imported, Failed=done.failed + done.missing, ImportSeconds=seconds
            )
        if done.ended:
            logger.info(
                "batch %s: %d imported, %d failed, %d in quarantine",
                *(done.batch.name, done.imported, done.failed, done.quarantined),
            )
        if done.missing:
            logger.error("batch %s: %d instances are gone from S3", done.batch.name, done.missing)
        self._count(imported=done.imported, failed=done.failed, missing=done.missing)
        if closed.kept is None:
            # This process's own were counted when they came.
            self._count(taken_over=done.ended, quarantined=done.quarantined)

    def _survive(self, doing: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread that ends would end the receiver's work unseen
            logger.error("could not %s (%s)", doing, type(error).__name__)
