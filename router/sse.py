"""Server-sent events, read from bytes as they come.

It follows the standard's grammar (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end in LF, CR
or CRLF, an event ends with an empty line, and neither need respect the chunks of the transport. Bytes stay bytes, so a
character split between two chunks is whole again before anyone decodes it.
"""

import re
from dataclasses import dataclass

LINE_END = re.compile(rb"\r\n|\n|\r")
# atomic groups: a CRLF is one line end, never a CR and an LF
EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
DONE = b"[DONE]"
COMMENT = b": the upstream is still there\n\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is none for a block of comments, which only keeps the connection alive.

    `is_error`: it is called that.
    """

    data: bytes | None
    is_error: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it says that a stream of chunks is over."""
        return self.data is not None and self.data.strip() == DONE


class EventTooLongError(ValueError):
    """An event outgrew its limit."""


class EventParser:
    """Cuts a stream of bytes into events."""

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self._buffer = bytearray()
        self._n_searched = 0
        self._at_start = True
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> list[Event]:
        """Take a chunk; return the events that it completes."""
        self._buffer += chunk
        if self._at_start and len(self._buffer) >= len(BYTE_ORDER_MARK):
            self._buffer = self._buffer.removeprefix(BYTE_ORDER_MARK)
            self._at_start = False
        blocks, start = [], 0
        for end in EVENT_END.finditer(self._buffer, self._n_searched):
            blocks.append(bytes(self._buffer[start : end.start()]))
            start = end.end()
        del self._buffer[:start]
        self._n_searched = max(0, len(self._buffer) - 2)  # one line end may stand there: a long event is read once
        if len(self._buffer) > self._max_event_bytes:
            raise EventTooLongError(f"an event is longer than {self._max_event_bytes} bytes")
        return [event for block in blocks if (event := _event(block)) is not None]

    def end(self) -> list[Event]:
        """Return what stands in the buffer at the end: some upstreams leave the last empty line out."""
        event = _event(bytes(self._buffer))
        self._buffer.clear()
        return [] if event is None else [event]


def encode(data: bytes) -> bytes:
    """Write one event of one line."""
    return b"data: " + data + b"\n\n"


def _event(block: bytes) -> Event | None:
    data: list[bytes] = []
    commented = is_error = False
    for line in LINE_END.split(block):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b":"):
            commented = True
        elif line.startswith(b"event:"):
            is_error = line[6:].strip() == b"error"
    if data:
        return Event(b"\n".join(data), is_error)
    return Event(None) if commented else None
