"""What a process is among several that learn together, data-parallel, and how they agree: torchrun starts them.

Each learns from batches of its own; gradients are averaged, so that all hold the same weights. A process alone is the
first of one, and touches no torch.distributed. It knows gradients and waiting, not what is learned.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

TIMEOUT = timedelta(minutes=30)  # for the others: they wait while the first evaluates and writes
UNSAID = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  # a process alone


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and which on its own machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it writes and prints."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """Its own CUDA device, where several share a machine's."""
        return f"cuda:{self.local}" if asked == "cuda" and self.size > 1 else asked

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes; where one has none, its gradient counts as zero."""
        if self.size == 1:
            return
        learned = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        # who has a gradient at all goes along: what none has stays without, as the optimizer would decay its weight
        there = torch.tensor([float(p.grad is not None) for p in learned], device=learned[0].device)
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), there])
        distributed.all_reduce(flat)
        flat /= self.size
        *means, there = flat.split([*(p.numel() for p in learned), len(learned)])
        for parameter, mean, share in zip(learned, means, there.tolist(), strict=True):
            parameter.grad = mean.view_as(parameter).to(parameter.dtype) if share else None

    def mean(self, value: Tensor) -> Tensor:
        """Average a value over the processes."""
        if self.size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.size

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, as its environment says, and leave them at the end.

    Where one fails, those that wait for it fail too, or torchrun ends them.
    """
    ranks = Ranks(*(int(os.environ.get(name, unsaid)) for name, unsaid in UNSAID.items()))
    if ranks.size == 1:
        yield ALONE
        return
    if device.startswith("cuda"):
        own = torch.device(ranks.device(device))
        torch.cuda.set_device(own)
        distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=own)
    else:
        distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield ranks
    except BaseException:
        if group := distributed.group.WORLD:
            group.abort()  # to destroy it could wait for the others
        raise
    distributed.destroy_process_group()
