"""A lock that one process holds for as long as it works, whatever becomes of it: its end frees the lock.

PostgreSQL keeps it in the session, so that it holds between machines; SQLite in a file beside the database, so that
the database itself stays free for writing. It knows nothing of what is done under it.
"""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Engine, text


@contextmanager
def holding(engine: Engine, name: str) -> Iterator[bool]:
    """Hold the lock called `name` on a database, without waiting; whether it was free."""
    if engine.dialect.name == "postgresql":
        # outside a transaction: a lock that is held for minutes must not hold back vacuum
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            key = {"key": zlib.crc32(name.encode())}
            free = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar())
            try:
                yield free
            finally:
                if free:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
        return
    database = engine.url.database
    if not database or database == ":memory:":
        yield True  # no other process can see it
        return
    with closing(sqlite3.connect(f"{database}.{name}-lock", timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            yield False
            return
        yield True
