"""Ids of requests and decisions: unique, and not to be guessed from others."""

import os
from collections import deque
from time import time_ns

N_BYTES = 10
N_DRAWN = 400  # at once: asking the system for every id would let go of the interpreter's lock each time

_drawn: deque[str] = deque()
os.register_at_fork(after_in_child=_drawn.clear)  # no two processes give out the same


def new_id() -> str:
    """32 hexadecimal digits that no one else has, in the order of time as of RFC 9562's version 7.

    Ids that follow each other go to the end of an index; random ones rewrite a page of it each.
    """
    return f"{time_ns() // 1_000_000:012x}{_random_digits()}"


def _random_digits() -> str:
    try:
        return _drawn.pop()
    except IndexError:
        block = os.urandom(N_BYTES * N_DRAWN).hex()
        first, *others = (block[start : start + 2 * N_BYTES] for start in range(0, len(block), 2 * N_BYTES))
        _drawn.extend(others)
        return first
