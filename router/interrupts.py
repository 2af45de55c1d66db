"""Ctrl-C and SIGTERM, held back while threads serve.

An exception that a signal raises can land between any two steps of the main thread, such as taking a lock and being
ready to give it back; a thread that is then waited for would wait for that lock. So a signal only asks to stop.
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

import uvicorn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldInterrupts:
    """Lets signals only stop the server while a `with` block of the main thread lasts; its end raises the first."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._server: uvicorn.Server | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._received and error is None:
            signal.raise_signal(self._received[0])

    def stop(self, server: uvicorn.Server) -> None:
        """Have signals stop this server, the one that came before it was there included."""
        self._server = server
        server.should_exit = server.should_exit or bool(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if self._server is not None:
            self._server.handle_exit(number, frame)
