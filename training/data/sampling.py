"""Which items make the batch of which step, with which random numbers.

Everything random about a step follows from (seed, step), so that a training that is resumed at a step
continues exactly as if it had never stopped, and no state of a random number generator has to be saved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import list_data_collate

from training.data.prefetch import Prefetch
from training.data.source import CaseSource
from training.errors import DataError

_LOG = logging.getLogger(__name__)

_BATCHES_AHEAD = 2

# What a seed is drawn for: the same number must not give the same draws for two things.
_ORDER, _ITEM, _NETWORK = range(3)


class SampleOrder:
    """The endless sequence of items: one shuffled pass through the data after the other.

    Args:
        count: Items of the data.
        seed: What the passes are shuffled with.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        if count < 1:
            msg = "There are no cases to sample from"
            raise DataError(msg)
        self._count = count
        self._seed = seed
        self._passes: dict[int, npt.NDArray[np.int64]] = {}

    def __getitem__(self, position: int) -> int:
        """The index of the item at a position of the sequence."""
        number, place = divmod(position, self._count)
        order = self._passes.get(number)
        if order is None:
            order = np.random.default_rng([self._seed, _ORDER, number]).permutation(self._count)
            # Positions grow, and no worker is a pass behind: older ones are over. One assignment, since
            # threads share it.
            self._passes = {
                **{known: kept for known, kept in self._passes.items() if known >= number - 1},
                number: order,
            }
        return int(order[place])


