"""How many threads torch may use for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Limit torch's threads inside the block.

    Steps of a few milliseconds gain nothing from a second thread, and where other processes share the cores, waiting
    for it at every operation makes them ten times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(n_threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
