"""The cache of prepared cases: the same to the bit, made once, and never the end of a training."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, Spacingd
from training_items import CountingReader, chain, made_case, made_source, prepared, same

from training.data import item_file
from training.data import source as source_module
from training.data.cache import ItemCache
from training.data.preparation import Preparation, split_transform
from training.data.source import CaseSource
from training.errors import DataError
from training.stopping import StoppedError, StopRequest

PLENTY = 2**30


def cache(folder: Path, *, limit_bytes: int = PLENTY) -> ItemCache:
    return ItemCache(folder, limit_bytes=limit_bytes)


def items(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.item"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_item_comes_back_to_the_bit_and_is_read_once(tmp_path: Path) -> None:
    reader = CountingReader()
    plain, first = made_source(3), made_source(3, reader=reader, cache=cache(tmp_path))
    second = made_source(3, reader=reader, cache=cache(tmp_path))
    for index in range(3):
        expected = plain.item(index)
        assert same(first.item(index), expected)
        assert same(first.item(index), expected)
        assert same(second.item(index), expected)
    assert len(reader.reads) == 3


def test_whatever_transforms_leave_in_an_item_comes_back(tmp_path: Path) -> None:
    image = torch.arange(24.0).reshape(2, 3, 4)
    item = {
        "image": MetaTensor(image, meta={"spacing": np.array([1.0, 2.0]), "name": "a", "none": None}),
        "turned": MetaTensor(image.permute(2, 0, 1)),
        "part": image[:, 1:],
        "label": torch.tensor(3),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
        "number": np.float32(0.1),
        "nested": [{"a": (1, 2.5, True)}, torch.float16, torch.Size([1, 2])],
        7: b"bytes",
    }
    kept = cache(tmp_path).item("key", lambda: item, stop=StopRequest())
    assert kept is not item
    assert same(kept, item)
    assert kept["turned"].stride() == item["turned"].stride()
    # Of a part no more is kept than the part.
    assert kept["part"].untyped_storage().nbytes() == 2 * 2 * 4 * 4


def test_what_is_done_to_an_item_stays_with_the_one_who_did_it(tmp_path: Path) -> None:
    source = made_source(1, cache=cache(tmp_path))
    source.item(0)["image"].zero_()
    source.item(0)["image"].meta.clear()
    assert same(source.item(0), made_source(1).item(0))


def test_a_kept_item_can_be_inverted(tmp_path: Path) -> None:
    compose = Compose([*chain(random=False).transforms, Spacingd("image", pixdim=(2.0, 2.0, 2.0))])
    preparation = split_transform(compose, fingerprint="spaced")
    source = made_source(1, cache=cache(tmp_path), preparation=preparation)
    source.item(0)
    item = made_source(1, cache=cache(tmp_path), preparation=preparation).item(0)
    restored = Compose([compose.transforms[2]]).inverse(item)["image"]
    assert restored.shape == (1, 16, 12, 8)


@pytest.mark.parametrize("change", ["version", "label", "class", "level", "fingerprint", "reader", "code"])
def test_whatever_an_item_depends_on_makes_it_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    case, level, reader, fingerprint = made_case(1), 0, CountingReader(), "chain"
    CaseSource([case], reader, preparation=prepared(), cache=cache(tmp_path), stop=StopRequest()).item(0)
    match change:
        case "version":
            case = made_case(1, version="2")
        case "label":
            case = made_case(1, label=made_case(2).label)
        case "class":
            case = made_case(1, label=None, class_name="AD")
        case "level":
            level = 1
        case "fingerprint":
            fingerprint = "other"
        case "reader":
            reader.fingerprint = "of other channels"
        case "code":
            # The folder may outlive the release of the image that filled it.
            monkeypatch.setattr(source_module, "code_digest", lambda: "of another release")
    CaseSource(
        [case],
        reader,
        preparation=prepared(fingerprint=fingerprint),
        cache=cache(tmp_path),
        level=level,
        stop=StopRequest(),
    ).item(0)
    assert len(reader.reads) == len(items(tmp_path)) == 2


def prepare_all(folder: Path, log: Path, start: Any, results: Any) -> None:
    source = made_source(6, reader=CountingReader(log=log), cache=cache(folder))
    start.wait(60)
    results.put([float(source.item(index)["image"].sum()) for index in range(6)])


def test_two_processes_prepare_each_case_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log, start, results = tmp_path / "log", context.Barrier(2), context.Queue()
    arguments = (tmp_path / "cache", log, start, results)
    processes = [context.Process(target=prepare_all, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == [f"image-{number}" for number in range(6)]
    assert found[0] == found[1] == [float(made_source(6).item(i)["image"].sum()) for i in range(6)]


def test_threads_prepare_a_case_once(tmp_path: Path) -> None:
    gate = threading.Event()
    reader = CountingReader(gate=gate)
    source = made_source(1, reader=reader, cache=cache(tmp_path))
    threads = [threading.Thread(target=source.item, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(30)
    assert reader.reads == ["image-0"]


def test_a_stop_is_heard_while_another_prepares_the_case(tmp_path: Path) -> None:
    gate, stop = threading.Event(), StopRequest(file=tmp_path / "stop")
    busy = made_source(1, reader=CountingReader(gate=gate), cache=cache(tmp_path))
    other = threading.Thread(target=busy.item, args=(0,))
    other.start()
    while not list(tmp_path.glob("*.lock")):
        time.sleep(0.01)
    waiting = CountingReader()
    threading.Timer(0.2, (tmp_path / "stop").touch).start()
    with pytest.raises(StoppedError):
        made_source(1, reader=waiting, cache=cache(tmp_path), stop=stop).item(0)
    gate.set()
    other.join(30)
    assert waiting.reads == []


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit_of_a_voxel(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def put_another(file: Path) -> None:
    with file.open("wb") as stream:
        item_file.write(stream, item_file.encode({"image": torch.zeros(3)}), key="of another case")


def put_a_foreign_archive(file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, file)


class RunsCode:
    """Unpickled, it would make a folder."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("was-run",))


