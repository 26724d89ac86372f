"""The ranks of a training: processes that train one network together, each on its share of every step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist

from training.errors import RankError
from training.job.cluster import launched_already


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """All ranks, and this process among them.

    Attributes:
        rank: This one.
        world_size: How many there are.
        device: Where this one computes.
        group: The process group by which ranks agree, on the CPU; None where there is one rank.
    """

    rank: int
    world_size: int
    device: torch.device
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def agree(self, *, stop: bool, loss: float) -> tuple[bool, float]:
        """What all ranks do after a step: whether any was asked to stop, and the mean of their losses."""
        if self.group is None:
            return stop, loss
        told = torch.tensor([float(stop), loss], dtype=torch.float64)
        dist.all_reduce(told, group=self.group)
        return bool(told[0] > 0), float(told[1]) / self.world_size

    def from_first(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.group is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]


@contextmanager
def open_ranks(environ: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """Joins the other ranks where torchrun has started this process as one of several.

    Raises:
        RankError: Another rank is gone.
    """
    has_gpu = torch.cuda.is_available()
    if not launched_already(environ) or environ["WORLD_SIZE"] == "1":
        yield Ranks(rank=0, world_size=1, device=torch.device("cuda:0" if has_gpu else "cpu"))
        return
    device = torch.device("cpu")
    if has_gpu:
        device = torch.device("cuda", int(environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if has_gpu else "gloo")
    try:
        # Ignite makes a group of its own at its first use, in which all ranks must take part.
        idist.get_rank()
        yield Ranks(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            device=device,
            # Flags and states are on the CPU, where NCCL does not send.
            group=dist.new_group(backend="gloo"),
        )
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            msg = (
                "Another rank of the training ended or cannot be reached any more. Where no rank says why, "
                "its machine may have run out of memory: take fewer workers, a smaller batch_size, or a "
                "larger instance type"
            )
            raise RankError(msg) from error
        raise
    # Not after an error: leaving is what the other ranks notice, and the failure that they would then report
    # must not be written before the one that it comes from.
    dist.destroy_process_group()
