"""An image set that is indexed again, in the same version: by an index function that knows more columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from catalog_world import SETTLE, START, World, Written, run

from infra.catalog.tables import CHANGE_TABLES

HOUR = timedelta(hours=1)


def test_of_one_version_the_rows_that_were_written_last_count() -> None:
    """They are compacted when no other run can be about to remove their object; what is late counts not."""
    world = World()

    def write(modality: str, *, at: datetime) -> None:
        rows = ((modality, date(2023, 5, 1)),)
        for table in CHANGE_TABLES:
            world.write(table, Written(image_set_id="a" * 32, version=3, rows=rows, at=at))

    def modalities(find: Callable[[str], list[tuple[Any, ...]]]) -> list[str]:
        return [modality for table in CHANGE_TABLES for _, _, modality, _ in find(table)]

    write("OT", at=START)
    run(world)
    world.later(HOUR)
    write("CT", at=world.now)
    run(world)
    assert modalities(world.shown) == ["CT", "CT"]
    assert modalities(world.compacted) == ["OT", "OT"]
    world.later(SETTLE)
    run(world)
    assert modalities(world.shown) == modalities(world.compacted) == ["CT", "CT"]
    write("OT", at=START)  # by an invocation that was slow
    assert modalities(world.shown) == ["CT", "CT"]
    world.later(HOUR)
    assert run(world).removed == 2
    assert modalities(world.shown) == ["CT", "CT"]
