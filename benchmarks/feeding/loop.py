"""The part of a training loop that is the same for both ways: epochs, steps, and what each waited for.

Needs the standard library and torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

STEP_SECONDS = 0.5
"""What the network takes of each step: DenseNet121 on 48 x 512 x 512 takes 1.5 TFLOP forward and backward,
which is half a second at a third of the peak of a T4, the GPU of the workshop's machine. It is slept, not
computed: a GPU leaves the cores to whoever reads ahead, and a network on these two cores would not.
"""


class Feed(Protocol):
    """A way to get volumes."""

    volumes: int
    """An epoch's steps."""

    def inputs(self) -> Iterator[Any]:
        """One volume a step, epoch after epoch, without end: a tensor (1, 1, slices, rows, columns)."""

    def close(self) -> None:
        """Stop reading."""


def run_loop(feed: Feed, *, epochs: int) -> None:
    """Tell the parent that the loop is ready, wait for it, train, and print what every step waited.

    Args:
        feed: Where volumes come from.
        epochs: Timed ones; one more follows, not timed, of which the volumes' digests are printed.
    """
    answers = sys.stdout
    print(json.dumps({"ready": True}), file=answers, flush=True)
    sys.stdin.readline()
    inputs = feed.inputs()
    waits = []
    begin = time.perf_counter()
    for _ in range(epochs * feed.volumes):
        asked = time.perf_counter()
        volume = next(inputs)
        waits.append(time.perf_counter() - asked)
        time.sleep(STEP_SECONDS)
        del volume
    seconds = time.perf_counter() - begin
    print(json.dumps({"waits": waits, "seconds": seconds}), file=answers, flush=True)
    sys.stdin.readline()
    digests = sorted(_digest(next(inputs)) for _ in range(feed.volumes))
    feed.close()
    print(json.dumps({"digests": digests}), file=answers, flush=True)


def _digest(volume: Any) -> str:
    """Of a volume's slices, whatever their order: the header's in one way, the patient's in the other."""
    slices = sorted(hashlib.sha256(plane.contiguous().numpy().tobytes()).digest() for plane in volume[0, 0])
    return hashlib.sha256(b"".join(slices)).hexdigest()
