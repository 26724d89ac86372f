"""What all jobs have in common: a thread each, a folder, a reason when it fails."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions

from local.containers.errors import ContainerError
from local.containers.process import tail
from local.sagemaker.foundation import Foundation
from local.service import ServiceError

logger = logging.getLogger(__name__)

REASON_CHARACTERS = 1024
"""Length limit of FailureReason."""
RESTARTED = "InternalServerError: the local cloud was stopped while this job ran. Start the job again."


_WORKING_FOLDERS = ("ml", "home", "tmp")


class JobFailedError(Exception):
    """A job cannot go on; the text is its FailureReason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason[:REASON_CHARACTERS]
        super().__init__(self.reason)


class Jobs:
    """The threads of the jobs of one kind."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation
        self._stops: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def start(
        self, name: str, work: Callable[[threading.Event], None], *, failed: Callable[[str], None]
    ) -> None:
        """Run `work(stop)` in a thread of its own; `stop` is set by `stop(name)`.

        `failed` is told why where `work` could not even say itself how it ended (a full disk): a job must
        not stay "in progress" with nobody working on it.
        """
        stop = threading.Event()

        def run() -> None:
            try:
                work(stop)
            except Exception as error:
                logger.exception("the work on %s broke off", name)
                failed(reason_of(self._foundation, error))
            finally:
                with self._lock:
                    # The same work may have been started again as soon as it was written down as ended.
                    if self._stops.get(name) is stop:
                        del self._stops[name], self._threads[name]

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._stops[name], self._threads[name] = stop, thread
        thread.start()

    def stop(self, name: str) -> None:
        """Ask a job to stop."""
        with self._lock:
            stop = self._stops.get(name)
        if stop is not None:
            stop.set()

    def join(self, seconds: float) -> None:
        """Wait for all threads, at the end of the cloud."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def guarded(step: str, work: Callable[[], Any]) -> Any:
    """Run a step that talks to AWS; its error is the job's reason ("ClientError: <step> failed: ...")."""
    try:
        return work()
    except JobFailedError:
        raise
    except ServiceError as error:
        raise JobFailedError(f"ClientError: {step} failed: {error.message}") from error
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError, ContainerError) as error:
        raise JobFailedError(f"ClientError: {step} failed: {error}") from error
    except Exception as error:
        # boto3's transfers wrap the error of the request (S3UploadFailedError), tarfile has its own.
        logger.info("%s failed", step, exc_info=True)
        raise JobFailedError(f"ClientError: {step} failed: {error}") from error


def algorithm_error(*, exit_code: int, failure_file: Path | None, output: Path) -> str:
    """FailureReason of a container that failed: what it wrote itself, else the end of its output."""
    text = ""
    if failure_file is not None and failure_file.is_file():
        text = failure_file.read_text(errors="replace").strip()
    if text:
        return f"AlgorithmError: {text}"[: REASON_CHARACTERS - 20] + f", exit code: {exit_code}"
    head = f"AlgorithmError: exit code: {exit_code}. The container's last output:\n"
    return head + tail(output, lines=12, characters=REASON_CHARACTERS - len(head))


def clean(folder: Path) -> None:
    """Remove what a job's containers worked with; their output stays."""
    for place in (folder, *folder.glob("algo-*")):
        for part in _WORKING_FOLDERS:
            shutil.rmtree(place / part, ignore_errors=True)


def clean_all(foundation: Foundation, kind: str) -> None:
    """Remove what containers of an earlier life worked with."""
    for folder in (foundation.root / kind).glob("*"):
        clean(folder)


def reason_of(foundation: Foundation, error: Exception) -> str:
    """FailureReason of a job that ended by an error."""
    if foundation.closing.is_set():
        # Whatever failed last, the cloud that goes down is why.
        return RESTARTED
    if isinstance(error, JobFailedError):
        return error.reason
    return f"InternalServerError: {error}"[:REASON_CHARACTERS]


def fresh_folder(foundation: Foundation, kind: str, name: str) -> Path:
    """The folder of one job; `ml` in it is what the container sees as /opt/ml."""
    folder = foundation.root / kind / name
    (folder / "ml").mkdir(parents=True, exist_ok=True)
    return folder
