"""Forecast prompts together that come together: one pass over ten costs little more than over one.

A prompt waits for as long as each turn of the event loop brings another, which alone is one turn. A light encoder's
short prompts are forecast where they arrive: handing so little work to a thread costs more than doing it. All else goes
to a thread of its own, and what comes while that is busy waits and goes together next.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from router.artifact import Artifact
from router.choice import Forecast, forecasts

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

MAX_TOGETHER = 32
LIGHT_CHARS = 4_000  # about a millisecond of work on the event loop, for all prompts of one turn together


@dataclass(frozen=True, slots=True)
class _Waiting:
    artifact: Artifact
    text: str
    done: asyncio.Future[Forecast]


class Forecasting:
    """Forecasts for one event loop. Always `close()` it: that ends its thread."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._due = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")

    @property
    def n_waiting(self) -> int:
        """How many prompts wait to be encoded."""
        return len(self._waiting) + self._thread._work_queue.qsize()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def run(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Do other work with the encoder in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def forecast(self, artifact: Artifact, text: str) -> Forecast:
        """Forecast one prompt, together with those that arrive at the same time."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Forecast] = loop.create_future()
        self._waiting.append(_Waiting(artifact, text, done))
        if not self._due:
            self._due = True
            loop.call_soon(self._gather, 1)
        return await done

    def _gather(self, n_seen: int) -> None:
        """Let one more turn of the loop pass where the last one brought more prompts."""
        if n_seen < len(self._waiting) < MAX_TOGETHER:
            asyncio.get_running_loop().call_soon(self._gather, len(self._waiting))
        else:
            self._next()

    def _next(self) -> None:
        """Forecast what waits, here or in the thread, until nothing does."""
        while together := self._together():
            artifact, texts = together[0].artifact, [one.text for one in together]
            if artifact.encoder.is_light and sum(map(len, texts)) <= LIGHT_CHARS:
                _settle(together, _forecasts(artifact, texts))
                continue
            running = asyncio.get_running_loop().run_in_executor(self._thread, _forecasts, artifact, texts)
            running.add_done_callback(lambda ran, together=together: self._ran(together, ran))  # type: ignore[misc]
            return
        self._due = False

    def _together(self) -> list[_Waiting]:
        """Take the first that waits and those behind it that the same artifact forecasts; who left is left out."""
        waiting = [one for one in self._waiting if not one.done.done()]
        n = 0
        while n < min(len(waiting), MAX_TOGETHER) and waiting[n].artifact is waiting[0].artifact:
            n += 1
        self._waiting = waiting[n:]
        return waiting[:n]

    def _ran(self, together: Sequence[_Waiting], ran: "asyncio.Future[list[Forecast | Exception]]") -> None:
        if ran.cancelled():  # the service closes
            for one in together:
                one.done.cancel()
        else:
            _settle(together, ran.result())
        self._next()


def _settle(together: Sequence[_Waiting], results: Sequence[Forecast | Exception]) -> None:
    for one, result in zip(together, results, strict=True):
        if one.done.done():  # its client left
            continue
        if isinstance(result, Exception):
            one.done.set_exception(result)
        else:
            one.done.set_result(result)


def _forecasts(artifact: Artifact, texts: Sequence[str]) -> list[Forecast | Exception]:
    """Forecast texts; where that fails each alone, so that none takes the others with it."""
    try:
        return list(forecasts(artifact, texts))
    except Exception as error:  # noqa: BLE001  it goes to whoever waits
        if len(texts) == 1:
            return [error]
        return [one for text in texts for one in _forecasts(artifact, [text])]
