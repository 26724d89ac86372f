"""The part of a reading program that is the same for every client: jobs in, timed answers out, a line each.

Needs the standard library only: it also runs in the environment of the client that we compare with.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Read = Callable[[str, str], Any]
"""Reads (datastore, image set) and answers whatever the client makes of it."""
Pixels = Callable[[Any], Iterable[tuple[str, bytes]]]
"""SOP Instance UID and pixel bytes (little endian) of an answer, one after the other: not timed, but part of
the memory that is measured.
"""


def serve(readers: Mapping[str, tuple[Read, Pixels]]) -> None:
    """Answer jobs from standard input until it ends.

    Args:
        readers: By the kind that a job names.
    """
    # Clients print as they like; only this program may write to the pipe.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        job = json.loads(line)
        read, pixels = readers[job["kind"]]
        print(json.dumps(_answer(job, read, pixels)), file=answers, flush=True)


def _answer(job: Mapping[str, str], read: Read, pixels: Pixels) -> dict[str, Any]:
    # Processor time of this process and its threads: what of the time was work and what was waiting.
    cpu, begin = time.process_time(), time.perf_counter()
    try:
        result = read(job["datastoreId"], job["imageSetId"])
    except Exception as error:  # noqa: BLE001 - whatever a client raises is its answer, and is reported
        return {
            "seconds": time.perf_counter() - begin,
            "error": [cls.__name__ for cls in type(error).__mro__],
            "instance": getattr(error, "sop_instance_uid", None),
        }
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    digests = {uid: hashlib.sha256(data).hexdigest() for uid, data in pixels(result)}
    return {"seconds": seconds, "cpuSeconds": cpu, "digests": digests}
