"""One ingest from what was given to its report."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from arrival.errors import ArrivalError
from arrival.importing.import_job import Archive
from arrival.importing.pacing import StartPace
from workbench.deployment import Deployment
from workbench.ingesting.conflicts import conflicts
from workbench.ingesting.content import identify
from workbench.ingesting.found import Opener
from workbench.ingesting.jobs import ChunkWork
from workbench.ingesting.journal import Journal
from workbench.ingesting.ledger import merge_ledgers
from workbench.ingesting.options import UPLOAD_THREADS, Options
from workbench.ingesting.report import IngestReport, report_of
from workbench.ingesting.scanning import Scanner
from workbench.ingesting.sending import Sender
from workbench.ingesting.settling import (
    forget_image_set,
    give_up,
    image_sets_to_check,
    note_image_set,
    resolve,
    resolve_waiting,
    settle,
    sort_out_repeats,
)
from workbench.ingesting.watching import Watcher

if TYPE_CHECKING:
    from workbench.ingesting.deidentifying import Deidentifying

PREFIX = "ingest/"
"""Where chunks go, in the inbox and, with what their jobs report, in the import bucket."""
CHECKED_AT_ONCE = 8
"""Image sets that are looked up at the same time, as the connector does where it opens studies."""


class Interrupted(Exception):
    """Raised in the threads of an ingest that shall end; never leaves it."""


class Ingest:
    """An open ingest: its journal, its clients, and the switch that ends it.

    Args:
        deployment: The environment.
        options: What a person chose.
        watcher: Is told what happens.
        leave_out: Files of this ingest itself, which may lie in a folder that is given.
    """

    def __init__(
        self,
        deployment: Deployment,
        options: Options,
        watcher: Watcher,
        *,
        leave_out: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        self.options, self.watcher, self.leave_out = options, watcher, leave_out
        self.archive = archive_of(deployment)
        session = deployment.session
        self.s3: Any = session.client("s3")
        self._session = session
        deidentify = options.deidentify
        if deidentify is None:
            deidentify = session.environment.arrival.deidentify
        self.deidentifying: Deidentifying | None = None
        if deidentify:
            # Imported here: it reads the standard's tables, which nobody else waits for.
            from workbench.ingesting.deidentifying import deidentifying_with

            secret = deployment.stack("data")["DeidentificationKeySecretArn"]
            self.deidentifying = deidentifying_with(session.client("secretsmanager"), secret)
        self.opener = Opener(self.s3)
        self._stop = threading.Event()
        self._checked: set[str] = set()

    @property
    def medical_imaging(self) -> Any:
        """Made when it is first needed: nothing to import needs no service."""
        return self._session.client("medical-imaging")

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal, to its end; a run within it that has not ended counts as broken off."""
        journal = Journal(self.options.journal_of(self.archive.datastore_id))
        try:
            yield journal
        finally:
            self.opener.close()
            journal.close()

    @contextmanager
    def scratch(self) -> Iterator[Journal]:
        """A copy of the journal that is thrown away; nothing is made where there is none yet."""
        path = self.options.journal_of(self.archive.datastore_id)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingest-")))
            stack.callback(self.opener.close)
            copy = folder / "journal.sqlite"
            journal = Journal.copy_of(path, copy) if path.exists() else Journal(copy)
            stack.callback(journal.close)
            yield journal

    def stopped(self) -> None:
        """Raises Interrupted once the ingest shall end."""
        if self._stop.is_set():
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        """Waits, and raises Interrupted once the ingest shall end."""
        if self._stop.wait(seconds):
            raise Interrupted

    def scan(self, journal: Journal, run: str, given: Iterable[str]) -> int:
        """Read what was given, and sort out repeats; the number of files."""
        named = self.deidentifying.identify if self.deidentifying is not None else identify
        scanner = Scanner(
            journal,
            run,
            opener=self.opener,
            s3=self.s3,
            identify=named,
            leave_out=self.leave_out,
            watcher=self.watcher,
            stopped=self.stopped,
        )
        files = scanner.scan(given)
        sort_out_repeats(journal, run)
        return files

    def learn_what_is_in(self, journal: Journal, run: str) -> None:
        """Ledgers of other machines; and image sets that were deleted hold nothing."""
        merge_ledgers(self.s3, self.archive, journal)
        named = [one for one in image_sets_to_check(journal, run) if one not in self._checked]
        with ThreadPoolExecutor(CHECKED_AT_ONCE, thread_name_prefix="checking") as pool:
            for _ in pool.map(lambda one: self._check(journal, one), named):
                self.stopped()
        self._checked.update(named)

    def settle(self, journal: Journal, run: str) -> tuple[tuple[str, ...], int]:
        """Chunks of this run, and the number of files that others have under way."""
        settled = settle(
            journal, run, self.options, deidentified=self.deidentifying is not None, prefix=PREFIX
        )
        return settled.chunks, settled.waiting

    def work(self, journal: Journal, run: str) -> None:
        """Bring everything in that is to go in."""
        given_up: set[str] = set()
        told_to_send: set[str] = set()
        told_waiting = False
        with ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="uploading") as uploading:
            work = ChunkWork(
                journal=journal,
                archive=self.archive,
                sender=Sender(
                    s3=self.s3,
                    archive=self.archive,
                    journal=journal,
                    opener=self.opener,
                    pool=uploading,
                    deidentifying=self.deidentifying,
                    watcher=self.watcher,
                    stopped=self.stopped,
                ),
                medical_imaging=self.medical_imaging,
                s3=self.s3,
                pace=StartPace(sleep=self.sleep),
                sleep=self.sleep,
                watcher=self.watcher,
                every_seconds=self.options.every_seconds,
            )
            while True:
                resolve_waiting(journal, run)
                self.learn_what_is_in(journal, run)
                chunks, waiting = self.settle(journal, run)
                mine = [chunk for chunk in chunks if chunk not in given_up]
                for chunk in mine:
                    if chunk not in told_to_send:
                        told_to_send.add(chunk)
                        self._tell(journal, chunk)
                given_up |= self._finish(journal, run, work, mine)
                if not waiting:
                    return
                if not mine:
                    if not told_waiting:
                        self.watcher.line(f"{waiting} files are on their way with another ingest: waiting")
                        told_waiting = True
                    self.sleep(self.options.every_seconds)

    def stop(self) -> None:
        """Let all threads end at the next point where they can."""
        self._stop.set()

    def _finish(self, journal: Journal, run: str, work: ChunkWork, chunks: list[str]) -> set[str]:
        """Work on chunks side by side; those whose fate cannot be learnt now."""
        lost: set[str] = set()
        pool = ThreadPoolExecutor(self.options.jobs_at_once, thread_name_prefix="import")
        futures: dict[Future[None], str] = {}
        try:
            futures = {pool.submit(work.finish, chunk): chunk for chunk in chunks}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_EXCEPTION, timeout=0.2)
                for future in done:
                    chunk = futures[future]
                    try:
                        future.result()
                    except ArrivalError as error:
                        lost.add(chunk)
                        self.watcher.line(error.message)
                        give_up(journal, run, chunk, kind=type(error).__name__, reason=error.message)
                    else:
                        resolve(journal, run, chunk)
        except BaseException:
            self.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return lost

    def _tell(self, journal: Journal, chunk: str) -> None:
        row = journal.one(
            "SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes FROM chunk_file f"
            " JOIN chunk c ON c.id = f.chunk WHERE c.id = ? AND c.state IN ('planned', 'uploading')"
            " AND f.state = 'planned'",
            chunk,
        )
        if row["files"]:
            self.watcher.to_send(row["files"], row["bytes"])

    def _check(self, journal: Journal, image_set: str) -> None:
        try:
            found = self.medical_imaging.get_image_set(
                datastoreId=self.archive.datastore_id, imageSetId=image_set
            )
        except ClientError as error:
            if error.response["Error"].get("Code") != "ResourceNotFoundException":
                raise
            found = {"imageSetState": "DELETED"}
        if found["imageSetState"] == "DELETED":
            forget_image_set(journal, image_set)
            return
        note_image_set(
            journal,
            image_set,
            version_id=int(found["versionId"]),
            # Datastores from before primary image sets do not say.
            is_primary=bool(found.get("isPrimary", True)),
        )


