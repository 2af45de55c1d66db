"""The database really stopped, and the server really killed: every request answered, every decision in SQL once."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import yaml
from sqlalchemy import Engine, text

from data.database import open_engine, upgrade
from tests.postgres_server import PostgresServer, run_postgres
from tests.serving import A_POEM, A_SUM, entry, planted_artifact, register
from tests.upstreams import run_upstream
from tests.waiting import eventually

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
FLUSH_INTERVAL_S = 0.25
# a flush interval, and what the disk took to write the one before
SAFE_AFTER_S = FLUSH_INTERVAL_S + 0.5
N_CONNECTIONS = 16


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture
def engine(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Engine]:
    """A migrated database on the server that may be stopped, with a champion."""
    engine = open_engine(postgres_server.url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    upgrade(engine)
    register(engine, planted_artifact(tmp_path / "artifacts", FORECASTS))
    yield engine
    engine.dispose()


@pytest.fixture
def folder(tmp_path: Path, engine: Engine, postgres_server: PostgresServer) -> Iterator[Path]:
    """A working folder whose config.yaml has both models answered by an upstream that behaves."""
    with run_upstream() as upstream:
        configuration = {
            "version": 1,
            "database_url": postgres_server.url,
            "recording": {"flush_interval_s": FLUSH_INTERVAL_S},
            "pool": [entry(name, upstream.url("good")) for name in FORECASTS],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration))
        yield tmp_path


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A running `serve`: its URL and its process, which is killed at the end if it still lives."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDROUTER_")}
    command = [sys.executable, "-m", "embedrouter", "serve", "--port", "0"]
    environ = kept | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = ""
            for line in process.stdout:
                url = url or "".join(re.findall(r"EmbedRouter listens on (http://[\d.]+:\d+)", line))
                if line.startswith("try: "):
                    break
            assert url, (folder / "log").read_text()
            yield url, process
        finally:
            process.kill()


@dataclass
class Load:
    """Requests over sixteen connections: how many were answered, and when each decision's answer came."""

    url: str
    n_asked: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)

    async def ask(self, session: aiohttp.ClientSession) -> None:
        self.n_asked += 1
        prompt = f"{A_SUM if self.n_asked % 2 else A_POEM} {self.n_asked}"
        body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            await response.read()
            self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
            self.answered_at[response.headers["x-embedrouter-decision-id"]] = time.monotonic()

    @property
    def n_answered(self) -> int:
        return sum(self.statuses.values())

    def n_answered_between(self, start: float, end: float) -> int:
        return sum(start < at < end for at in self.answered_at.values())

    @asynccontextmanager
    async def running(self, n_requests: int | None = None) -> AsyncIterator[None]:
        """Ask until so many were asked, or else until the block ends or the server is gone."""
        ended = False

        async def connection(session: aiohttp.ClientSession) -> None:
            while not ended if n_requests is None else self.n_asked < n_requests:
                try:
                    await self.ask(session)
                except aiohttp.ClientError:
                    assert n_requests is None, "the server did not answer"
                    return

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            connections = [asyncio.create_task(connection(session)) for _ in range(N_CONNECTIONS)]
            yield
            ended = True
            await asyncio.gather(*connections)


def stored(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM decisions")).scalars())


@pytest.mark.parametrize("n_requests", [500, pytest.param(5000, marks=pytest.mark.slow)])
async def test_every_request_is_answered_and_recorded_once_while_the_database_goes_away_and_comes_back(
    folder: Path, engine: Engine, postgres_server: PostgresServer, n_requests: int
) -> None:
    with serving(folder) as (url, _):
        load = Load(url)
        async with load.running():
            await eventually(lambda: load.n_answered > n_requests // 10)
            await asyncio.to_thread(postgres_server.stop)
            n_before = load.n_answered
            await eventually(lambda: load.n_answered >= n_before + n_requests)  # so many while it is away
            await asyncio.to_thread(postgres_server.start)
            n_away = load.n_answered
            await eventually(lambda: load.n_answered > n_away + n_requests // 10)
        engine.dispose()  # its connections broke
        await eventually(lambda: len(stored(engine)) >= load.n_asked)
    assert load.statuses == {200: load.n_asked}
    assert sorted(stored(engine)) == sorted(load.answered_at)
    assert list((folder / "var" / "state").rglob("*.jsonl")) == []


async def test_a_server_killed_under_load_while_the_database_is_away_loses_at_most_the_last_flush_interval(
    folder: Path, engine: Engine, postgres_server: PostgresServer
) -> None:
    with serving(folder) as (url, process):
        load = Load(url)
        async with load.running():
            await eventually(lambda: load.n_answered > 100)
            await asyncio.to_thread(postgres_server.stop)
            stopped_at = time.monotonic()
            await eventually(lambda: load.n_answered_between(stopped_at, time.monotonic() - SAFE_AFTER_S) > 100)
            killed_at = time.monotonic()
            process.send_signal(signal.SIGKILL)
    with serving(folder) as (url, _):  # starts and serves without the database
        async with aiohttp.request("GET", f"{url}/health/ready") as response:
            ready = await response.json()
        assert ready["status"] == "ready"
        assert "the database does not answer" in ready["problem"]
        again = Load(url)
        async with again.running(50):
            pass
        assert again.statuses == {200: 50}
        postgres_server.start()
        engine.dispose()
        answered = {**load.answered_at, **again.answered_at}
        safe = {id_ for id_, at in answered.items() if at < killed_at - SAFE_AFTER_S or id_ in again.answered_at}
        assert len(safe) > 100
        await eventually(lambda: safe <= set(stored(engine)))
    found = stored(engine)
    assert len(found) == len(set(found))
    n_lost = len(set(answered) - set(found))
    print(f"{len(answered)} answered, {n_lost} of them not recorded, all in the last flush interval")


def test_a_server_that_never_saw_its_database_says_that_it_is_away(tmp_path: Path) -> None:
    url = "postgresql+psycopg://postgres@127.0.0.1:1/postgres"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"version": 1, "database_url": url}))
    ran = run_serve(tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot open the database postgresql+psycopg://postgres@127.0.0.1:1/postgres" in ran.stderr


def run_serve(folder: Path) -> "subprocess.CompletedProcess[str]":
    kept: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDROUTER_")}
    return subprocess.run(
        [sys.executable, "-m", "embedrouter", "serve", "--port", "0"],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nothing_secret_stands_in_what_the_server_keeps(folder: Path, engine: Engine) -> None:
    with serving(folder) as (url, process):
        body = {"model": "auto", "messages": [{"role": "user", "content": "the wine-dark sea"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 200
        process.send_signal(signal.SIGINT)
        process.wait(30)
    kept = [path for path in (folder / "var").rglob("*") if path.is_file()]
    assert any(path.name == "last_seen.json" for path in kept)
    for path in kept:
        assert b"wine-dark" not in path.read_bytes(), path
    assert json.loads(next(path for path in kept if path.name == "last_seen.json").read_text())["models"]
