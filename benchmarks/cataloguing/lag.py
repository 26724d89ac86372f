"""How long until a query sees what has arrived, and sees no longer what is deleted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cataloguing.arriving_files import write_slices
from benchmarks.cataloguing.athena import Athena
from benchmarks.report import FOLDER, Report
from workbench.demo.nrrd_volume import CtVolume
from workbench.ingest import Options, ingest

LONGEST_SECONDS = 120.0
_SLICES = 3
_TITLE = "event to row, over the deployed stacks"


@dataclass(kw_only=True)
class Lag:
    """Arrivals at the deployed stacks."""

    athena: Athena
    volume: CtVolume
    _arrived: int = 0

    def arrivals(self, *, until: Callable[[int], bool]) -> Iterator[tuple[str, float]]:
        """Image sets that arrive one after the other, each with the seconds from its creation until a query
        of the view `series` had its row.
        """
        number = 0
        while not until(number):
            number += 1
            image_set_id = self._arrive()
            created = self._properties(image_set_id)["createdAt"].timestamp()
            self._wait(image_set_id, there=True)
            yield image_set_id, time.time() - created

    def delete(self, image_set_ids: list[str]) -> list[float]:
        """Delete image sets; of each the seconds until no query saw its row."""
        deployment = self.athena.deployment
        seconds = []
        for image_set_id in image_set_ids:
            deployment.session.client("medical-imaging").delete_image_set(
                datastoreId=deployment.stack("data")["DatastoreId"], imageSetId=image_set_id
            )
            begin = time.time()
            self._wait(image_set_id, there=False)
            seconds.append(time.time() - begin)
        return seconds

    def _arrive(self) -> str:
        self._arrived += 1
        with tempfile.TemporaryDirectory(dir=FOLDER, prefix="arriving-") as name:
            folder = Path(name)
            write_slices(self.volume, folder / "files", name=f"lag-{self._arrived}", slices=_SLICES)
            options = Options(journal=folder / "journal.sqlite", deidentify=False, every_seconds=0.1)
            report = ingest(self.athena.deployment, [folder / "files"], options=options)
        (image_set,) = report.image_sets
        return image_set.image_set_id

    def _properties(self, image_set_id: str) -> dict[str, Any]:
        deployment = self.athena.deployment
        found: dict[str, Any] = deployment.session.client("medical-imaging").get_image_set(
            datastoreId=deployment.stack("data")["DatastoreId"], imageSetId=image_set_id
        )
        return found

    def _wait(self, image_set_id: str, *, there: bool) -> None:
        sql = f"SELECT count(*) FROM series WHERE image_set_id = '{image_set_id}'"  # noqa: S608 - an id
        deadline = time.monotonic() + LONGEST_SECONDS
        while (self.athena.ask(sql).rows[0][0] != "0") != there:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Within {LONGEST_SECONDS:g} s no query saw what became of an image set.")


def lag_rows(report: Report, what: str, seconds: list[float]) -> None:
    """One row of the table."""
    report.row(
        _TITLE, what=what, times=len(seconds), median_seconds=median(seconds), worst_seconds=max(seconds)
    )
