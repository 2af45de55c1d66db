"""Waiting with an end, as `asyncio.timeout_at` has it, for a fraction of its cost: every request waits several times.

To set a timer and to stop it takes longer than all else about waiting, and hardly one ever rings: what waits is looked
through every TICK_S instead, and ends up to that much later.
"""

import asyncio
import logging
from contextvars import Context
from typing import Protocol, Self

logger = logging.getLogger(__name__)

TICK_S = 0.01


class Alarm(Protocol):
    """What is to ring at a time on the loop's clock."""

    @property
    def at(self) -> float: ...

    def ring(self) -> None: ...


class Alarms:
    """The alarms of one loop, each of which rings once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: dict[Alarm, None] = {}
        self._ticks = False

    def add(self, alarm: Alarm) -> None:
        """Let an alarm ring at its time; where that is over, as soon as the loop turns."""
        self._waiting[alarm] = None
        if alarm.at <= self.loop.time():
            self.loop.call_soon(self._ring_due, context=Context())
        if not self._ticks:
            self._ticks = True
            self._wait()

    def remove(self, alarm: Alarm) -> None:
        self._waiting.pop(alarm, None)

    def _wait(self) -> None:
        self.loop.call_later(TICK_S, self._tick, context=Context())  # of no request: it looks after all of them

    def _tick(self) -> None:
        self._ring_due()
        self._ticks = bool(self._waiting)
        if self._ticks:
            self._wait()

    def _ring_due(self) -> None:
        now = self.loop.time()
        for alarm in [alarm for alarm in self._waiting if alarm.at <= now]:
            self.remove(alarm)
            try:
                alarm.ring()
            except Exception:  # the others must ring
                logger.exception("an alarm fails")


_latest: Alarms | None = None


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """The loop's alarms; another loop, in another thread for example, has its own."""
    global _latest
    alarms = _latest
    if alarms is None or alarms.loop is not loop:
        alarms = _latest = Alarms(loop)
    return alarms


class until:  # noqa: N801  reads as a verb, like asyncio.timeout_at
    """Cancel what runs inside at a time on the loop's clock; it then raises TimeoutError.

    Of one within another that end within the same TICK_S, the outer may be the one that says so. A plain `with` spares
    two coroutines. It is told the loop: finding the running one asks the system for the process's id in Python 3.11.
    """

    __slots__ = ("_alarms", "_inside", "_is_over", "_loop", "_n_cancelled", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self._loop = loop
        self.at = at
        self._is_over = False

    def __enter__(self) -> Self:
        inside = asyncio.current_task(self._loop)
        assert inside is not None, "only a task can wait"
        self._inside = inside
        self._n_cancelled = inside.cancelling()
        self._alarms = alarms_of(self._loop)
        self._alarms.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._alarms.remove(self)
        # one cancellation is this one's; with another, the task is to end whatever the time
        if self._is_over and self._inside.uncancel() <= self._n_cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def reschedule(self, at: float) -> None:
        """End at another time."""
        self.at = at

    def ring(self) -> None:
        self._is_over = True
        self._inside.cancel()
