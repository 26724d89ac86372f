"""Which receivers are alive, and who takes over what a dead one left behind.

Each process says every few seconds in S3 that it is alive. A batch belongs to the process that its name
begins with; when that one has been silent for a while, another one claims the batch, by writing an object
that nobody has written before (S3 conditional write). A claimer that dies is claimed from in the same way.

A process that was only slow may go on with its own batch at the same time. That does no harm: see `settling`.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from arrival.receiving.batch import RECEIVED, Batch
from arrival.receiving.objects import Objects

BEAT_SECONDS = 15.0
SILENT_SECONDS = 60.0
"""After this time without a word a process counts as dead."""

_LIVES = f"{RECEIVED}alive/"


@dataclass(frozen=True, kw_only=True)
class Lives:
    """The receivers of this archive, this one among them."""

    imports: Objects
    receiver: str
    silent_seconds: float = SILENT_SECONDS

    def beat(self, *, ended: bool = False) -> None:
        """Say that this process is alive, or that it has ended and that others may take over at once."""
        self.imports.put(self._key(self.receiver), json.dumps({"ended": ended}).encode())

    def alive(self) -> set[str]:
        """Processes that have been heard of lately, by S3's clock. This one says so first."""
        self.beat()
        heard = {
            one.key.removeprefix(_LIVES).removesuffix(".json"): one.modified
            for one in self.imports.list(_LIVES)
        }
        now = heard.get(self.receiver)
        return {name for name, at in heard.items() if name == self.receiver or self._lives(name, at, now)}

    def claim(self, batch: Batch, *, alive: set[str]) -> bool:
        """Whether this process is the one that imports a batch whose own process is dead."""
        for number in itertools.count():
            key = f"{batch.prefix}claim-{number}"
            if self.imports.put_new(key, self.receiver.encode()):
                return True
            claimer = (self.imports.read(key) or b"").decode()
            if claimer == self.receiver:
                return True
            if claimer in alive:
                return False
        return False

    def _lives(self, name: str, at: datetime, now: datetime | None) -> bool:
        if now is None or now - at > timedelta(seconds=self.silent_seconds):
            return False
        said = self.imports.read(self._key(name))
        return said is not None and not json.loads(said)["ended"]

    @staticmethod
    def _key(receiver: str) -> str:
        return f"{_LIVES}{receiver}.json"
