"""Structured logs: one JSON object a line, with the id of the request that it is about.

Prompts and keys are never given to a logger; should a configured secret stand in a line all the same, a library's for
example, it is blotted out.
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import TextIO

from data import fast_json
from router.settings import Logs, Settings

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
BLOT = "***"
WRITE_EVERY_S = 0.1
FLUSH_S = 2.0
MOST_WAITING = 10_000  # lines


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON. What is given as `extra={"fields": {...}}` becomes members of the object."""

    _latest = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields)

    def line(self, created: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
        """The line of what happened at a time, in seconds since 1970."""
        line: dict[str, object] = {"time": self._time(created), "level": level, "logger": logger, "message": message}
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        line.update(fields)
        return fast_json.text(line)

    def _time(self, created: float) -> str:
        """A time in ISO 8601, to the millisecond; lines of the same second share most of it."""
        second, milliseconds = divmod(int(created * 1e3), 1000)
        latest = self._latest
        if second != latest[0]:
            latest = self._latest = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{latest[1]}.{milliseconds:03d}+00:00"


class TextFormatter(logging.Formatter):
    """Writes a record as a line for humans, with its fields behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        fields: dict[str, object] = {**getattr(record, "fields", {})}
        if (request_id := REQUEST_ID.get()) is not None:
            fields = {"request_id": request_id, **fields}
        said = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        return f"{super().formatMessage(record)}{said}"


class Secrets:
    """What no line may show, as it is and as JSON writes it.

    It grows with the pool: an upstream's key may come from the environment at any time.
    """

    def __init__(self, held: Iterable[str] = ()) -> None:
        self.held: tuple[str, ...] = ()
        self.add(held)

    def add(self, secrets: Iterable[str]) -> None:
        """Hold more of them, the longest first: one may stand within another."""
        added = {form for secret in secrets for form in (secret, fast_json.text(secret)[1:-1])}
        self.held = tuple(sorted({*self.held, *added}, key=lambda secret: (-len(secret), secret)))


class Blotting(logging.Formatter):
    """Another formatter's lines without any of the secrets."""

    def __init__(self, formatter: logging.Formatter, secrets: Secrets) -> None:
        super().__init__()
        self.formatter = formatter
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self.blot(self.formatter.format(record))

    def blot(self, line: str) -> str:
        """A line without any of the secrets."""
        for secret in self._secrets.held:
            if secret in line:
                line = line.replace(secret, BLOT)
        return line


class Together(logging.Handler):
    """Writes the lines of a moment at once, in a thread of its own, so that whoever logs never waits.

    A write for each request would let go of the interpreter's lock each time. A process that is killed loses the lines
    of the last WRITE_EVERY_S; where nobody reads the stream, lines beyond MOST_WAITING are dropped, and counted.
    Logging from a destructor, while another line is being logged, is safe: no lock is taken that the thread may hold.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._n_dropped = 0
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._has_rung = False
        self._writing = threading.Lock()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self.take(record.name, lambda: self.format(record))

    def take(self, logger: str, formatted: Callable[[], str]) -> None:
        """Take a line of a logger, as it is formatted; never waits, never fails."""
        try:
            line = formatted()
        except Exception as error:  # noqa: BLE001  no one's request fails; what it is about may be secret
            line = f"a line of {logger} cannot be formatted: {type(error).__name__}"
        if len(self._lines) >= MOST_WAITING:
            self._n_dropped += 1
            return
        self._lines.append(line + "\n")
        if not self._has_rung:
            self._has_rung = True
            self._bell.put(None)

    def flush(self) -> None:
        """Write what waits; for the thread, and for the end of the process."""
        if not self._writing.acquire(timeout=FLUSH_S):
            return  # the stream takes nothing
        try:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if self._n_dropped:
                lines.append(f"{self._n_dropped} lines of the log dropped: nobody reads them\n")
                self._n_dropped = 0
            self._write(lines)
        finally:
            self._writing.release()

    def _write(self, lines: Sequence[str]) -> None:
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except Exception:  # noqa: BLE001  nobody may read it any more, or one line cannot be encoded
            if len(lines) > 1:
                for line in lines:
                    self._write([line])

    def _run(self) -> None:
        while True:
            self._bell.get()
            time.sleep(WRITE_EVERY_S)
            self._has_rung = False
            self.flush()


def configure_logs(logs: Logs, secrets: Secrets) -> None:
    """Send every log of this process to stderr in the configured format."""
    handler = Together(sys.stderr)
    handler.setFormatter(Blotting(JsonFormatter() if logs.format == "json" else TextFormatter(), secrets))
    # what no line says need not be found out for each: the caller's place, the thread, the process, the task
    logging._srcfile = None  # as the logging cookbook has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("router").setLevel(logging.INFO)
    logging.getLogger("router.access").setLevel(logging.INFO if logs.requests else logging.WARNING)


def log_fields(logger: logging.Logger, level: int, message: str, fields: Mapping[str, object]) -> None:
    """Log what `extra={"fields": fields}` would: without a record where nothing but a line of JSON is made of it.

    The record takes three times as long as its line, and every request has one.
    """
    if not logger.isEnabledFor(level):
        return
    handler = _only_handler(logger)
    if isinstance(handler, Together) and handler.level <= level and not handler.filters and not logger.filters:
        blotting = handler.formatter
        if isinstance(blotting, Blotting) and isinstance(blotting.formatter, JsonFormatter):
            line = partial(blotting.formatter.line, time.time(), logging.getLevelName(level), logger.name)
            handler.take(logger.name, lambda: blotting.blot(line(message, fields)))
            return
    logger.log(level, message, extra={"fields": fields})


def _only_handler(logger: logging.Logger) -> logging.Handler | None:
    """The one handler that a logger's records come to; none where they come to several, or to none."""
    found: list[logging.Handler] = []
    above: logging.Logger | None = logger
    while above is not None:
        found += above.handlers
        above = above.parent if above.propagate else None
    return found[0] if len(found) == 1 else None


def secrets_of(settings: Settings) -> Secrets:
    """The secrets that the configuration holds."""
    upstreams = [entry.upstream.api_key for entry in settings.pool if entry.upstream is not None]
    held = [settings.master_key, *(key.key for key in settings.keys), *upstreams]
    return Secrets(secret.get_secret_value() for secret in held if secret is not None)
