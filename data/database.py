"""Opening the database: SQLite embedded, PostgreSQL in production, and its migrations.

It knows how to connect, how to begin a write and which migration this release needs. It does not know the tables.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from data import fast_json
from data.errors import DatabaseAwayError, DatabaseError

SQLITE_FAILURES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)
DEFAULT_URL = "sqlite:///var/embedrouter.db"
BUSY_TIMEOUT_MS = 60_000
CONNECT_TIMEOUT_S = 10
# libpq's words: a server that vanished without a word is found out in about half a minute, not after hours
KEEP_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
ROOT = Path(__file__).resolve().parents[1]


def database_url(explicit: str | None = None) -> str:
    """Say which database is meant: the one named outright, else the environment's, else the embedded default."""
    return explicit or os.environ.get("EMBEDROUTER_DATABASE_URL") or DEFAULT_URL


def open_engine(url: str) -> Engine:
    """Connect to a database, creating an SQLite file and its folder; DatabaseAwayError when it does not answer."""
    engine = engine_of(url)
    try:
        with engine.connect():
            return engine
    except DBAPIError as error:
        engine.dispose()
        shown = shown_url(engine.url)
        raise DatabaseAwayError(f"cannot open the database {shown}: {_reason(error, engine.url)}") from None


def engine_of(url: str) -> Engine:
    """Prepare for a database without asking it anything yet."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S, **KEEP_ALIVE}
    return create_engine(parsed, pool_pre_ping=True, connect_args=arguments, json_serializer=fast_json.text)


def ready_engine(explicit: str | None = None) -> Engine:
    """Open the database for use: an empty SQLite file gets its tables, any other must be migrated already."""
    engine = open_engine(database_url(explicit))
    try:
        if engine.dialect.name == "sqlite" and not inspect(engine).get_table_names():
            upgrade(engine)
        else:
            check(engine)
    except DatabaseError:
        engine.dispose()
        raise
    return engine


@contextmanager
def opened(explicit: str | None = None) -> Iterator[Engine]:
    """Have the database ready for one verb, and let go of its connections afterwards."""
    engine = ready_engine(explicit)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def writing(engine: Engine, lock: str | None = None) -> Iterator[Connection]:
    """Begin a write that commits at the end.

    On SQLite it takes the write lock at once, so that a second writer waits instead of failing half-way. On
    PostgreSQL `lock` names what must not happen twice at a time; it is held to the end of the transaction.
    """
    with engine.connect().execution_options(embedrouter_write=True) as connection, connection.begin():
        if lock is not None:
            take_lock(connection, lock)
        yield connection


def take_lock(connection: Connection, lock: str) -> None:
    """Hold one more lock to the end of a write."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(lock.encode())})


def upgrade(url_or_engine: str | Engine, revision: str = "head") -> None:
    """Migrate the database to this release's tables, or up to one revision."""
    from alembic import command

    if isinstance(url_or_engine, str):
        engine = open_engine(url_or_engine)
        upgrade(engine, revision)
        engine.dispose()
        return
    with writing(url_or_engine, lock="migrations") as connection:
        command.upgrade(_alembic_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate the database back to an earlier revision; `base` drops every table."""
    from alembic import command

    with writing(engine, lock="migrations") as connection:
        command.downgrade(_alembic_config(connection), revision)


def check(engine: Engine) -> None:
    """Raise DatabaseError unless the database is at this release's migration."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        scripts = ScriptDirectory.from_config(_alembic_config(connection))
    head = scripts.get_current_head()
    if current == head:
        return
    where = f"the database {shown_url(engine.url)}"
    if current is None:
        raise DatabaseError(f"{where} has no tables yet: run `embedrouter db upgrade`")
    try:
        scripts.get_revision(current)
    except CommandError:
        raise DatabaseError(
            f"{where} is at migration {current}, which a newer release made: update EmbedRouter"
        ) from None
    raise DatabaseError(f"{where} is at migration {current}, this release needs {head}: run `embedrouter db upgrade`")


def _alembic_config(connection: Connection) -> Any:
    """Read [tool.alembic] of the project's pyproject.toml, wherever the command line was started."""
    from alembic.config import Config

    pyproject = ROOT / "pyproject.toml"
    if not pyproject.is_file():
        raise DatabaseError(f"no migrations beside {ROOT / 'data'}: EmbedRouter runs from its checkout")
    config = Config(toml_file=pyproject)
    config.attributes["connection"] = connection
    return config


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):  # the last is of a port that is no number
        raise DatabaseError(
            f"not a database URL: {_scheme(url)}...; it looks like sqlite:///var/embedrouter.db "
            "or postgresql+psycopg://user@host/database"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise DatabaseError(f"no support for {parsed.drivername}: use sqlite or postgresql+psycopg")
    return parsed


def _open_sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(f"cannot make the database's folder {folder}: {error.strerror}") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, json_serializer=fast_json.text)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late; `begin` below sends it
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("embedrouter_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def shown_url(url: URL) -> str:
    """A database's URL as it may be printed, whichever way it holds a password."""
    secret = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def failure(error: BaseException) -> str | None:
    """Say in one line that the database failed; none where the error is another, such as a wrong statement."""
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlite_errorcode", None)
    if not (isinstance(error, OperationalError | InterfaceError) if code is None else code & 0xFF in SQLITE_FAILURES):
        return None
    first = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
    return f"the database failed: {first}; what was stored before is kept"


def _scheme(url: str) -> str:
    return url.split(":", 1)[0][:20]


def _reason(error: DBAPIError, url: URL) -> str:
    """First line of what the driver says; drivers name hosts and users, never passwords, but nothing is sure."""
    first = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
    secrets = [
        str(url.password or ""),
        *(str(value) for name, value in url.query.items() if "password" in name.lower()),
    ]
    for secret in filter(None, secrets):
        first = first.replace(secret, "***")
    return first
