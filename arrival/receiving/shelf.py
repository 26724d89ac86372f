"""What lies in the inbox below `received/`: the receiver's only memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from arrival.receiving.claims import moment_of
from arrival.receiving.object_names import CLAIMS, RECEIVED, RECORDS, BatchName, batch_of

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(kw_only=True)
class Shelved:
    """A batch as S3 has it."""

    name: BatchName
    instances: list[str] = field(default_factory=list)
    """Keys of its DICOM files."""
    records: list[str] = field(default_factory=list)
    """Keys of what de-identification did."""
    claimed: bool = False
    newest: datetime = _BEGINNING
    """When its last instance or record came."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The batches at one moment of S3's clock."""

    moment: datetime
    batches: Mapping[BatchName, Shelved]

    def quiet_for(self, study: str) -> float:
        """Seconds since anything of a study came, by any receiver."""
        newest = max((one.newest for one in self.batches.values() if one.name.study == study), default=None)
        return float("inf") if newest is None else (self.moment - newest).total_seconds()


class Shelf:
    """Lists `received/`. S3 lists what was put before, always (strong consistency)."""

    def __init__(self, s3: Any, *, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def look(self, study: str | None = None) -> Look:
        """All batches, or those of one study."""
        prefixes = [RECEIVED] if study is None else [f"{RECEIVED}{study}/", f"{RECORDS}{study}/"]
        return self._look(prefixes)

    def batch(self, name: BatchName) -> tuple[Shelved, datetime]:
        """One batch, and S3's time."""
        look = self._look([name.prefix, name.records])
        return look.batches.get(name) or Shelved(name=name), look.moment

    def _look(self, prefixes: list[str]) -> Look:
        batches: dict[BatchName, Shelved] = {}
        moment = _BEGINNING
        for page in self._pages(prefixes):
            moment = moment_of(page)
            for one in page.get("Contents", ()):
                key = one["Key"]
                name = batch_of(key)
                if name is None:
                    continue
                batch = batches.setdefault(name, Shelved(name=name))
                if key.startswith(CLAIMS):
                    batch.claimed = True
                    continue
                (batch.records if key.startswith(RECORDS) else batch.instances).append(key)
                batch.newest = max(batch.newest, one["LastModified"])
        return Look(moment=moment, batches=batches)

    def _pages(self, prefixes: list[str]) -> Iterator[Mapping[str, Any]]:
        pages = self._s3.get_paginator("list_objects_v2")
        for prefix in prefixes:
            yield from pages.paginate(Bucket=self._bucket, Prefix=prefix)
