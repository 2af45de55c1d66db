"""Work on many questions in chunks that fit a cache, shared out among threads while BLAS keeps to one.

On arrays of a chunk's size a second BLAS thread mostly waits for the first; a second chunk does not. What a chunk gives
does not depend on the threads, and sums are taken in the chunks' order, so neither does a result.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

Floats = NDArray[np.float64]
T = TypeVar("T")

CHUNK = 2048  # questions worked on together
MOST_THREADS = 8

_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("_pool", default=None)


@contextmanager
def chunk_threads() -> Iterator[None]:
    """Share chunks out among as many threads as BLAS was allowed, up to MOST_THREADS, inside the block.

    For one fit at a time in a process: how many threads BLAS may use is the process's, not a thread's.
    """
    n_threads = min(_blas_threads(), MOST_THREADS)
    with threadpool_limits(1), ThreadPoolExecutor(n_threads, thread_name_prefix="chunk") as pool:
        token = _pool.set(pool if n_threads > 1 else None)
        try:
            yield
        finally:
            _pool.reset(token)


def _blas_threads() -> int:
    libraries = threadpool_info()
    return max((one["num_threads"] for one in libraries if one["user_api"] == "blas"), default=os.cpu_count() or 1)


def each_chunk(n: int, work: Callable[[slice], T], chunk: int = CHUNK) -> list[T]:
    """Do the work for each chunk of n rows, at least one, and return what it gives, in order."""
    return list(_each_chunk(n, work, chunk))


def sum_chunks(n: int, work: Callable[[slice], tuple[Floats, ...]], chunk: int = CHUNK) -> tuple[Floats, ...]:
    """Add up what the work gives for each chunk, term by term, as it comes."""
    return reduce(lambda total, part: tuple(map(np.add, total, part)), _each_chunk(n, work, chunk))


def _each_chunk(n: int, work: Callable[[slice], T], chunk: int) -> Iterator[T]:
    chunks = [slice(start, min(start + chunk, n)) for start in range(0, max(n, 1), chunk)]
    pool = _pool.get()
    return map(work, chunks) if pool is None or len(chunks) == 1 else pool.map(work, chunks)
