"""Keep records on disk until they are in SQL.

A segment is a file of JSON lines, one record each, written whole and flushed to the disk before it gets its name, so
that a process killed at any time leaves whole segments. Every process has a folder of its own, which it holds by a lock
that ends with it; a folder that no one holds is a dead process's, and whoever finds it adopts its segments. Reading
one twice is harmless, because a record's id stands in SQL at most once.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data import fast_json
from router.ids import new_id

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
REFUSED = f"refused{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Record:
    """A row on its way to SQL: `kind` says into which table."""

    kind: str
    row: dict[str, object]

    def as_line(self) -> bytes:
        return fast_json.dumps({"kind": self.kind, "row": self.row}) + b"\n"

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """Read a line back; ValueError or KeyError where it is not one."""
        parsed = json.loads(line)
        row = parsed["row"]
        row["created_at"] = datetime.fromisoformat(row["created_at"])
        return cls(parsed["kind"], row)


@dataclass(frozen=True, slots=True)
class Segment:
    """Records in the order they were made. `path` is none where the disk did not take them: they live in memory."""

    n_records: int
    path: Path | None
    records: Sequence[Record] | None = None
    n_bytes: int = 0  # on the disk
    n_looks: int = 0  # that were in vain, for decisions that its feedback is on


class Spool:
    """One process's folder of segments under `root`, and the adoption of those that dead processes left there.

    One thread writes and adopts, another reads and removes.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._counting = threading.Lock()
        self._number = 0
        self._name = new_id()
        self._locks: dict[Path, sqlite3.Connection] = {}
        self._n_left: dict[Path, int] = {}  # segments of each adopted folder

    def write(self, records: Sequence[Record]) -> Segment:
        """Put records on the disk; OSError where it does not take them, or the spool has grown to its limit."""
        folder = self._folder()
        content = b"".join([record.as_line() for record in records])
        if self._n_bytes + len(content) > self._max_bytes:
            raise OSError(f"the spool holds {self._n_bytes} bytes; max_spool_bytes is {self._max_bytes}")
        self._number += 1
        path = folder / f"{self._number:012d}-{len(records)}{SUFFIX}"
        draft = path.with_suffix(".draft")
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        self._grow(len(content))
        return Segment(len(records), path, records, len(content))

    def adopt(self) -> list[Segment]:
        """Take over the segments of processes that have ended, the oldest first."""
        segments: list[Segment] = []
        for folder in self._folders():
            if folder not in self._locks and (lock := hold(folder)) is not None:
                self._locks[folder] = lock
                try:
                    found = [_look_at(path) for path in _segments(folder)]
                except OSError as error:
                    logger.warning("the spool's folder %s cannot be looked through: %s", folder, error)
                    found = []
                self._n_left[folder] = len(found)
                self._grow(sum(segment.n_bytes for segment in found))
                segments += found
                if not found:
                    self._leave(folder)
        return segments

    def read(self, segment: Segment) -> Sequence[Record]:
        """The records of a segment; a line that is not one is set aside and said."""
        if segment.records is not None:
            return segment.records
        assert segment.path is not None
        records: list[Record] = []
        for line in segment.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                records.append(Record.from_line(line))
            except (ValueError, KeyError, TypeError) as error:
                why = f"a line of {segment.path.name} is no record ({type(error).__name__})"
                self._set_aside(f"{line}\n".encode(), why)
        return records

    def remove(self, segment: Segment) -> None:
        """Forget a segment whose records are in SQL; an adopted folder goes with its last."""
        if segment.path is None:
            return
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the segment %s cannot be removed, it will be read again: %s", segment.path, error.strerror)
            return
        self._grow(-segment.n_bytes)
        folder = segment.path.parent
        if folder in self._n_left:
            self._n_left[folder] -= 1
            if not self._n_left[folder]:
                self._leave(folder)

    def refuse(self, record: Record, why: str) -> None:
        """Set aside a record that the database will never take."""
        self._set_aside(record.as_line(), f"a {record.kind} is refused: {why}")

    def close(self) -> None:
        """Let go of every folder; an empty one is removed."""
        for folder in list(self._locks):
            self._leave(folder)

    def _folder(self) -> Path:
        """This process's own folder, made and locked on first use."""
        folder = self._root / self._name
        if folder in self._locks:
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder)
        if lock is None:  # another process took it for a dead one's, before it was locked
            self._name = new_id()
            raise OSError(f"the spool's folder {folder} cannot be locked")
        self._locks[folder] = lock
        return folder

    def _folders(self) -> Iterator[Path]:
        if self._root.is_dir():
            yield from sorted((path for path in self._root.iterdir() if path.is_dir()), key=_made_at)

    def _grow(self, n_bytes: int) -> None:
        with self._counting:
            self._n_bytes += n_bytes

    def _leave(self, folder: Path) -> None:
        self._n_left.pop(folder, None)
        lock = self._locks.pop(folder, None)
        try:
            if not _segments(folder):
                for rest in folder.iterdir():
                    rest.unlink()
                folder.rmdir()
        except OSError:
            pass  # someone else is here, or the disk says no: an empty folder harms no one
        if lock is not None:
            lock.close()

    def _set_aside(self, line: bytes, why: str) -> None:
        """Append to the refused; what cannot even be set aside is said, and lost."""
        path = self._root / REFUSED
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(line)
            logger.error("%s; set aside in %s", why, path)
        except OSError as error:
            logger.error("%s, and lost: %s takes nothing (%s)", why, path, error.strerror)


def hold(folder: Path) -> sqlite3.Connection | None:
    """Lock a folder for as long as this process lives; none where another holds it."""
    connection = None
    try:
        connection = sqlite3.connect(folder / "lock", timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        if connection is not None:
            connection.close()
        return None
    return connection


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _look_at(path: Path) -> Segment:
    """A segment that another process left; one that cannot be looked at counts nothing until it is read."""
    said = path.stem.rpartition("-")[2]  # nothing where the name is not ours
    try:
        n_records = int(said) if said.isdecimal() else len(path.read_bytes().splitlines())
        return Segment(n_records, path, n_bytes=path.stat().st_size)
    except OSError:
        return Segment(0, path)


def _made_at(folder: Path) -> float:
    try:
        return (folder / "lock").stat().st_mtime  # written once, when its process began
    except OSError:
        return time.time()