def put_code(file: Path) -> None:
    torch.save({"format": 1, "key": file.stem, "item": RunsCode()}, file)


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit_of_a_voxel, empty, put_another, put_a_foreign_archive, put_code]
)
def test_a_damaged_or_foreign_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache"
    made_source(1, cache=cache(folder)).item(0)
    (file,) = items(folder)
    damage(file)
    reader = CountingReader()
    source = made_source(1, reader=reader, cache=cache(folder))
    assert same(source.item(0), made_source(1).item(0))
    assert same(source.item(0), made_source(1).item(0))
    assert reader.reads == ["image-0"]
    assert not Path("was-run").exists()


def test_the_limit_is_kept_told_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made_source(1, cache=cache(tmp_path / "one")).item(0)
    size = items(tmp_path / "one")[0].stat().st_size
    reader = CountingReader()
    limit = int(2.5 * size)
    source = made_source(5, reader=reader, cache=cache(tmp_path / "two", limit_bytes=limit))
    plain = made_source(5)
    for _ in range(2):
        for index in range(5):
            assert same(source.item(index), plain.item(index))
    assert len(items(tmp_path / "two")) == 2
    assert sum(file.stat().st_size for file in (tmp_path / "two").iterdir()) <= limit
    assert len(reader.reads) == 2 + 2 * 3
    (told,) = warnings(caplog)
    assert "is full" in told
    assert str(tmp_path / "two") in told


def test_a_full_disk_is_told_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = made_source(3, cache=cache(tmp_path))
    source.item(0)
    writes = 0

    def full(self: item_file._CarefulFile, data: Any) -> int:
        nonlocal writes
        writes += 1
        if writes > 2:
            self.error = self.error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return memoryview(data).nbytes

    monkeypatch.setattr(item_file._CarefulFile, "write", full)
    plain = made_source(3)
    for _ in range(2):
        for index in range(3):
            assert same(source.item(index), plain.item(index))
    (told,) = warnings(caplog)
    assert "No space left on device" in told
    assert "GiB" in told
    assert len(items(tmp_path)) == 1
    assert not list(tmp_path.glob("*.part"))


def prepare_with_small_files(folder: Path, results: Any) -> None:
    # The kernel refuses the write in the middle of a file, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    source = made_source(2, cache=cache(folder))
    plain = made_source(2)
    results.put(all(same(source.item(index), plain.item(index)) for index in (0, 1, 0)))


