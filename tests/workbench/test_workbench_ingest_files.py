"""Ingest: every kind of file that a PACS export brings, and that a hostile one might."""

from __future__ import annotations

import gc
import os
import shutil
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import pydicom
import pytest
from botocore.exceptions import ReadTimeoutError
from ingest_world import World, fates, study, write
from made_files import encoded, header
from pydicom.fileset import FileSet
from pydicom.uid import UID
from real_files import FILES

from arrival.importing.import_job import BYTES_PER_FILE
from arrival.importing.pacing import StartPace
from workbench.ingesting import content, run, scanning
from workbench.ingesting.dry_run import plan
from workbench.ingesting.found import Opener
from workbench.ingesting.report import IngestReport
from workbench.ingesting.run import Ingest, run_ingest
from workbench.ingesting.watching import Lines
from workbench.progress import silent

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "StartPace", partial(StartPace, per_second=1000))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "machine")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    return folder


def kinds(report: IngestReport) -> dict[str, str]:
    """Kind of failure by file name."""
    return {Path(one.file).name: one.kind for one in report.failed}


def test_every_kind_of_file(world: World, export: Path) -> None:
    write(export / "good.dcm")
    write(export / "UPPER.DCM")
    write(export / "no-suffix")
    write(export / ".hidden")
    write(export / "report.pdf")
    write(export / "notes.txt")  # DICOM under another name
    (export / "IM0001").write_bytes(b"garbage")
    (export / "1.2.840.10008").write_bytes(b"garbage")
    (export / "empty.dcm").touch()
    (export / "empty.txt").touch()
    (export / "README").write_text("text")
    (export / ".DS_Store").write_bytes(b"\0" * 200)
    (export / "viewer.exe").write_bytes(b"MZ")
    (export / "no-preamble.dcm").write_bytes((export / "good.dcm").read_bytes()[132:])
    (export / "cut.dcm").write_bytes((export / "good.dcm").read_bytes()[:150])
    write(export / "no-uid.dcm", SOPInstanceUID=None)
    write(export / "empty-uid.dcm", SOPInstanceUID="")
    with open(export / "huge.dcm", "wb") as huge:
        huge.write(b"\0" * 128 + b"DICM")
        huge.truncate(BYTES_PER_FILE + 1)
    (export / "nowhere.dcm").symlink_to(export / "gone")
    (export / "circle.dcm").symlink_to(export / "circle.dcm")
    (export / "again").symlink_to(export)
    (export / "link.dcm").symlink_to(export / "good.dcm")
    os.mkfifo(export / "pipe.dcm")
    old = os.fsencode(export) + b"/M\xfcller.dcm"  # Latin-1, as old archives write it
    shutil.copy(os.fsencode(export / "report.pdf"), old)
    (export / "report.pdf").unlink()
    private = header()
    private.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.999")
    (export / "private-syntax.dcm").write_bytes(encoded(private))
    report = world.ingest(export)
    assert kinds(report) == {
        "IM0001": "NotDicom",
        "1.2.840.10008": "NotDicom",
        "empty.dcm": "NotDicom",
        "no-preamble.dcm": "NotDicom",
        "cut.dcm": "NoSopInstanceUid",
        "no-uid.dcm": "NoSopInstanceUid",
        "empty-uid.dcm": "NoSopInstanceUid",
        "huge.dcm": "TooLarge",
        "nowhere.dcm": "Unreadable",
        "circle.dcm": "Unreadable",
    }
    imported = {Path(one.file).name for one in report.imported}
    # The file has two names, and is counted once.
    assert len(imported & {"good.dcm", "link.dcm"}) == 1
    assert imported - {"good.dcm", "link.dcm"} == {
        "UPPER.DCM",
        "no-suffix",
        ".hidden",
        "notes.txt",
        "M\\xfcller.dcm",
        "private-syntax.dcm",
    }
    skipped = {Path(name).name for name in report.skipped}
    assert skipped == {"README", ".DS_Store", "viewer.exe", "pipe.dcm", "empty.txt"}
    assert report.given == len(list(fates(report))) == 22


