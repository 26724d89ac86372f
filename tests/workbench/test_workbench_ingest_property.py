"""Ingest, for any set of files and any sequence of ingests: nothing is lost, nothing is told wrongly."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import World, fates, write

from arrival.importing.pacing import StartPace
from workbench.ingesting import run

INSTANCES, CONTENTS = 4, 2


@dataclass(frozen=True)
class File:
    """Content of one file; its name is its place in the folder."""

    kind: str
    instance: int
    content: int

    @property
    def uid(self) -> str:
        return f"1.2.3.{self.instance}"


@dataclass(frozen=True)
class Step:
    """One ingest of some of the files."""

    files: frozenset[int]
    machine: str
    replace: bool
    again: bool
    breaks: bool
    """Whether the first job that is started breaks it off."""


FILES = st.lists(
    st.builds(
        File,
        kind=st.sampled_from(["dicom", "dicom", "dicom", "refused", "damaged", "other"]),
        instance=st.integers(0, INSTANCES - 1),
        content=st.integers(0, CONTENTS - 1),
    ),
    min_size=1,
    max_size=7,
)
STEPS = st.lists(
    st.builds(
        Step,
        files=st.frozensets(st.integers(0, 6), min_size=1),
        machine=st.sampled_from(["one", "two"]),
        replace=st.booleans(),
        again=st.booleans(),
        breaks=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@cache
def body(file: File) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"
        write(
            path,
            SOPInstanceUID=file.uid,
            SOPClassUID=None if file.kind == "refused" else "1.2.840.10008.5.1.4.1.1.7",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.3.9",
            PatientID=f"P{file.content}",
        )
        return path.read_bytes()


@contextmanager
def fast() -> Iterator[None]:
    with patch.object(run, "StartPace", partial(StartPace, per_second=1e6)):
        yield


class Broken(Exception):
    """What breaks an ingest off."""


@settings(max_examples=20, deadline=None)
@given(files=FILES, steps=STEPS)
def test_everything_given_is_accounted_for(files: list[File], steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as temporary, fast():
        folder, world = Path(temporary) / "in", World(Path(temporary))
        folder.mkdir()
        names = []
        for number, file in enumerate(files):
            name = folder / (f"{number}.txt" if file.kind == "other" else f"{number}.dcm")
            name.write_bytes(b"no" if file.kind in ("other", "damaged") else body(file))
            names.append(name)
        for step in steps:
            _check_step(world, {str(name): file for name, file in zip(names, files, strict=True)}, step)


def _check_step(world: World, files: dict[str, File], step: Step) -> None:
    chosen = {name: file for number, (name, file) in enumerate(files.items()) if number in step.files}
    if not chosen:
        return
    choices: dict[str, Any] = {"machine": step.machine, "replace": step.replace, "again": step.again}
    start = world.imaging.start_dicom_import_job
    before = {uid: list(contents) for uid, contents in world.imaging.imports.items()}

    def break_off(**request: object) -> dict[str, object]:
        start(**request)
        raise Broken

    if step.breaks:
        with patch.object(world.imaging, "start_dicom_import_job", break_off):
            try:
                world.ingest(*chosen, **choices)
            except Broken:
                pass
            else:
                assert world.imaging.imports == before
    report = world.ingest(*chosen, **choices)
    fate = dict(fates(report))
    assert Counter(name for name, _ in fates(report)) == Counter(list(chosen))
    assert report.given == len(chosen)
    by_uid: dict[str, set[int]] = {}
    for file in chosen.values():
        if file.kind in ("dicom", "refused"):
            by_uid.setdefault(file.uid, set()).add(hash(body(file)))
    for name, file in chosen.items():
        if file.kind == "other":
            assert fate[name] == "skipped"
        elif file.kind != "dicom" or len(by_uid[file.uid]) > 1:
            # Which of two contents is the right one, nobody can say.
            assert fate[name] in ("failed", "duplicate")
        elif fate[name] in ("imported", "already"):
            # What is said to be in is what the archive holds last.
            assert world.imaging.imports[file.uid][-1] == _sha(body(file))
        else:
            assert fate[name] == "duplicate" or (fate[name] == "failed" and not step.replace)
    if not step.again:
        for uid, contents in world.imaging.imports.items():
            fresh = contents[len(before.get(uid, [])) :]
            # Once at most, also where a job was started whose answer got lost; and never what was in.
            assert len(fresh) <= 1
            assert not fresh or fresh != before.get(uid, [])[-1:]
    assert report.ok == (bool(report.present) and "failed" not in fate.values())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
