"""Fixtures shared by the tests."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from threadpoolctl import threadpool_limits

from data.database import open_engine, upgrade
from data.errors import DatabaseError
from tests.upstreams import Upstream, run_upstream

SHARED_DATA = Path(os.environ.get("EMBEDROUTER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
POSTGRES = os.environ.get("EMBEDROUTER_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")


def pytest_configure() -> None:
    """Take interrupts, as a terminal would: run in a shell's background, this process and its own would ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small products gain nothing from threads, and lose much on busy cores."""
    from training.threads import torch_threads

    with torch_threads(1), threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real long-format data sets; tests that need it skip where it is absent."""
    if not (SHARED_DATA / "zeroeval" / "questions.csv").is_file():
        pytest.skip(f"no real data sets at {SHARED_DATA}; set EMBEDROUTER_SHARED_DATA to try them")
    return SHARED_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    """A PostgreSQL server to make schemas on; tests that need it skip where it does not answer."""
    try:
        server = open_engine(POSTGRES)
    except DatabaseError as error:
        pytest.skip(f"{error}; set EMBEDROUTER_TEST_POSTGRES to try another")
    yield server
    server.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without tables, on each of the two that EmbedRouter supports."""
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path / 'logs.db'}")
        yield engine
        engine.dispose()
        return
    server: Engine = request.getfixturevalue("postgres")
    schema = f"embedrouter_{uuid.uuid4().hex[:12]}"
    with server.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine = open_engine(in_schema(server, schema))
    yield engine
    engine.dispose()
    with server.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture
def engine(empty_engine: Engine) -> Engine:
    """A migrated, empty database, on SQLite and on PostgreSQL."""
    upgrade(empty_engine)
    return empty_engine


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    """A migrated, empty SQLite file, for what does not depend on the database."""
    engine = open_engine(f"sqlite:///{tmp_path / 'embedded.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A real upstream on loopback that behaves as its URL asks for."""
    with run_upstream() as running:
        yield running


def in_schema(server: Engine, schema: str) -> str:
    """The URL of one schema of a PostgreSQL server."""
    url = server.url.update_query_dict({"options": f"-csearch_path={schema}"})
    return url.render_as_string(hide_password=False)


def url_of(engine: Engine) -> str:
    """An engine's URL, to open the same database in another process."""
    return engine.url.render_as_string(hide_password=False)
