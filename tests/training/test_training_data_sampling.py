"""Batches: the same items with the same draws, whoever prepares them, and however a step is divided."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_items import CountingReader, made_source, prepared, same

from training.data.cache import ItemCache
from training.data.sampling import SampleOrder, StepLoader, ValidationLoader
from training.data.source import CaseSource
from training.errors import DataError
from training.stopping import StoppedError, StopRequest

CASES = 5


def loader(source: CaseSource | None = None, **changes: Any) -> StepLoader:
    options = {"batch_size": 1, "world_size": 1, "rank": 0, "accumulate": 1, "seed": 3, "workers": 1}
    return StepLoader(source=made_source(CASES) if source is None else source, **(options | changes))


def taken(feed: StepLoader, count: int) -> list[Any]:
    try:
        return [next(feed) for _ in range(count)]
    finally:
        feed.close()


def step_data(step: int, **division: Any) -> torch.Tensor:
    """All patches of an optimizer step in the order of the stream, whoever of several ranks has them."""
    ranks, accumulate = division["world_size"], division["accumulate"]
    by_rank = [taken(loader(first_step=step, rank=rank, **division), accumulate) for rank in range(ranks)]
    return torch.cat(
        [
            torch.as_tensor(by_rank[rank][micro]["image"])
            for micro in range(accumulate)
            for rank in range(ranks)
        ]
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    division=st.sampled_from([(1, 1, 12), (2, 1, 6), (1, 2, 6), (3, 2, 2), (2, 3, 2), (4, 1, 3), (12, 1, 1)]),
    step=st.integers(0, 7),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_the_data_of_a_step_do_not_depend_on_how_it_is_divided(
    division: tuple[int, int, int], step: int, workers: int, seed: int
) -> None:
    ranks, accumulate, batch = division
    alone = step_data(step, world_size=1, accumulate=1, batch_size=12, workers=1, seed=seed)
    shared = step_data(
        step, world_size=ranks, accumulate=accumulate, batch_size=batch, workers=workers, seed=seed
    )
    assert torch.equal(alone, shared)


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_resumed_training_gets_the_batches_of_an_uninterrupted_one(step: int) -> None:
    whole = taken(loader(batch_size=2, accumulate=2, workers=2), 24)
    begun = loader(batch_size=2, accumulate=2, workers=2)
    next(begun)
    begun.set_step(step)
    resumed = taken(begun, 4)
    assert same(resumed, whole[2 * step : 2 * step + 4])
    assert same(taken(loader(batch_size=2, accumulate=2, first_step=step), 4), resumed)


def test_what_the_network_draws_follows_from_seed_and_step() -> None:
    def draws(**changes: Any) -> list[float]:
        feed = loader(accumulate=2, **changes)
        try:
            return [float(torch.rand(1)) for _ in range(4) if next(feed)]
        finally:
            feed.close()

    first = draws()
    assert len(set(first)) == 4
    assert draws(first_step=1)[:2] == first[2:]
    assert draws(seed=4) != first
    assert draws(world_size=2, rank=1) != draws(world_size=2, rank=0)


@given(count=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_each_pass_has_every_case_once_and_an_order_of_its_own(count: int, seed: int) -> None:
    order = SampleOrder(count, seed=seed)
    passes = [[order[number * count + place] for place in range(count)] for number in range(3)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    if count > 12:
        assert passes[0] != passes[1]
    # Threads of different speed ask for positions of two passes in turn.
    assert [order[place] for place in range(count)] == passes[0]


def test_batches_are_full_where_a_pass_ends() -> None:
    batches = taken(loader(batch_size=4), 5)
    # Two patches an item.
    assert [len(batch["image"]) for batch in batches] == [8] * 5


def test_an_epoch_is_long_enough_for_every_case() -> None:
    feed = loader(batch_size=2, world_size=2, accumulate=1)
    assert (feed.steps_per_epoch, len(feed)) == (2, 2)
    feed = loader(batch_size=1, world_size=1, accumulate=2)
    assert (feed.steps_per_epoch, len(feed)) == (3, 6)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_with_and_without_a_cache(tmp_path: Path, workers: int) -> None:
    plain = taken(loader(batch_size=2, workers=workers), 8)
    cached = made_source(CASES, cache=ItemCache(tmp_path, limit_bytes=2**30))
    assert same(taken(loader(cached, batch_size=2, workers=workers), 8), plain)
    again = made_source(CASES, cache=ItemCache(tmp_path, limit_bytes=2**30))
    assert same(taken(loader(again, batch_size=2, workers=workers), 8), plain)


def test_a_case_is_read_once_and_a_free_worker_keeps_what_others_need(tmp_path: Path) -> None:
    reader, held_out = CountingReader(), CountingReader()
    source = made_source(8, reader=reader, cache=ItemCache(tmp_path, limit_bytes=2**30))
    validation = made_source(
        3,
        reader=held_out,
        cache=ItemCache(tmp_path, limit_bytes=2**30),
        preparation=prepared(random=False, fingerprint="other"),
    )
    # Of four ranks on other hosts: this one alone would need two of the eight cases in the first pass.
    feed = loader(source, world_size=4, workers=2, also_keep=(validation,))
    next(feed)
    wait_until(lambda: len(reader.reads) == 8 and len(held_out.reads) == 3)
    taken(feed, 20)
    assert sorted(reader.reads) == sorted(f"image-{number}" for number in range(8))
    list(ValidationLoader(validation, world_size=1, rank=0))
    assert len(held_out.reads) == 3


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_volumes_are_in_work_than_there_are_workers(tmp_path: Path, workers: int) -> None:
    reader = CountingReader()
    source = made_source(10, reader=reader, cache=ItemCache(tmp_path, limit_bytes=2**30))
    taken(loader(source, batch_size=4, workers=workers), 6)
    assert 1 <= reader.most_at_once <= workers


def test_reading_runs_ahead_of_training_by_a_bounded_number_of_batches() -> None:
    reader = CountingReader()
    feed = loader(made_source(50, reader=reader), batch_size=2, workers=2)
    next(feed)
    wait_until(lambda: len(reader.reads) == 6)
    time.sleep(0.1)
    assert len(reader.reads) == 6
    feed.close()


def test_what_fails_in_a_worker_is_raised_where_the_batch_is_asked_for() -> None:
    order = SampleOrder(CASES, seed=3)
    feed = loader(made_source(CASES, reader=CountingReader(broken=[order[2]])), workers=2)
    next(feed), next(feed)
    with pytest.raises(DataError, match=f"image-{order[2]}"):
        next(feed)
    feed.close()


def test_a_stop_is_heard_while_data_are_waited_for(tmp_path: Path) -> None:
    stop, gate = StopRequest(file=tmp_path / "stop"), threading.Event()
    feed = loader(made_source(CASES, reader=CountingReader(gate=gate), stop=stop))
    timer = threading.Timer(0.1, (tmp_path / "stop").touch)
    timer.start()
    with pytest.raises(StoppedError):
        next(feed)
    gate.set()
    feed.close()


def test_no_thread_outlives_the_loader(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    feed = loader(made_source(CASES, cache=ItemCache(tmp_path, limit_bytes=2**30)), workers=4)
    next(feed)
    assert set(threading.enumerate()) > before
    feed.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="closed"):
        next(feed)


def test_waiting_for_data_is_counted() -> None:
    gate = threading.Event()
    feed = loader(made_source(CASES, reader=CountingReader(gate=gate)))
    threading.Timer(0.2, gate.set).start()
    next(feed)
    assert feed.input_wait_seconds > 0.1
    feed.close()
    assert feed.batches == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_validate_each_case_once_in_order(ranks: int) -> None:
    source = made_source(CASES, preparation=prepared(random=False))
    by_rank = [list(ValidationLoader(source, world_size=ranks, rank=rank)) for rank in range(ranks)]
    found = {
        rank + place * ranks: batch
        for rank, batches in enumerate(by_rank)
        for place, batch in enumerate(batches)
    }
    assert sorted(found) == list(range(CASES))
    for index, batch in found.items():
        assert torch.equal(torch.as_tensor(batch["image"])[0], torch.as_tensor(source.item(index)["image"]))


def test_a_validation_that_ends_early_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    batches = iter(ValidationLoader(made_source(CASES), world_size=1, rank=0))
    next(batches)
    batches.close()  # type: ignore[attr-defined] # a generator
    assert set(threading.enumerate()) == before


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="no cases"):
        loader(made_source(0))


@pytest.mark.parametrize(
    "changes",
    [{"rank": 1}, {"batch_size": 0}, {"accumulate": 0}, {"workers": 0}, {"seed": -1}, {"world_size": 0}],
)
def test_impossible_options_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        loader(**changes)
