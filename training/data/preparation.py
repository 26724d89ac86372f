"""A bundle's transforms in two parts: what gives the same every time, and what is drawn anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from monai.transforms import Compose, RandomizableTrait, Transform
from monai.transforms.utils import reset_ops_id


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What happens to a case before it is part of a batch.

    Attributes:
        deterministic: From what a reader gives to an item that may be kept. Threads may share it.
        random: From such an item to what is trained on: the item, or a list of patches of it. Threads may not
            share it: `open_random` gives each its own. None where nothing is drawn.
        fingerprint: Stands for all that decides what `deterministic` gives for the same case.
    """

    deterministic: Callable[[dict[str, Any]], Any]
    random: Compose | None
    fingerprint: str

    def open_random(self) -> Callable[[Any, int], Any]:
        """The random part for one thread: from an item and the seed of its draws to what is trained on."""
        if self.random is None:
            return lambda item, seed: item
        own = copy.deepcopy(self.random)

        def apply(item: Any, seed: int) -> Any:
            own.set_random_state(seed=seed)
            return reset_ops_id(own(item))

        return apply


def split_transform(compose: Compose, *, fingerprint: str) -> Preparation:
    """Cuts a chain of transforms before its first random one, as MONAI's caching datasets do.

    Args:
        compose: The chain. A link that is no MONAI transform may be random for all that is known, and so
            counts as such.
        fingerprint: Of the deterministic part.
    """
    chain = compose.flatten()
    first = chain.get_index_of_first(
        lambda link: isinstance(link, RandomizableTrait) or not isinstance(link, Transform)
    )
    random = None
    if first is not None:
        random = Compose(
            list(chain.transforms[first:]),
            map_items=compose.map_items,
            unpack_items=compose.unpack_items,
            log_stats=compose.log_stats,
            lazy=compose.lazy,
            overrides=compose.overrides,
        )

    def deterministic(item: dict[str, Any]) -> Any:
        # Inversion looks for the object that was applied by its address, which is another one in the process
        # that reads a kept item, and in each thread; without an address it does not look.
        return reset_ops_id(chain(item, end=first, threading=True))

    return Preparation(deterministic=deterministic, random=random, fingerprint=fingerprint)