def test_what_may_not_be_read_is_a_failure(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(export / "open", 1)
    study(export / "closed", 1, uid="1.2.4")
    write(export / "secret.dcm")
    scandir, opened = os.scandir, open

    def no_scandir(path: str) -> object:
        # As the system answers who is not root.
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    def no_open(path: object, *arguments: object, **more: object) -> object:
        if str(path).endswith("secret.dcm"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **more)  # type: ignore[call-overload]  # passes on what it was given

    monkeypatch.setattr("os.scandir", no_scandir)
    monkeypatch.setattr("builtins.open", no_open)
    report = world.ingest(export)
    assert kinds(report) == {"closed": "Unreadable", "secret.dcm": "Unreadable"}
    assert {one.reason for one in report.failed} == {"Permission denied"}
    assert len(report.imported) == 1


def test_a_listing_that_breaks_off_is_a_failure(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a scratched disc: what was not listed must not seem to be nothing."""
    study(export / "disc", 2)
    study(export / "whole", 1, uid="1.2.4")
    scandir = os.scandir

    class Scratched:
        def __init__(self, path: str) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> Scratched:
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __next__(self) -> os.DirEntry[str]:
            raise OSError(5, "Input/output error")

        def __iter__(self) -> Scratched:
            return self

    monkeypatch.setattr("os.scandir", lambda path: (Scratched if path.endswith("disc") else scandir)(path))
    report = world.ingest(export)
    assert kinds(report) == {"disc": "Unreadable"}
    assert len(report.imported) == 1


def test_pydicom_s_odd_files_are_all_accounted_for(world: World) -> None:
    names = [name for name in FILES if FILES[name].stat().st_size < 1 << 18]
    report = world.ingest(*(FILES[name] for name in names))
    assert {name for name, _ in fates(report)} >= {
        str(FILES[name]) for name in names if "DICOMDIR" not in name
    }
    assert report.given == len(list(fates(report)))
    assert not report.ok
    # Truth by pydicom: what it reads a SOP Instance UID from is in, a duplicate, or refused with a reason.
    for name, state in fates(report):
        if state in ("imported", "duplicate"):
            assert pydicom.dcmread(name, stop_before_pixels=True).SOPInstanceUID


def test_zip_files(world: World, export: Path, tmp_path: Path) -> None:
    study(tmp_path / "in", 3)
    with zipfile.ZipFile(export / "study.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "in" / "0001.dcm", "Doe/CT/0001.dcm")
        archive.write(tmp_path / "in" / "0002.dcm", "Doe/CT/deeper/../0002.dcm")
        archive.writestr("Doe/README.txt", "text")
        archive.writestr("Doe/IM1", b"garbage")
        archive.writestr("Doe/inner.zip", b"PK")
    with zipfile.ZipFile(export / "locked.zip", "w") as archive:
        archive.write(tmp_path / "in" / "0003.dcm", "0003.dcm")
    locked = bytearray((export / "locked.zip").read_bytes())
    for header_ in (b"PK\x03\x04", b"PK\x01\x02"):
        at = locked.index(header_) + (6 if header_ == b"PK\x03\x04" else 8)
        locked[at] |= 1  # general purpose bit 0: encrypted
    (export / "locked.zip").write_bytes(locked)
    (export / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    damaged = bytearray((export / "study.ZIP").read_bytes())
    damaged[60:80] = bytes(20)
    (export / "damaged.zip").write_bytes(damaged)
    with (
        zipfile.ZipFile(export / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros.dcm", "w") as member,
    ):
        for _ in range(80):
            member.write(bytes(1 << 20))
    zipfile.ZipFile(export / "empty.zip", "w").close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.ingesting.walking.BOMB_BYTES", 1 << 26)
        report = world.ingest(export)
    found = {one.file.removeprefix(f"{export}/"): one.kind for one in report.failed}
    assert found["study.ZIP/Doe/inner.zip"] == "ZipInZip"
    assert found["study.ZIP/Doe/IM1"] == "NotDicom"
    assert found["locked.zip/0003.dcm"] == "EncryptedZip"
    assert found["broken.zip"] == "BadZip"
    assert found["bomb.zip"] == "ZipBomb"
    assert found["damaged.zip/Doe/CT/0001.dcm"] in ("BadZip", "Unreadable", "NotDicom")
    assert f"{export}/empty.zip" in report.skipped
    assert set(world.imaging.imports) == {"1.2.3.1", "1.2.3.2"}
    assert report.given == len(list(fates(report)))


def test_a_dicomdir_is_checked_against_what_is_there(world: World, export: Path, tmp_path: Path) -> None:
    for number in range(1, 4):
        write(
            tmp_path / "in" / f"{number}.dcm",
            SOPInstanceUID=f"1.2.3.{number}",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.3.0",
            PatientName="Doe^Jane",
            StudyDate="20240101",
            StudyTime="101010",
            StudyID="1",
            SeriesNumber=1,
            InstanceNumber=number,
        )
    files = FileSet()
    for number in range(1, 4):
        files.add(tmp_path / "in" / f"{number}.dcm")
    files.write(export)
    paths = sorted(Path(one.path) for one in FileSet(export / "DICOMDIR"))
    paths[1].unlink()
    shutil.move(paths[2], paths[2].with_name(paths[2].name.lower()))
    # The DICOMDIR alone is enough.
    report = world.ingest(export / "DICOMDIR")
    assert len(report.imported) == 2
    assert [(one.file, one.kind) for one in report.failed] == [(str(paths[1]), "MissingReference")]
    assert report.skipped == (str(export / "DICOMDIR"),)
    # So is the folder, and a zip of it.
    whole = world.ingest(export)
    assert (len(whole.already), [one.kind for one in whole.failed]) == (2, ["MissingReference"])
    shutil.make_archive(str(tmp_path / "cd"), "zip", export)
    zipped = world.ingest(tmp_path / "cd.zip")
    assert (len(zipped.already), [one.kind for one in zipped.failed]) == (2, ["MissingReference"])
    # In a zip as some programs of Windows write it, with backslashes and folders of their own.
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.writestr("CD\\DICOM\\", b"")
        for file in export.rglob("*"):
            if file.is_file():
                archive.write(file, "CD\\" + str(file.relative_to(export)).replace("/", "\\"))
    windows = world.ingest(tmp_path / "windows.zip")
    assert windows.given == 4
    assert (len(windows.already), [one.kind for one in windows.failed]) == (2, ["MissingReference"])
    # And in S3, where the DICOMDIR alone is enough, too, and nothing else of its folder is taken.
    for file in export.rglob("*"):
        if file.is_file():
            world.s3.objects[f"partner/cd/{file.relative_to(export)}"] = file.read_bytes()
    world.s3.objects["partner/cd/other.dcm"] = b"not listed"
    in_s3 = world.ingest("s3://partner/cd/DICOMDIR")
    assert (len(in_s3.already), [one.kind for one in in_s3.failed]) == (2, ["MissingReference"])
    assert in_s3.given == 4
    # Keys are no paths: two slashes in a row are another place than one.
    for key in [one for one in world.s3.objects if one.startswith("partner/cd/")]:
        world.s3.objects[key.replace("/cd/", "/cd//")] = world.s3.objects.pop(key)
    doubled = world.ingest("s3://partner/cd//DICOMDIR")
    assert (len(doubled.already), [one.kind for one in doubled.failed]) == (2, ["MissingReference"])


@pytest.mark.parametrize("dry", [False, True])
def test_a_network_that_fails_is_not_the_files_fault(
    world: World, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    world.s3.objects["partner/a.dcm"] = b"DICM"

    def time_out(**_request: str) -> None:
        raise ReadTimeoutError(endpoint_url="https://s3")

    monkeypatch.setattr(world.s3, "get_object", time_out)
    options, watcher = world.options(), Lines(silent)
    with pytest.raises(ReadTimeoutError):
        (plan if dry else run_ingest)(world.deployment, ["s3://partner/"], options=options, watcher=watcher)


class Weighing(Lines):
    """Notes what Python holds after every 200 files."""

    def __init__(self) -> None:
        super().__init__(silent)
        self.files = 0
        self.held: list[int] = []

    def read(self, files: int, bytes_: int) -> None:
        self.files += files
        if self.files % 200 == 0:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


def test_planning_takes_little_memory_a_file(world: World, export: Path) -> None:
    write(export / "100000.dcm", SOPInstanceUID="1.2.3.100000")
    body = (export / "100000.dcm").read_bytes()
    for number in range(100_001, 101_000):
        (export / f"{number}.dcm").write_bytes(body.replace(b"1.2.3.100000", f"1.2.3.{number}".encode()))
    watcher = Weighing()
    ingest = Ingest(world.deployment, world.options(), watcher)
    with ingest.journal() as journal:
        begun = journal.begin_run(now=0.0)
        tracemalloc.start()
        try:
            assert ingest.scan(journal, begun, [str(export)]) == 1000
            ingest.learn_what_is_in(journal, begun)
            assert len(ingest.settle(journal, begun)[0]) == 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # Of 800 more files nothing stays: with 100 bytes each, 100,000 files would be 10 MB.
    assert (watcher.held[-1] - watcher.held[0]) / 800 < 100
    assert peak < 8_000_000


def test_damaged_names_in_a_zip_do_not_stop_the_other_files(world: World, export: Path) -> None:
    write(export / "good.dcm")
    damaged, nameless = export / "damaged.zip", export / "nameless.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("é.dcm", encoded(header()))
    # The first of the two places that have the name is the one that is read when the member is opened.
    damaged.write_bytes(damaged.read_bytes().replace("é".encode(), b"\xff\xff", 1))
    with zipfile.ZipFile(nameless, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"no DICOM")
    report = world.ingest(export)
    assert report.given == 3
    assert [Path(one.file).name for one in report.imported] == ["good.dcm"]
    assert kinds(report)["é.dcm"] == "BadZip"


def test_what_is_too_large_is_a_failure_only_if_it_is_dicom_and_is_not_unpacked(
    world: World, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "BYTES_PER_FILE", 1 << 10)
    monkeypatch.setattr(content, "BYTES_PER_FILE", 1 << 10)
    monkeypatch.setattr(Opener, "_unpack", lambda *_: pytest.fail("it was unpacked"))
    dicom, film = bytes(128) + b"DICM" + bytes(1 << 11), bytes(1 << 11)
    with zipfile.ZipFile(export / "large.zip", "w") as archive:
        archive.writestr("zipped.dcm", dicom)
        archive.writestr("zipped.iso", film)
    (export / "file.dcm").write_bytes(dicom)
    (export / "file.iso").write_bytes(film)
    world.s3.objects |= {"partner/x/object.dcm": dicom, "partner/x/object.iso": film}
    report = world.ingest(export, "s3://partner/x")
    assert kinds(report) == dict.fromkeys(("zipped.dcm", "file.dcm", "object.dcm"), "TooLarge")
    assert {Path(name).name for name in report.skipped} == {"zipped.iso", "file.iso", "object.iso"}


def test_members_of_one_name_are_all_refused(world: World, export: Path) -> None:
    """Opened by their name, the content of one would pass for the other's."""
    export.mkdir(exist_ok=True)
    with zipfile.ZipFile(export / "twice.zip", "w") as archive:
        archive.writestr("a.dcm", encoded(header()))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.dcm", encoded(header()))
        archive.writestr("a.dcm#2", encoded(header(SOPInstanceUID="1.2.3.9")))
    report = world.ingest(export)
    assert [one.kind for one in report.failed] == ["RepeatedMember"] * 2
    assert report.given == len(list(fates(report))) == 3
    assert set(world.imaging.imports) == {"1.2.3.9"}
