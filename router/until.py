"""Waiting with an end, as `asyncio.timeout_at` has it, for half of its cost: every request waits several times."""

import asyncio
from typing import Self


class until:  # noqa: N801  reads as a verb, like asyncio.timeout_at
    """Cancel what runs inside at a time on the loop's clock; it then raises TimeoutError.

    A plain `with` spares two coroutines. It is told the loop: finding the running one asks the system for the process's
    id in Python 3.11.
    """

    __slots__ = ("_at", "_inside", "_is_over", "_loop", "_n_cancelled", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self._loop = loop
        self._at = at
        self._is_over = False

    def __enter__(self) -> Self:
        inside = asyncio.current_task(self._loop)
        assert inside is not None, "only a task can wait"
        self._inside = inside
        self._n_cancelled = inside.cancelling()
        self._timer = self._loop.call_at(self._at, self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        # one cancellation is this one's; with another, the task is to end whatever the time
        if self._is_over and self._inside.uncancel() <= self._n_cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def reschedule(self, at: float) -> None:
        """End at another time."""
        self._timer.cancel()
        self._timer = self._loop.call_at(at, self._end)

    def _end(self) -> None:
        self._is_over = True
        self._inside.cancel()