def run_ingest(
    deployment: Deployment,
    given: Iterable[str],
    *,
    options: Options,
    watcher: Watcher,
    values: bool = False,
    leave_out: Callable[[str], bool] = lambda _path: False,
) -> IngestReport:
    """Import every DICOM file of what was given.

    Args:
        deployment: The environment.
        given: Paths of files, folders and zip files, and S3 URIs.
        options: What a person chose.
        watcher: Is told what happens.
        values: Name values of attributes that conflict.
        leave_out: Paths of files that belong to the ingest itself, as its report does.

    Raises:
        WorkbenchError: Something that was given is not there.
        ClientError: A service refused. What was done so far is in the journal: the same call goes on.
    """
    ingest = Ingest(deployment, options, watcher, leave_out=leave_out)
    with ingest.journal() as journal:
        journal.forget_dead_runs()
        run = journal.begin_run(now=time.time())
        try:
            files = ingest.scan(journal, run, given)
            merge_ledgers(ingest.s3, ingest.archive, journal)
            known = int(journal.one("SELECT coalesce(max(sequence), 0) FROM ledger")[0])
            ingest.work(journal, run)
        except BaseException:
            ingest.stop()
            raise
        unknown = _what_others_did(ingest, journal)
        report = report_of(
            journal,
            run,
            given=files,
            known=known,
            datastore_id=ingest.archive.datastore_id,
            deidentified=ingest.deidentifying is not None,
        )
        report = _explained(ingest, report, values=values)
        journal.end_run(run)
    return replace(report, notes=report.notes + unknown)


def _what_others_did(ingest: Ingest, journal: Journal) -> tuple[str, ...]:
    """Ledgers that came meanwhile, perhaps of the same instances; a note where they cannot be read.

    Everything is in by now: that must be reported, whatever S3 says.
    """
    try:
        merge_ledgers(ingest.s3, ingest.archive, journal)
    except (ArrivalError, ClientError, BotoCoreError) as error:
        code = error.response["Error"].get("Code") if isinstance(error, ClientError) else None
        reason = error.message if isinstance(error, ArrivalError) else code or type(error).__name__
        return (f"whether others imported the same instances meanwhile could not be looked up: {reason}",)
    return ()


def _explained(ingest: Ingest, report: IngestReport, *, values: bool) -> IngestReport:
    if not report.non_primary:
        return report
    found = conflicts(ingest.medical_imaging, ingest.archive.datastore_id, report.non_primary, values=values)
    return replace(report, conflicts=tuple(found))


def archive_of(deployment: Deployment) -> Archive:
    """Where files of the environment go to."""
    data = deployment.stack("data")
    return Archive(
        datastore_id=data["DatastoreId"],
        import_role_arn=data["ImportRoleArn"],
        inbox_bucket=data["InboxBucketName"],
        import_bucket=data["ImportBucketName"],
    )
