"""Write decisions and feedback to SQL: off the request path, in batches, through a database that goes away.

An answer never waits for a record: it goes into a bounded queue. Every flush interval one thread puts what stands there
on the disk (`router.spool`), and another writes it from there to SQL, by its id at most once, for as long as it takes.
A process that is killed loses what the last flush interval brought, and nothing else: the next one that starts on the
same disk adopts the rest. Where the queue or the disk is full, records are dropped, counted and logged.

Feedback may come before its decision, which a stream or another process still has: it waits for a minute before it is
set aside.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from data.errors import DatabaseError
from data.feedback import NewFeedback, Status, add_feedback
from data.store import add_decisions
from router.decision import Decision
from router.settings import Recording
from router.spool import Record, Segment, Spool

logger = logging.getLogger(__name__)

DECISION, FEEDBACK = "decision", "feedback"
MAX_EARLY = 100  # pieces of feedback on one answer before its end
BATCH_SIZE = 500  # rows in one transaction
SEGMENT_SIZE = 2_000  # records in one file
SEGMENTS_IN_MEMORY = 4  # what is just written need not be read back
ADOPT_EVERY_S = 10.0
DATATYPE_MISMATCH = "42804"  # PostgreSQL files it under syntax errors
FIRST_RETRY_S, MAX_RETRY_S = 0.5, 5.0
UNREADABLE_S = 30.0  # until a segment that cannot be read is tried again
FIRST_LOOK_S, N_LOOKS = 0.5, 7  # for a decision that feedback is on, each wait twice the one before: a minute in all
SHUTDOWN_S = 10.0


class Recorder:
    """A queue, a spool on disk, and the threads that empty the one into the other and that into SQL.

    `n_written` and `n_dropped` count since the start; `n_spooled` is how many records are on their way to SQL now.
    """

    def __init__(
        self,
        engine: Engine,
        recording: Recording,
        folder: Path,
        observe: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._observe = observe
        self._flush_interval_s = recording.flush_interval_s
        self._queue_size = recording.queue_size
        self._prompts = recording.prompts
        self._queue: deque[Decision | Record] = deque()
        self._spool = Spool(folder / "spool", recording.max_spool_bytes)
        self._waiting: deque[Segment] = deque()
        self._later: list[tuple[float, Segment]] = []  # each with the moment until which it was put back
        self._unreadable: set[Path] = set()
        self._running: dict[str, list[NewFeedback]] = {}
        self._arrived = threading.Event()
        self._stopping = threading.Event()
        self._spooled_all = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("spooler", self._run_spooler), ("recorder", self._run_writer))
        ]
        self._disk_works = True
        self._database_answers = True
        self._ends_at = math.inf
        self.n_written = 0
        self.n_dropped = 0

    @property
    def n_spooled(self) -> int:
        return sum(segment.n_records for segment in self._held())

    @property
    def is_behind(self) -> bool:
        """Whether the database is away, or has not caught up since it came back."""
        return not self._database_answers or len(self._waiting) > SEGMENTS_IN_MEMORY

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def begin(self, decision: Decision) -> None:
        """Know a decision whose answer is on its way: its client may have its id and say what it thinks of it."""
        self._running[decision.id] = []

    def is_running(self, decision_id: str) -> bool:
        return decision_id in self._running

    def record(self, decision: Decision) -> None:
        """Take a finished decision; never waits, never fails."""
        self._observe(decision)
        self._put(decision)
        for feedback in self._running.pop(decision.id, ()):
            self.give(feedback)

    def give(self, feedback: NewFeedback) -> None:
        """Take feedback that the database could not be asked about; never waits, never fails.

        Of a decision whose answer is still on its way, it is put behind the decision.
        """
        if (early := self._running.get(feedback.decision_id)) is not None and len(early) < MAX_EARLY:
            early.append(feedback)
            return
        self._put(Record(FEEDBACK, asdict(feedback)))

    def stop(self) -> None:
        """Put what is left on the disk and, where the database answers, into SQL within SHUTDOWN_S; then end."""
        self._ends_at = time.monotonic() + SHUTDOWN_S
        self._stopping.set()
        self._arrived.set()
        for thread in self._threads:
            thread.join(SHUTDOWN_S + 5)
        if held := self._held():
            lost = sum(segment.n_records for segment in held if segment.path is None)
            logger.warning("%d records stay in the spool; the next start writes them to SQL", self.n_spooled - lost)
            if lost:
                self._drop(lost, "shutting down while neither database nor disk takes them")
        self._spool.close()

    def _held(self) -> list[Segment]:
        """All that is not in SQL."""
        return [*self._waiting.copy(), *(segment for _, segment in self._later)]

    def _put(self, item: Decision | Record) -> None:
        if len(self._queue) < self._queue_size:
            self._queue.append(item)
        else:
            self._drop(1, "the queue is full")

    # From the queue to the disk

    def _run_spooler(self) -> None:
        try:
            self._adopt()
            adopted_at = time.monotonic()
            while not self._stopping.wait(self._flush_interval_s):
                self._flush()
                if time.monotonic() - adopted_at > ADOPT_EVERY_S:
                    self._adopt()
                    adopted_at = time.monotonic()
            self._flush()
        finally:
            self._spooled_all.set()
            self._arrived.set()

    def _adopt(self) -> None:
        try:
            if adopted := self._spool.adopt():
                n_records = sum(segment.n_records for segment in adopted)
                logger.info("%d records of a process that ended are written to SQL", n_records)
                self._waiting.extend(adopted)
                self._arrived.set()
        except OSError as error:
            logger.warning("the spool cannot be looked through: %s", error)

    def _flush(self) -> None:
        while batch := self._take():
            try:
                records = [self._as_record(item) for item in batch]
                self._waiting.append(self._spooled(records))
            except Exception:  # the thread must live for the others
                logger.exception("%d records cannot be written down", len(batch))
                self._drop(len(batch), "they cannot be written down")
            self._arrived.set()

    def _take(self) -> list[Decision | Record]:
        batch: list[Decision | Record] = []
        while self._queue and len(batch) < SEGMENT_SIZE:
            batch.append(self._queue.popleft())
        return batch

    def _as_record(self, item: Decision | Record) -> Record:
        return item if isinstance(item, Record) else Record(DECISION, item.as_row(self._prompts))

    def _spooled(self, records: Sequence[Record]) -> Segment:
        """Put records on the disk; where it does not take them, they wait in memory, as many as the queue may hold."""
        try:
            segment = self._spool.write(records)
        except OSError as error:
            if self._disk_works:
                logger.error("the disk takes no records, they wait in memory only: %s", error)
            self._disk_works = False
            in_memory = sum(segment.n_records for segment in self._held() if segment.path is None)
            kept = records[: max(0, self._queue_size - in_memory)]
            if len(kept) < len(records):
                self._drop(len(records) - len(kept), "the disk takes none and memory is full")
            return Segment(len(kept), None, kept)
        self._disk_works = True
        if len(self._waiting) >= SEGMENTS_IN_MEMORY:
            return replace(segment, records=None)
        return segment

    # From the disk to SQL

    def _run_writer(self) -> None:
        wait_s = FIRST_RETRY_S
        while True:
            self._arrived.wait(self._until_due_s())
            self._arrived.clear()
            is_last = self._spooled_all.is_set()
            self._take_up(math.inf if is_last else time.monotonic())
            while self._waiting and time.monotonic() < self._ends_at:
                if self._write(self._waiting[0]):
                    self._waiting.popleft()
                    wait_s = FIRST_RETRY_S
                elif self._spooled_all.is_set():
                    return  # what is on the disk is safe there
                else:
                    self._stopping.wait(wait_s)
                    wait_s = min(2 * wait_s, MAX_RETRY_S)
            if is_last:
                return

    def _until_due_s(self) -> float | None:
        due = min((due for due, _ in self._later), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _take_up(self, now: float) -> None:
        """Let what was put back until now wait with the rest again."""
        self._waiting.extend(segment for due, segment in self._later if due <= now)
        self._later = [(due, segment) for due, segment in self._later if due > now]

    def _put_back(self, segment: Segment, wait_s: float) -> None:
        self._later.append((time.monotonic() + wait_s, segment))

    def _write(self, segment: Segment) -> bool:
        """Write a segment to SQL, or put it back where it keeps others waiting; False where the database is away."""
        try:
            records = self._spool.read(segment)
        except FileNotFoundError:
            self._spool.remove(segment)  # someone took it away
            return True
        except OSError as error:
            assert segment.path is not None
            if segment.path not in self._unreadable:
                logger.warning("the segment %s cannot be read, others go before it: %s", segment.path, error.strerror)
            self._unreadable.add(segment.path)
            self._put_back(segment, UNREADABLE_S)
            return True
        early: list[Record] = []
        try:
            for start in range(0, len(records), BATCH_SIZE):
                early += self._write_batch(records[start : start + BATCH_SIZE])
        except (SQLAlchemyError, DatabaseError) as error:
            cause = type(getattr(error, "orig", None) or error).__name__  # its text would hold the rows
            logger.warning("%d records wait for the database: %s", self.n_spooled, cause)
            self._database_answers = False
            return False
        self._database_answers = True
        if early and (segment.n_looks < N_LOOKS or self._stopping.is_set()):  # its file stays: a restart loses none
            rest = replace(segment, n_records=len(early), records=early, n_looks=segment.n_looks + 1)
            self._put_back(rest, FIRST_LOOK_S * 2**segment.n_looks)
            return True
        for record in early:
            self._refuse(record, "its decision is unknown")
        self._spool.remove(segment)
        return True

    def _write_batch(self, records: Sequence[Record]) -> Sequence[Record]:
        """Write records to SQL, and return the feedback that came before its decision.

        SQLAlchemyError where the database does not answer. A record that it refuses is set aside.
        """
        decisions = [record.row for record in records if record.kind == DECISION]
        feedback = [record for record in records if record.kind == FEEDBACK]
        try:
            add_decisions(self._engine, decisions)
            statuses = [self._add_feedback(record) for record in feedback]
        except Exception as error:
            if _away(error):
                raise
            if len(records) == 1:
                self._refuse(records[0], f"the database refuses it ({type(error).__name__})")
                return []
            # keep one refused row from taking its batch with it
            return [early for record in records for early in self._write_batch([record])]
        early = [record for record, status in zip(feedback, statuses, strict=True) if status == "unknown"]
        conflicting = [record for record, status in zip(feedback, statuses, strict=True) if status == "conflicting"]
        for record in conflicting:
            self._refuse(record, "its source said something else before")
        self.n_written += len(records) - len(early) - len(conflicting)
        return early

    def _add_feedback(self, record: Record) -> Status:
        return add_feedback(self._engine, NewFeedback(**record.row)).status  # type: ignore[arg-type]

    def _refuse(self, record: Record, why: str) -> None:
        self._drop(1, why)
        self._spool.refuse(record, why)

    def _drop(self, n_records: int, why: str) -> None:
        self.n_dropped += n_records
        if self.n_dropped == n_records or self.n_dropped % 1000 < n_records:  # the first, then every thousandth
            logger.error("records dropped, %d since the start: %s", self.n_dropped, why)


def _away(error: Exception) -> bool:
    """Whether an error says that the database is not there, and not that it refuses what a row holds."""
    if isinstance(error, DBAPIError):
        is_misfit = getattr(error.orig, "sqlstate", None) == DATATYPE_MISMATCH
        return not (is_misfit or isinstance(error, DataError | IntegrityError))
    return isinstance(error, SQLAlchemyError | DatabaseError) and not isinstance(error, StatementError)
