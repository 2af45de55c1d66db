"""Paces from answers whose timing is known."""

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, insert

from data import queries, store
from data.observations import NewQuestion, Observation
from data.tables import Decision
from training.pace import fit_pace


def timed(n: int, *, first_token_s: float = 0.5, s_per_token: float = 0.02, seen: bool, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10, 500, n).astype(np.float64)
    latency = first_token_s + s_per_token * tokens * rng.uniform(0.9, 1.1, n)
    first = np.full(n, first_token_s if seen else np.nan)
    return pd.DataFrame({"model_name": "m", "latency_s": latency, "output_tokens": tokens, "first_token_s": first})


@pytest.mark.parametrize("seen", [True, False])
def test_a_planted_pace_is_recovered_with_or_without_first_tokens(seen: bool) -> None:
    pace = fit_pace(timed(200, seen=seen), ["unseen", "m"])
    assert np.isnan([pace.first_token_s[0], pace.s_per_token[0]]).all()
    assert pace.first_token_s[1] == pytest.approx(0.5, rel=0.2)
    assert pace.s_per_token[1] == pytest.approx(0.02, rel=0.05)
    assert pace.latency_s(np.array([1.0, 100.0]))[1] == pytest.approx(2.5, rel=0.05)


def test_a_few_stuck_answers_do_not_move_it() -> None:
    rows = timed(200, seen=False)
    rows.loc[::20, "latency_s"] = 600.0
    pace = fit_pace(rows, ["m"])
    assert pace.s_per_token[0] == pytest.approx(0.02, rel=0.15)


def test_too_few_or_all_alike_stay_unknown() -> None:
    assert np.isnan(fit_pace(timed(19, seen=True), ["m"]).first_token_s).all()
    alike = timed(200, seen=False).assign(output_tokens=100.0)
    assert np.isnan(fit_pace(alike, ["m"]).s_per_token).all()


def test_longer_answers_that_come_sooner_make_no_negative_pace() -> None:
    rows = timed(100, seen=False)
    pace = fit_pace(rows.assign(latency_s=10 - rows["output_tokens"] / 100), ["m"])
    assert pace.s_per_token[0] == 0
    assert pace.first_token_s[0] > 0


def test_timings_are_read_from_outcomes(engine: Engine) -> None:
    (question,) = store.add_questions(engine, [NewQuestion("a", "a question", "x", split="train")])
    models = store.ensure_models(engine, ["m"])
    observations = [
        Observation(question, models["m"], 1, output_tokens=10, latency_s=0.5),
        Observation(question, models["m"], 1, output_tokens=11),
        Observation(question, models["m"], 1, output_chars=12, latency_s=0.7),
    ]
    store.record_outcomes(engine, "s", observations)
    timings = queries.timings(engine)
    assert timings[["model_name", "latency_s", "output_tokens"]].to_numpy().tolist() == [["m", 0.5, 10.0]]
    assert timings["first_token_s"].isna().all()


def decided(n: int, **fields: object) -> dict[str, object]:
    said = {"first_choice": "m", "answered_by": "m", "status": 200, "error": None, "output_tokens": 10, **fields}
    timed = {"latency_s": 2.0, "overhead_s": 0.5, "ttft_s": 0.75}
    return {"id": f"{n}", "request_id": f"{n}", "policy": "quality", "candidates": [], "attempts": [], **timed, **said}


def test_timings_are_read_from_decisions_less_the_routers_own_time(engine: Engine) -> None:
    store.ensure_models(engine, ["m"])
    rows = [decided(1), decided(2, first_choice="other"), decided(3, status=502), decided(4, output_tokens=None)]
    rows.append(decided(5, error="stream_broken"))
    with engine.begin() as connection:
        connection.execute(insert(Decision), rows)
    timings = queries.timings(engine)
    assert timings.to_numpy().tolist() == [["m", 1.5, 10.0, 0.25]]
