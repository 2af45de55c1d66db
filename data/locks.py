"""Locks that a process holds for as long as it works, whatever becomes of it: its end frees them.

PostgreSQL keeps a lock in the session, so that it holds between machines; SQLite in a file beside the database, so
that the database itself stays free for writing. They know nothing of what is done under them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Engine, TextClause, text

LOGS = "logs"  # shared by who holds ids of questions and models for longer, alone by who deletes some
WAIT_S = 600.0


@contextmanager
def holding(engine: Engine, name: str) -> Iterator[bool]:
    """Hold the lock called `name` on a database alone, without waiting; whether it was free."""
    if engine.dialect.name == "postgresql":
        # outside a transaction: a lock that is held for minutes must not hold back vacuum
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            free = bool(connection.execute(_on("pg_try_advisory_lock"), {"name": name}).scalar())
            try:
                yield free
            finally:
                if free:
                    connection.execute(_on("pg_advisory_unlock"), {"name": name})
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


@contextmanager
def sharing(engine: Engine, name: str) -> Iterator[None]:
    """Hold the lock called `name` together with all who share it, once nobody holds it alone."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(_on("pg_advisory_lock_shared"), {"name": name})
            try:
                yield
            finally:
                connection.execute(_on("pg_advisory_unlock_shared"), {"name": name})
        return
    database = engine.url.database
    if not database or database == ":memory:":
        yield
        return
    with closing(sqlite3.connect(f"{database}.{name}-lock", timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # reading is what shares it
        yield


def _on(function: str) -> TextClause:
    """A statement on the lock called :name of the schema in use."""
    return text(f"SELECT {function}(hashtextextended(coalesce(current_schema(), '') || ':' || :name, 0))")
