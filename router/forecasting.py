"""Forecast prompts together that come together: one pass over ten costs little more than over one.

A prompt waits for as long as each turn of the event loop brings another, which alone is one turn. A light encoder's
short prompts are forecast where they arrive: handing so little work to a thread costs more than doing it. All else goes
to a thread of its own, or is dealt to one for each core where the encoder runs on one; what comes while all are busy
waits and goes together next.

None waits longer than the deadline: it gets what is usual, and what its forecast would still take is spared or dropped.
Where more comes than can be forecast, as many as can be are in time: what goes together is kept small by how fast the
last ones were, and who would be late all the same is passed over.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar, TypeVarTuple

from router.artifact import Artifact
from router.choice import ENCODER_FAILED, LATE, Forecast, as_usual, forecasts
from router.errors import EncoderError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

MAX_TOGETHER = 32
MOST_CORES = 4
LIGHT_CHARS = 4_000  # about a millisecond of work on the event loop, for all prompts of one turn together
DEADLINE_S = 1.0
SHARE = 0.25  # of the deadline, for what goes to the thread together
CHARS_PER_TOKEN = 8  # a longer prompt is cut by its encoder
FADING = 0.8  # how much of the earlier pace is kept at each new one


@dataclass(slots=True)
class _Waiting:
    artifact: Artifact
    text: str
    done: asyncio.Future[Forecast]
    due: float
    alarm: asyncio.TimerHandle | None = None

    @property
    def n_chars(self) -> int:
        return min(len(self.text), self.artifact.encoder.max_tokens * CHARS_PER_TOKEN)


class Forecasting:
    """Forecasts for one event loop. Always `close()` it: that ends its threads."""

    def __init__(self, deadline_s: float = DEADLINE_S, n_cores: int | None = None) -> None:
        self._deadline_s = deadline_s
        self._failure: str | None = None
        self._ran_s = 0.0  # of late, in the thread,
        self._ran_chars = 0.0  # for so many
        self._waiting: deque[_Waiting] = deque()
        self._arrived: list[_Waiting] = []  # since the last gathering
        self._due = False
        self._n_running = 0
        self._n_cores = n_cores or min(_usable_cores(), MOST_CORES)
        self._thread = ThreadPoolExecutor(max_workers=self._n_cores, thread_name_prefix="encode")
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")

    @property
    def n_waiting(self) -> int:
        """How many prompts wait to be encoded."""
        return len(self._waiting) + self._thread._work_queue.qsize()

    def close(self) -> None:
        for thread in (self._thread, self._aside):
            thread.shutdown(cancel_futures=True)

    async def run(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Do other work with the encoder, an explanation's for example, in a thread that no forecast waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work, *arguments)

    async def forecast(self, artifact: Artifact, text: str) -> Forecast:
        """Forecast one prompt, together with those that arrive at the same time.

        Past the deadline, or where the encoder fails, it is what is usual, and says why.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(artifact, text, loop.create_future(), loop.time() + self._deadline_s)
        self._waiting.append(waiting)
        self._arrived.append(waiting)
        if not self._due:
            self._due = True
            loop.call_soon(self._gather, 1)
        try:
            return await waiting.done
        finally:
            if waiting.alarm is not None:
                waiting.alarm.cancel()

    def _gather(self, n_seen: int) -> None:
        """Let one more turn of the loop pass where the last one brought more prompts."""
        loop = asyncio.get_running_loop()
        if n_seen < len(self._waiting) < MAX_TOGETHER:
            loop.call_soon(self._gather, len(self._waiting))
        else:
            self._due = False
            try:
                self._next()
            finally:
                for one in self._arrived:  # what was forecast here and now needs no deadline
                    if not one.done.done():
                        one.alarm = loop.call_at(one.due, self._give_up, one)
                self._arrived.clear()

    def _next(self) -> None:
        """Forecast what waits, here or in a thread, until nothing does or all threads are busy."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            n_idle = (self._n_cores if self._waiting[0].artifact.encoder.is_serial else 1) - self._n_running
            if n_idle < 1:
                return
            together = self._together(loop.time(), -(-len(self._waiting) // n_idle))
            if not together:
                continue
            if together[0].artifact.encoder.is_light and sum(len(one.text) for one in together) <= LIGHT_CHARS:
                self._settle(together, _forecasts(together))
                continue
            try:
                running = loop.run_in_executor(self._thread, _timed_forecasts, together)
            except RuntimeError as error:  # the system has no thread to give, now
                self._settle(together, [error] * len(together))
                continue
            self._n_running += 1
            running.add_done_callback(lambda ran, together=together: self._ran(together, ran))  # type: ignore[misc]

    def _together(self, now: float, most: int) -> list[_Waiting]:
        """Take the first that waits and those behind it that the same artifact forecasts, as many as the share allows.

        Who is done is left out, and who would be late.
        """
        together: list[_Waiting] = []
        share_s, pace_s = SHARE * self._deadline_s, self._ran_s and self._ran_s / max(self._ran_chars, 1.0)
        expected_s = 0.0
        while self._waiting and len(together) < min(most, MAX_TOGETHER):
            first = self._waiting[0]
            if not first.done.done():  # else its client left, or it was late
                longer_s = expected_s + (pace_s and pace_s * first.n_chars)
                if together and (longer_s > share_s or first.artifact is not together[0].artifact):
                    break
                expected_s = min(longer_s, share_s)
                together.append(first)
            self._waiting.popleft()
        return [one for one in together if now + expected_s <= one.due]

    def _give_up(self, late: _Waiting) -> None:
        if not late.done.done():
            late.done.set_result(as_usual(late.artifact, LATE))
        while self._waiting and self._waiting[0].done.done():  # those that came first are late first
            self._waiting.popleft()

    def _ran(self, together: Sequence[_Waiting], ran: "asyncio.Future[_Timed]") -> None:
        self._n_running -= 1
        if ran.cancelled():  # the service closes
            for one in together:
                one.done.cancel()
        else:
            timed = ran.result()
            self._ran_s = FADING * self._ran_s + timed.seconds
            self._ran_chars = FADING * self._ran_chars + sum(one.n_chars for one in together)
            self._settle(together, timed.forecasts)
        self._next()

    def _settle(self, together: Sequence[_Waiting], results: Sequence[Forecast | Exception]) -> None:
        for one, result in zip(together, results, strict=True):
            if isinstance(result, Exception):
                self._fail(result)
                result = as_usual(one.artifact, ENCODER_FAILED)
            else:
                self._failure = None
            if not one.done.done():  # else its client left, or it was late
                one.done.set_result(result)

    def _fail(self, error: Exception) -> None:
        """Log why prompts are not forecast, once; of what no encoder says itself, with its place in the code."""
        failure = str(error) if isinstance(error, EncoderError) else type(error).__name__
        if failure != self._failure:
            trace = None if isinstance(error, EncoderError) else error
            logger.warning("the encoder fails, prompts are not forecast: %s", failure, exc_info=trace)
        self._failure = failure


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Timed:
    forecasts: list[Forecast | Exception]
    seconds: float


def _timed_forecasts(together: Sequence[_Waiting]) -> _Timed:
    started = perf_counter()
    return _Timed(_forecasts(together), perf_counter() - started)


def _forecasts(together: Sequence[_Waiting]) -> list[Forecast | Exception]:
    """Forecast prompts of one artifact; where that fails, each that still waits alone, so that none harms others."""
    try:
        return list(forecasts(together[0].artifact, [one.text for one in together]))
    except Exception as error:  # noqa: BLE001  it goes to whoever waits
        if len(together) == 1:
            return [error]
        return [error if one.done.done() else _forecasts([one])[0] for one in together]
