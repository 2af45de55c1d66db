"""Write decisions to SQL, in batches and off the request path.

An answer never waits for a record: a decision goes into a bounded queue, a thread writes what stands in it every
flush interval, and retries while the database is away. When the queue is full, or the database refuses a row for what
it holds, the decision is dropped, counted and logged. No prompt text is ever written.
"""

import logging
import queue
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from data.errors import DatabaseError
from data.store import add_decisions
from router.decision import Decision
from router.settings import Recording

logger = logging.getLogger(__name__)

BATCH_SIZE = 500
MAX_RETRY_S = 5.0
SHUTDOWN_S = 10.0


class Recorder:
    """A queue and the thread that empties it into SQL. `n_written` and `n_dropped` count since the start."""

    def __init__(self, engine: Engine, recording: Recording) -> None:
        self._engine = engine
        self._flush_interval_s = recording.flush_interval_s
        self._queue: queue.Queue[Decision] = queue.Queue(recording.queue_size)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.n_written = 0
        self.n_dropped = 0

    def start(self) -> None:
        self._thread.start()

    def record(self, decision: Decision) -> None:
        """Take a finished decision; never waits, never fails."""
        try:
            self._queue.put_nowait(decision)
        except queue.Full:
            self._drop(1, "the queue is full")

    def stop(self) -> None:
        """Write what is left, within SHUTDOWN_S, and end."""
        self._stopping.set()
        self._thread.join(SHUTDOWN_S + 5)

    def _run(self) -> None:
        while not self._stopping.wait(self._flush_interval_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while batch := self._take():
            self._write(batch)

    def _take(self) -> list[Decision]:
        batch: list[Decision] = []
        while len(batch) < BATCH_SIZE:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _write(self, batch: list[Decision]) -> None:
        wait_s, give_up_at = self._flush_interval_s, None
        while True:
            try:
                add_decisions(self._engine, [decision.as_row() for decision in batch])
            except (DataError, IntegrityError) as error:
                self._write_singly(batch, error)
                return
            except (SQLAlchemyError, DatabaseError) as error:
                cause = type(getattr(error, "orig", None) or error).__name__  # its text would hold the rows
                if self._stopping.is_set():
                    give_up_at = give_up_at or time.monotonic() + SHUTDOWN_S
                    if time.monotonic() >= give_up_at:
                        self._drop(len(batch), f"shutting down while the database is away ({cause})")
                        return
                logger.warning("%d decisions wait for the database: %s; next try in %.1f s", len(batch), cause, wait_s)
                time.sleep(min(wait_s, 0.5)) if self._stopping.is_set() else self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_RETRY_S)
            except Exception as error:  # noqa: BLE001  whatever one row did, the thread must live for the others
                self._write_singly(batch, error)
                return
            else:
                self.n_written += len(batch)
                return

    def _write_singly(self, batch: list[Decision], error: Exception) -> None:
        """Keep one refused row from taking its batch with it."""
        if len(batch) == 1:
            self._drop(1, f"the database refuses it ({type(error).__name__})")
            return
        for decision in batch:
            self._write([decision])

    def _drop(self, n_decisions: int, why: str) -> None:
        self.n_dropped += n_decisions
        if self.n_dropped == n_decisions or self.n_dropped % 1000 < n_decisions:  # the first, then every thousandth
            logger.error("decisions dropped, %d since the start: %s", self.n_dropped, why)
