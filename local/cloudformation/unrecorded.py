"""Resources that exist but of which no stack's record is on disk yet.

A stack's records are saved within two seconds of a change; a resource itself is there at once, and an
endpoint for minutes before its stack records it. A crash in between would leave it to nobody: running, and
not known to the stack, whose next deployment makes another one. So each is written down here, before it is
made, until a snapshot contains its record, and what is left here at a start is deleted, as a rollback would
have done. (Written down after it was made, a crash between the two would leave it.)
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from local.cloudformation.resource import ResourceType

logger = logging.getLogger(__name__)

Entry = tuple[str, str]
"""Type and name of a resource."""


class Unrecorded:
    """A file of the resources that no record on disk names; without a file, for this process only."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._left: list[Entry] = []
        if file is not None and file.exists():
            self._left = [(kind, name) for kind, name in json.loads(file.read_text())]
        self._making: list[Entry] = list(self._left)
        self._made: set[Entry] = set()

    @contextmanager
    def keeping(self, type_name: str, name: str) -> Iterator[None]:
        """Note a resource that nobody has yet and that the block makes. The block ends when it is ready, and
        raises when it was not made, or has been deleted again because it did not become ready."""
        entry = (type_name, name)
        with self._lock:
            self._making.append(entry)
            self._write()
        try:
            yield
        except BaseException:
            self._forget({entry})
            raise
        with self._lock:
            self._made.add(entry)

    def covered(self) -> Callable[[], None]:
        """To be called when a snapshot of the stacks is taken; the answer, when it is on disk.

        While a stack works, a resource may be made and its record still to be written.
        """
        recorded, working = _records()
        with self._lock:
            contained = {entry for entry in self._made if _key(*entry) in recorded or not working}
        return lambda: self._forget(contained)

    def delete_left_over(self, types: Mapping[str, ResourceType]) -> None:
        """Delete what an interrupted operation had made and no restored stack records."""
        recorded, _ = _records()
        # The latest first, as a rollback does: what was made later may stand on what was made before.
        for type_name, name in reversed(self._left):
            if _key(type_name, name) not in recorded:
                logger.warning(
                    "deleting %s %s: its stack was interrupted before recording it", type_name, name
                )
                kind = type_name.rpartition("::")[2]
                try:
                    types[type_name].delete(physical_id=name, properties={f"{kind}Name": name})
                except Exception:
                    # It stays in the file for the next start; the cloud must start without it.
                    logger.exception("%s %s could not be deleted", type_name, name)
                    continue
            self._forget({(type_name, name)})

    def _forget(self, entries: set[Entry]) -> None:
        if entries:
            with self._lock:
                self._made -= entries
                self._making = [entry for entry in self._making if entry not in entries]
                self._write()

    def _write(self) -> None:
        if self._file is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(self._making))
            new.replace(self._file)


def _records() -> tuple[set[Entry], bool]:
    """What the stacks record now, and whether one of them is being worked on."""
    from ministack.services import cloudformation

    stacks = list(cloudformation._stacks._data.values())
    recorded = {
        _key(record.get("ResourceType", ""), record.get("PhysicalResourceId", ""))
        for stack in stacks
        for record in list(stack.get("_resources", {}).values())
    }
    return recorded, any(stack.get("StackStatus", "").endswith("_IN_PROGRESS") for stack in stacks)


def _key(type_name: str, physical_id: str) -> Entry:
    """A physical id is the name or an ARN that ends in it, in lower case for some types."""
    return type_name, physical_id.rsplit("/", 1)[-1].lower()
