"""Threads that are not waited for without end."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

CANCEL_SECONDS = 1.0
"""How long a call that ends early waits for its threads. One that is still connecting, or is in boto3, is
left behind and ends when its request times out, without another attempt.
"""


def leave(pool: ThreadPoolExecutor, futures: Iterable[Future[Any]]) -> None:
    """Ends a pool: what has not begun is cancelled, what is under way is waited for `CANCEL_SECONDS` at most.

    Args:
        pool: The pool.
        futures: What it was given; those that are done may be missing.
    """
    running = [future for future in futures if not future.cancel()]
    stalled = wait(running, timeout=CANCEL_SECONDS).not_done
    pool.shutdown(wait=not stalled, cancel_futures=True)
