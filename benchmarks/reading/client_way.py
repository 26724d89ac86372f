"""The ways of reading that are compared: which client, and what it is asked for."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reading.reader import Reader
from benchmarks.report import FOLDER

PEER = "AHItoDICOMInterface"
LIBRARY = "healthimaging"
BARE = "bare requests"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A client, and what it is asked for."""

    client: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.client}: {self.kind}"


PEER_DATASETS = Way(client=PEER, kind="datasets")
DATASETS = Way(client=LIBRARY, kind="datasets")
DATASETS_NEW_CLIENT = Way(client=LIBRARY, kind="datasets, new client")
ARRAYS = Way(client=LIBRARY, kind="arrays")
BARE_ARRAYS = Way(client=BARE, kind="arrays")
BARE_FRAMES = Way(client=BARE, kind="frames")

LOG = FOLDER / "connector.log"
"""What the clients print."""

WAYS = (PEER_DATASETS, DATASETS, DATASETS_NEW_CLIENT, ARRAYS, BARE_ARRAYS, BARE_FRAMES)


def start_readers(stack: ExitStack, peer_python: Path, endpoint_url: str) -> dict[str, Reader]:
    """One process for each client, by its name; they end with the stack."""
    own = Path(sys.executable)
    programs = {
        PEER: (peer_python, "benchmarks.reading.with_peer"),
        LIBRARY: (own, "benchmarks.reading.with_library"),
        BARE: (own, "benchmarks.reading.with_bare_requests"),
    }
    return {
        client: stack.enter_context(Reader(python, module, endpoint_url=endpoint_url, log=LOG))
        for client, (python, module) in programs.items()
    }
