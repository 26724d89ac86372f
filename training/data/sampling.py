"""Which items make the batch of which step, with which random numbers.

Everything random about a step follows from (seed, step), so that a training that is resumed at a step
continues exactly as if it had never stopped, and no state of a random number generator has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from monai.data import list_data_collate


class StepLoader(Sized):
    """An endless loader of training batches, one a step; an epoch is once through the data, shuffled.

    Args:
        dataset: MONAI dataset whose `transform` may be random.
        batch_size: Items a batch; the last batch of an epoch may be smaller.
        seed: Of order and augmentation.
        first_step: The step to begin with, counted from 0.
    """

    def __init__(self, *, dataset: Any, batch_size: int, seed: int, first_step: int = 0) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.step = first_step

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Continues where the loader stands: the trainer may ask for a new iterator at any time."""
        while True:
            batch = self.batch(self.step)
            self.step += 1
            yield batch

    def batch(self, step: int) -> Any:
        """The batch of a step: the same for the same (seed, step), whatever came before."""
        epoch, place = divmod(step, len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        draw = int(np.random.SeedSequence([self.seed, step]).generate_state(1, dtype=np.uint32)[0])
        self.dataset.transform.set_random_state(seed=draw)
        # The network's own randomness (dropout) draws from torch's generator.
        torch.manual_seed(draw)
        return list_data_collate([self.dataset[int(i)] for i in chosen])
