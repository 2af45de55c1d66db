"""Opening databases: the embedded default, PostgreSQL, and what is said when neither can be had."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from data.database import DEFAULT_URL, database_url, open_engine, ready_engine, upgrade, writing
from data.errors import DatabaseError
from data.tables import Base, Model
from tests.conftest import url_of


def test_the_option_comes_before_the_environment_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDROUTER_DATABASE_URL", raising=False)
    assert database_url() == DEFAULT_URL
    monkeypatch.setenv("EMBEDROUTER_DATABASE_URL", "sqlite:///from-environment.db")
    assert database_url() == "sqlite:///from-environment.db"
    assert database_url("sqlite:///named.db") == "sqlite:///named.db"


def test_sqlite_is_opened_with_wal_foreign_keys_and_patience(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert int(str(connection.execute(text("PRAGMA busy_timeout")).scalar())) >= 5000


def test_foreign_keys_are_held_on_both_databases(engine: Engine) -> None:
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(text("INSERT INTO model_aliases (alias, model_id) VALUES ('ghost', 12345)"))


def test_an_empty_sqlite_file_gets_its_folder_and_tables(tmp_path: Path) -> None:
    engine = ready_engine(f"sqlite:///{tmp_path / 'new' / 'folder' / 'logs.db'}")
    assert set(inspect(engine).get_table_names()) >= set(Base.metadata.tables)
    engine.dispose()


def test_a_database_that_is_not_migrated_says_what_to_run(empty_engine: Engine) -> None:
    if empty_engine.dialect.name == "sqlite":
        with empty_engine.begin() as connection:
            connection.execute(text("CREATE TABLE somebody_elses (id INTEGER)"))
    with pytest.raises(DatabaseError, match=r"run `embedrouter db upgrade`"):
        ready_engine(url_of(empty_engine))
    upgrade(empty_engine)
    ready_engine(url_of(empty_engine)).dispose()


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseError) as caught:
        open_engine("postgresql+psycopg://someone:hunter2@127.0.0.1:1/logs")
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("var/embedrouter.db", "it looks like sqlite:///"),
        ("mysql://root@127.0.0.1/logs", "use sqlite or postgresql"),
        ("sqlite:////proc/nowhere/logs.db", "cannot make the database's folder"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_what_would_be_right(url: str, said: str) -> None:
    with pytest.raises(DatabaseError, match=said):
        open_engine(url)


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot open the database"):
        open_engine(f"sqlite:///{tmp_path}")


def test_a_file_of_something_else_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header of its own\n" * 20)
    with pytest.raises(DatabaseError, match="not a database"):
        open_engine(f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_second_writer_waits_for_the_first_instead_of_failing(engine: Engine) -> None:
    order: list[str] = []
    holding = threading.Event()

    def first() -> None:
        with writing(engine, lock="test") as connection:
            connection.execute(Model.__table__.insert().values(name="first", capabilities=[]))  # type: ignore[attr-defined]
            holding.set()
            time.sleep(0.3)
            order.append("first")

    def second() -> None:
        holding.wait(60)
        with writing(engine, lock="test") as connection:
            order.append("second")
            connection.execute(Model.__table__.insert().values(name="second", capabilities=[]))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]
    with engine.connect() as connection:
        assert set(connection.execute(text("SELECT name FROM models")).scalars()) == {"first", "second"}
