"""The command line as a whole: how it ends when it is interrupted, and when the database does."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError

from data.database import failure, open_engine, shown_url
from data.errors import DatabaseError
from data.tables import Outcome
from tests.conftest import url_of
from tests.logs import write_long

ROOT = Path(__file__).parents[1]
QUESTIONS = [(f"q{i}", f"Question number {i} asks what comes after {i * 31 % 977}.", "x", "") for i in range(500)]
ROWS = [(f"q{i}", f"model-{j}", (i * j) % 2) for j in range(120) for i in range(500)]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDROUTER_")}
    command = [sys.executable, str(ROOT / "embedrouter.py"), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=pipe, stderr=pipe, text=True
    )


def n_outcomes(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(Outcome)).scalar() or 0


def test_an_interrupted_import_says_that_nothing_is_lost_and_is_run_again(engine: Engine, tmp_path: Path) -> None:
    write_long(tmp_path / "big", ROWS, questions=QUESTIONS)
    words = ("import", "long", "big", "--database", url_of(engine))
    process = start(tmp_path, *words)
    while not n_outcomes(engine) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert said.startswith("embedrouter: interrupted; nothing is lost: run the same import again")
    assert 0 < n_outcomes(engine) < len(ROWS)
    again = start(tmp_path, *words)
    assert "0 conflicting, 0 rejected" in again.communicate(timeout=120)[0]
    assert n_outcomes(engine) == len(ROWS)


def test_a_server_that_is_interrupted_has_stopped(tmp_path: Path) -> None:
    process = start(tmp_path, "serve", "--port", "0")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("try: "):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "embedrouter: stopped"
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/logs", "127.0.0.1:1/logs: connection failed"),
        ("postgresql+psycopg://me@127.0.0.1:1/logs?password=hunter2", "127.0.0.1:1/logs?password="),
        ("postgresql+psycopg://me:hunter2@nowhere.invalid/logs", "nowhere.invalid/logs: "),
        ("postgresql+psycopg://me:hunter2@host:port/logs", "not a database URL: postgresql+psycopg..."),
        ("mysql://me:hunter2@host/logs", "no support for mysql"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_line_without_its_password(
    tmp_path: Path, url: str, says: str
) -> None:
    process = start(tmp_path, "models", "list", "--database", url)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert says in said
    assert "hunter2" not in said


def test_no_password_of_a_database_is_shown(sqlite_engine: Engine) -> None:
    url = sqlite_engine.url.set(password="hunter2", username="me", host="h", query={"sslpassword": "hunter3", "a": "b"})
    assert not re.search("hunter", shown_url(url))
    assert "a=b" in shown_url(url)


def test_a_database_that_fails_midway_is_one_line(tmp_path: Path) -> None:
    start(tmp_path, "models", "set", "m").communicate(timeout=60)
    file = tmp_path / "var" / "embedrouter.db"
    with closing(sqlite3.connect(file)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'models'").fetchone()
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = b"w" * size
    file.write_bytes(content)
    process = start(tmp_path, "models", "set", "m", "--retired")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("embedrouter: the database failed: ")
    assert said.count("\n") == 1


def test_only_a_database_that_fails_is_told_so() -> None:
    assert failure(ValueError("a defect")) is None
    assert failure(DatabaseError("a user's")) is None
    with open_engine("sqlite://").connect() as connection, pytest.raises(OperationalError) as defect:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    assert failure(defect.value) is None
    failed = failure(OperationalError("SELECT 1", {}, Exception("the disk is full\nand more")))
    assert failed == "the database failed: the disk is full; what was stored before is kept"