def test_a_write_that_the_kernel_refuses_costs_nothing_but_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=prepare_with_small_files, args=(tmp_path, results))
    process.start()
    assert results.get(timeout=120) is True
    process.join(30)
    assert process.exitcode == 0
    assert not items(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    source = made_source(2, cache=cache(tmp_path / "file" / "cache"))
    assert same(source.item(1), made_source(2).item(1))
    assert source.keep(0) is False
    (told,) = warnings(caplog)
    assert "cannot be written" in told


def test_an_item_that_no_file_can_hold_is_told_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def preparation() -> Preparation:
        return Preparation(
            deterministic=lambda item: {**item, "odd": threading.Lock}, random=None, fingerprint="odd"
        )

    source = made_source(2, cache=cache(tmp_path), preparation=preparation())
    assert source.item(0)["odd"] is threading.Lock
    (told,) = warnings(caplog)
    assert "builtin_function_or_method" in told
    assert not items(tmp_path)


def test_an_array_that_torch_does_not_take_is_told_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preparation = Preparation(
        deterministic=lambda item: {**item, "swapped": np.arange(3, dtype=">i2")},
        random=None,
        fingerprint="odd",
    )
    assert made_source(1, cache=cache(tmp_path), preparation=preparation).item(0)["swapped"].sum() == 3
    (told,) = warnings(caplog)
    assert ">i2" in told


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0")

    def cpu(self, *args: Any, **options: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("kept", [True, False])
def test_items_are_on_the_cpu_kept_or_not(tmp_path: Path, kept: bool) -> None:
    """Else a batch of kept and other items could not be put together."""
    preparation = Preparation(
        deterministic=lambda item: [{"image": torch.ones(3).as_subclass(OnGpu)}],
        random=None,
        fingerprint="on a GPU",
    )
    source = made_source(1, cache=cache(tmp_path) if kept else None, preparation=preparation)
    assert type(source.item(0)[0]["image"]) is torch.Tensor


def test_nobody_else_can_look_at_what_is_kept(tmp_path: Path) -> None:
    made_source(1, cache=cache(tmp_path / "new")).item(0)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()} == {0o600}


def test_a_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    made_source(1, cache=cache(tmp_path)).item(0)
    assert not list(tmp_path.iterdir())
    (told,) = warnings(caplog)
    assert "somebody else" in told


def fail(item: Any) -> Any:
    msg = "operands could not be broadcast"
    raise ValueError(msg)


def test_a_case_whose_transforms_fail_is_named() -> None:
    deterministic = Preparation(deterministic=fail, random=None, fingerprint="failing")
    with pytest.raises(DataError, match=r"image set image-1.*ValueError: operands"):
        made_source(2, preparation=deterministic).item(1)
    # A chain of MONAI's wraps what its links raise.
    cut = split_transform(Compose([Lambdad("image", fail)]), fingerprint="failing")
    with pytest.raises(DataError, match=r"image set image-1.*ValueError: operands"):
        made_source(2, preparation=cut).item(1)
    drawn = split_transform(Compose([fail]), fingerprint="failing")
    with pytest.raises(DataError, match=r"image set image-1.*ValueError: operands"):
        made_source(2, preparation=drawn).open_drawing()(1, 3)


def test_an_error_of_the_reader_is_the_callers_and_leaves_nothing(tmp_path: Path) -> None:
    source = made_source(2, reader=CountingReader(broken=[1]), cache=cache(tmp_path))
    for _ in range(2):
        with pytest.raises(DataError, match="image-1"):
            source.item(1)
    assert not items(tmp_path)
    source.item(0)
    assert len(items(tmp_path)) == 1


def test_keeping_ahead_ends_when_nothing_more_can_be_kept(tmp_path: Path) -> None:
    assert made_source(1).keep(0) is False
    reader = CountingReader()
    source = made_source(2, reader=reader, cache=cache(tmp_path, limit_bytes=1))
    assert source.keep(0) is False
    assert source.keep(1) is False
    assert reader.reads == ["image-0"]


def test_a_chain_is_cut_before_its_first_random_link() -> None:
    preparation = prepared()
    assert preparation.random is not None
    assert [type(link).__name__ for link in preparation.random.transforms] == [
        "RandSpatialCropSamplesd",
        "RandFlipd",
        "RandGaussianNoised",
    ]
    assert prepared(random=False).random is None
    # A plain function may draw for all that is known.
    cut = split_transform(Compose([Lambdad("image", lambda x: x), lambda item: item]), fingerprint="f")
    assert cut.random is not None
    assert len(cut.random.transforms) == 1
