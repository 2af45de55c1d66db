"""Promotions and rollbacks reach a running server, and what cannot be loaded changes nothing."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from data.database import ready_engine
from data.promotions import promote, rollback
from data.store import set_model
from router.champion import ChampionWatch
from tests.serving import A_SUM, entry, planted_artifact, register, run_gateway, settings
from tests.upstreams import run_upstream
from tests.waiting import eventually

FIRST = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
SECOND = {"calculator": (0.1, 0.3), "poet": (0.7, 0.8)}  # turns the choice on a sum round


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = ready_engine(f"sqlite:///{tmp_path}/champion.db")
    yield engine
    engine.dispose()


def test_without_a_promotion_there_is_no_artifact_and_the_reason_says_what_to_run(engine: Engine) -> None:
    watch = ChampionWatch(engine, settings())
    assert watch.current.artifact is None
    assert "embedrouter train" in watch.missing


def test_a_promotion_and_a_rollback_are_taken(engine: Engine, tmp_path: Path) -> None:
    first, second = (planted_artifact(tmp_path / "artifacts", p) for p in (FIRST, SECOND))
    register(engine, first)
    register(engine, second, promoted=False)
    watch = ChampionWatch(engine, settings())
    assert watch.current.artifact is not None
    assert watch.current.artifact.id == first.id
    before = watch.current
    promote(engine, second.id, "manual", "test")
    assert watch.refresh(with_pool=False)
    assert watch.current.artifact.id == second.id
    assert before.artifact is not None
    assert before.artifact.id == first.id  # a request in flight keeps what it began with
    rollback(engine, "test")
    assert watch.refresh(with_pool=False)
    assert watch.current.artifact.id == first.id


def test_a_default_model_that_cannot_be_called_is_warned_of(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(engine, planted_artifact(tmp_path / "artifacts", FIRST))
    pool = [entry("poet", "http://127.0.0.1:9/v1")]
    for name, n_warned in (("poet", 0), ("calculator", 1), ("poett", 1)):
        caplog.clear()
        ChampionWatch(engine, settings(pool, policy={"default_model": name}))
        assert sum(repr(name) in record.getMessage() for record in caplog.records) == n_warned


def test_an_unchanged_champion_is_not_loaded_again(engine: Engine, tmp_path: Path) -> None:
    register(engine, planted_artifact(tmp_path / "artifacts", FIRST))
    watch = ChampionWatch(engine, settings())
    before = watch.current
    assert watch.refresh()
    assert watch.current is before


def test_a_changed_pool_is_taken_with_the_same_artifact(engine: Engine, tmp_path: Path) -> None:
    register(engine, planted_artifact(tmp_path / "artifacts", FIRST))
    watch = ChampionWatch(engine, settings())
    artifact = watch.current.artifact
    assert watch.current.pool.reasons == {"calculator": "no upstream", "poet": "no upstream"}
    set_model(engine, "poet", upstream_url="http://127.0.0.1:1/v1")
    assert watch.refresh()
    assert watch.current.artifact is artifact
    assert [e.name for e in watch.current.pool.routable] == ["poet"]


def test_an_artifact_that_was_tampered_with_leaves_the_old_one_serving(engine: Engine, tmp_path: Path) -> None:
    first, second = (planted_artifact(tmp_path / "artifacts", p) for p in (FIRST, SECOND))
    register(engine, first)
    watch = ChampionWatch(engine, settings())
    (second.folder / "scorer.safetensors").write_bytes(b"not an array")
    register(engine, second)
    assert not watch.refresh()
    assert watch.current.artifact is not None
    assert watch.current.artifact.id == first.id
    assert watch.problem is not None
    assert "was changed after it was written" in watch.problem
    rollback(engine, "test")
    assert watch.refresh()
    assert watch.problem is None


def test_a_database_that_fails_leaves_the_old_one_serving(engine: Engine, tmp_path: Path) -> None:
    register(engine, planted_artifact(tmp_path / "artifacts", FIRST))
    watch = ChampionWatch(engine, settings())
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE promotions RENAME TO elsewhere"))
    assert not watch.refresh()
    assert watch.current.artifact is not None
    assert watch.problem == "OperationalError: the database does not answer"


def test_an_artifact_that_was_moved_is_found_in_the_configured_directory(engine: Engine, tmp_path: Path) -> None:
    artifact = planted_artifact(tmp_path / "artifacts", FIRST)
    register(engine, artifact)
    shutil.move(tmp_path / "artifacts", tmp_path / "elsewhere")
    assert ChampionWatch(engine, settings()).current.artifact is None
    watch = ChampionWatch(engine, settings(artifacts_dir=str(tmp_path / "elsewhere")))
    assert watch.current.artifact is not None
    assert watch.current.artifact.id == artifact.id


async def test_a_promotion_and_a_rollback_under_load_fail_no_request(engine: Engine, tmp_path: Path) -> None:
    first, second = (planted_artifact(tmp_path / "artifacts", p) for p in (FIRST, SECOND))
    register(engine, first)
    register(engine, second, promoted=False)
    answers: list[tuple[int, str, str]] = []
    done = asyncio.Event()

    async def load(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
            response = await client.post("/v1/chat/completions", json=body)
            answers.append(
                (response.status_code, response.json().get("model"), response.headers.get("x-embedrouter-artifact", ""))
            )

    async def served_by(artifact_id: str) -> None:
        await eventually(lambda: bool(answers) and answers[-1][2] == artifact_id)  # it reached the server

    with run_upstream() as upstream:
        pool = [entry(name, upstream.url("good")) for name in FIRST]
        with run_gateway(engine, settings(pool)) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
                loads = [asyncio.create_task(load(client)) for _ in range(8)]
                await served_by(first.id)
                promote(engine, second.id, "manual", "test")
                await served_by(second.id)
                await asyncio.sleep(0.1)
                rollback(engine, "test")
                await served_by(first.id)
                done.set()
                await asyncio.gather(*loads)
            rows = gateway.decisions(len(answers))
    assert {status for status, _, _ in answers} == {200}
    choice_of = {first.id: "calculator", second.id: "poet"}
    assert all(model == choice_of[artifact_id] for _, model, artifact_id in answers)
    assert len(rows) == len(answers)
    assert sorted(row["artifact_id"] for row in rows) == sorted(artifact_id for _, _, artifact_id in answers)
    assert all(row["answered_by"] == choice_of[row["artifact_id"]] for row in rows)


def test_a_retired_model_is_left_out_by_the_next_poll_and_comes_back(engine: Engine, tmp_path: Path) -> None:
    register(engine, planted_artifact(tmp_path / "artifacts", FIRST))
    pool = [entry(name, "http://127.0.0.1:1/v1") for name in FIRST]
    watch = ChampionWatch(engine, settings(pool))
    for retired, routable in ((True, ["poet"]), (False, ["calculator", "poet"])):
        set_model(engine, "calculator", retired=retired)
        assert watch.refresh(with_pool=False)
        assert [e.name for e in watch.current.pool.routable] == routable
