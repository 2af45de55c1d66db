"""Waiting for what another thread or task does: as long as a slow machine may need, and no longer than it takes."""

import asyncio
import time
from collections.abc import Callable

TIMEOUT_S = 60.0
STEP_S = 0.01


def until(happened: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until something has happened; AssertionError if it does not."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(STEP_S)


async def eventually(happened: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait likewise in an event loop, which goes on meanwhile."""
    async with asyncio.timeout(timeout_s):
        while not happened():  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(STEP_S)