class StepLoader(Sized):
    """An endless iterator over the micro-batches of one rank.

    The stream of items is the same for all ranks. Optimizer step s takes positions [s x G, (s + 1) x G) of it
    with G = batch_size x world_size x accumulate, so the data of a step do not depend on how many ranks or
    micro-batches share them. Batches are always full; a pass through the data may end within one. The random
    transforms of an item are seeded by (seed, position).

    Threads prepare micro-batches ahead. Their number changes nothing about the batches, as long as random
    transforms draw from their own generators (`set_random_state`), as MONAI's do.

    Args:
        source: The prepared cases.
        batch_size: Items a micro-batch; each may give several patches.
        world_size: Ranks of the job.
        rank: This one.
        accumulate: Micro-batches an optimizer step.
        seed: Of order, augmentation and what the network draws.
        workers: Threads that prepare micro-batches; each holds one whole volume at a time.
        first_step: The optimizer step to begin with, counted from 0.
        also_keep: Further cases, such as those to validate on, which are put into the cache when all of
            `source` are there. Needs two workers: one is always kept free for the training itself.

    Attributes:
        input_wait_seconds: How long `next` has waited for data since the loader was made; may be set to 0.
        batches: Micro-batches given out since the loader was made.
    """

    def __init__(
        self,
        *,
        source: CaseSource,
        batch_size: int,
        world_size: int,
        rank: int,
        accumulate: int,
        seed: int,
        workers: int,
        first_step: int = 0,
        also_keep: Sequence[CaseSource] = (),
    ) -> None:
        if not (0 <= rank < world_size and batch_size > 0 and accumulate > 0 and workers > 0 and seed >= 0):
            msg = f"{rank=} of {world_size=}, {batch_size=}, {accumulate=}, {workers=}, {seed=}: not usable"
            raise ValueError(msg)
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.input_wait_seconds = 0.0
        self.batches = 0
        self._world_size = world_size
        self._rank = rank
        self._accumulate = accumulate
        self._also_keep = tuple(also_keep)
        self._order = SampleOrder(len(source), seed=seed)
        self._micro = first_step * accumulate
        self._started = False
        self._to_keep: Iterator[tuple[CaseSource, int]] | None = None
        self._choosing = threading.Lock()
        self._prefetch = Prefetch(
            open_work=self._open_worker,
            threads=workers,
            ahead=max(_BATCHES_AHEAD, workers),
            stop=source.stop,
            idle=self._keep_another,
        )

    @property
    def step(self) -> int:
        """The optimizer step that the next micro-batch belongs to, counted from 0."""
        return self._micro // self._accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps after which every case has been seen at least once."""
        return -(-len(self.source) // self._items_a_step)

    def __len__(self) -> int:
        """Micro-batches of this rank in `steps_per_epoch` steps."""
        return self.steps_per_epoch * self._accumulate

    def __iter__(self) -> Iterator[Any]:
        """Continues where the loader stands: a trainer may ask for a new iterator at any time."""
        return self

    def __next__(self) -> Any:
        """The next micro-batch; torch's generator is seeded for it, since a network may draw (dropout).

        Raises:
            TrainingError: What went wrong with an item of this batch.
            StoppedError: The job was asked to stop while data were waited for.
        """
        if not self._started:
            self._prefetch.start(self._micro)
            self._started = True
        began = time.perf_counter()
        batch = self._prefetch.take()
        self.input_wait_seconds += time.perf_counter() - began
        torch.manual_seed(_draw(self.seed, _NETWORK, self._micro, self._rank))
        self._micro += 1
        self.batches += 1
        return batch

    def set_step(self, step: int) -> None:
        """Continues with the first micro-batch of an optimizer step."""
        self._micro = step * self._accumulate
        self._started = False

    def close(self) -> None:
        """Ends the threads; the loader gives nothing any more."""
        self._prefetch.close()

    @property
    def _items_a_step(self) -> int:
        return self.batch_size * self._world_size * self._accumulate

    def _open_worker(self) -> Callable[[int], Any]:
        draw = self.source.open_drawing()

        def work(micro: int) -> Any:
            # Put together here and not by the consumer, whom it would cost milliseconds a step.
            first = (micro * self._world_size + self._rank) * self.batch_size
            positions = range(first, first + self.batch_size)
            return list_data_collate([draw(self._order[p], _draw(self.seed, _ITEM, p)) for p in positions])

        return work

    def _keep_another(self) -> bool:
        """Puts the next case that will be needed into the cache, also one that another rank needs first: its
        turn on this host comes in a later pass.
        """
        with self._choosing:
            if self._to_keep is None:
                first = self._micro * self._world_size * self.batch_size
                coming = dict.fromkeys(self._order[first + i] for i in range(2 * len(self.source)))
                others = (zip(repeat(source), range(len(source)), strict=False) for source in self._also_keep)
                self._to_keep = chain(zip(repeat(self.source), coming, strict=False), *others)
            source, index = next(self._to_keep, (None, 0))
        if source is None:
            return False
        try:
            return source.keep(index)
        except DataError as error:
            # Whoever trains or validates on the case fails by it, in the order of the data.
            _LOG.warning("a case cannot be kept ahead of its turn: %s", error)
            return True


class ValidationLoader(Sized):
    """The cases of one rank, one after the other, each a batch: rank r has cases r, r + world_size, ...

    Args:
        source: The prepared cases.
        world_size: Ranks of the job.
        rank: This one.
    """

    def __init__(self, source: CaseSource, *, world_size: int, rank: int) -> None:
        if not 0 <= rank < world_size:
            msg = f"{rank=} of {world_size=}"
            raise ValueError(msg)
        self.source = source
        self._indices = range(rank, len(source), world_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        """Prepares one case ahead of the one that is looked at.

        Raises:
            TrainingError: What went wrong with a case.
            StoppedError: The job was asked to stop while data were waited for.
        """
        ahead = Prefetch(
            open_work=self._open_worker,
            threads=1,
            ahead=1,
            stop=self.source.stop,
            count=len(self._indices),
        )
        try:
            ahead.start()
            for _ in self._indices:
                yield ahead.take()
        finally:
            ahead.close()

    def _open_worker(self) -> Callable[[int], Any]:
        draw = self.source.open_drawing()

        def work(number: int) -> Any:
            index = self._indices[number]
            # Validation seldom draws; where it does, it draws the same every time.
            return list_data_collate([draw(index, _draw(0, _ITEM, index))])

        return work


def _draw(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, dtype=np.uint32)[0])
