"""A decision that was recorded is chosen again from its record, and the choice is the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from data.database import ready_engine
from router.artifact import Artifact
from router.choice import ENCODER_FAILED, LATE, as_usual, bounded, choose, forecast
from router.eligibility import eligible
from router.observed import Observed
from router.policy import Policy
from router.pool import join_pool
from router.replay import replay
from router.request import read_request
from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_artifact, register, run_gateway, settings
from tests.upstreams import run_upstream

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8), "cheap": (0.5, 0.5), "unpriced": (0.95, 0.1)}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return planted_artifact(tmp_path_factory.mktemp("replay") / "artifacts", FORECASTS)


@pytest.fixture
def gateway(tmp_path: Path, artifact: Artifact) -> Iterator[Gateway]:
    engine: Engine = ready_engine(f"sqlite:///{tmp_path}/replay.db")
    register(engine, artifact)
    with run_upstream() as upstream:
        usd = {"calculator": 10.0, "poet": 5.0, "cheap": 0.1, "unpriced": None}
        pool = [entry(name, upstream.url("good"), usd=price) for name, price in usd.items()]
        recording = {"flush_interval_s": 0.02, "prompts": "full"}
        with run_gateway(engine, settings(pool, recording=recording)) as running:
            yield running
    engine.dispose()


def decide(gateway: Gateway, prompt: str, model: str = "auto", **extension: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "embedrouter": extension}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
    assert answer.status_code == 200, answer.text
    return gateway.decision(answer.headers["x-request-id"])


@pytest.mark.parametrize("prompt", [A_SUM, A_POEM, ""])
@pytest.mark.parametrize(
    "extension",
    [
        {"policy": "quality"},
        {"policy": "balanced", "lambda": 100},
        {"policy": "cheapest", "min_p_correct": 0.4},
        {"policy": "cheapest", "min_p_correct": 1.0},
        {"policy": "fixed", "candidates": ["cheap", "poet"]},
        {"candidates": ["cheap", "poet"]},
    ],
)
def test_a_replay_gives_the_same_choice(
    gateway: Gateway, artifact: Artifact, prompt: str, extension: dict[str, Any]
) -> None:
    row = decide(gateway, prompt, **extension)
    replayed = replay(row, artifact if prompt else None)
    assert replayed.same
    assert replayed.same_order
    if prompt:
        assert replayed.forecast_difference == 0.0
        assert replayed.replayed_from_prompt == row["first_choice"]


def test_a_model_that_was_named_is_the_choice_again(gateway: Gateway) -> None:
    row = decide(gateway, A_SUM, model="poet")
    assert (replay(row).same, replay(row).replayed) == (True, "poet")


def test_a_record_that_was_tampered_with_is_noticed(gateway: Gateway, artifact: Artifact) -> None:
    row = decide(gateway, A_SUM)
    (row["candidates"][0]["p_correct"], row["candidates"][-1]["p_correct"]) = (0.0, 1.0)
    assert not replay(row).same
    row = decide(gateway, A_SUM) | {"prompt": A_POEM}
    assert not replay(row, artifact).same


def test_a_record_from_before_replays_says_so() -> None:
    with pytest.raises(ValueError, match="recorded before replays"):
        replay({"id": "d", "inputs": None})


def test_a_choice_that_was_made_without_a_forecast_is_replayed_without_one(artifact: Artifact) -> None:
    pool = join_pool([], [], artifact, {}, "http://127.0.0.1:1/v1")
    body = {"model": "auto", "messages": [{"role": "user", "content": A_POEM}]}
    request = read_request(json.dumps(body).encode(), {}, Policy())
    entries, reasons = eligible(pool, request, Observed())
    in_time = forecast(artifact, A_POEM)
    for seen in (in_time, as_usual(artifact, LATE), as_usual(artifact, ENCODER_FAILED)):
        decision = choose(request, "request", pool, entries, reasons, seen)
        decision.prompt = request.text
        again = replay(decision.as_row("full"), artifact)
        assert again.same
        assert again.forecast_difference == pytest.approx(0)
        explained = bounded(decision, in_time)
        for option in explained.options:
            assert option.p_correct is not None
            assert (option.interval is None) == (seen is not in_time)
            assert option.interval is None or option.interval[0] <= option.p_correct <= option.interval[1]
