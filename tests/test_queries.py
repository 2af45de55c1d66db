"""Reads: the log as a value, as it stood at any outcome."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from data import queries, store
from data.database import open_engine, upgrade
from data.observations import NewQuestion, Observation
from data.splits import group_questions


def fill(engine: Engine) -> int:
    """Two questions, two models, four observations in two sources; returns the id of the second observation."""
    first, second = store.add_questions(
        engine, [NewQuestion("a", "first question of all", "x", split="train"), NewQuestion("b", "and now another")]
    )
    group_questions(engine)
    models = store.ensure_models(engine, ["m", "n"])
    early = [Observation(first, models["m"], 1, output_tokens=10), Observation(second, models["m"], 0, output_chars=60)]
    store.record_outcomes(engine, "early", early)
    watermark = queries.read_log(engine).watermark
    late = [Observation(first, models["m"], 0, output_chars=80), Observation(first, models["n"], 1)]
    store.record_outcomes(engine, "late", late)
    store.set_model(engine, "n", usd_per_1m_input=2.0, retired=True)
    return watermark


def test_an_empty_database_is_an_empty_log(engine: Engine) -> None:
    log = queries.read_log(engine)
    assert (len(log.questions), len(log.models), len(log.cells), log.watermark) == (0, 0, 0, 0)


def test_repeated_observations_are_aggregated(engine: Engine) -> None:
    fill(engine)
    cells = queries.read_log(engine).cells
    expected = pd.DataFrame(
        {
            "question": [0, 0, 1],
            "model": [0, 1, 0],
            "label": [0.5, 1.0, 0.0],
            "n_observations": [2, 1, 1],
            "output_tokens": [15.0, np.nan, 15.0],
            "tokens_estimated": [1, 0, 1],
        }
    )
    pd.testing.assert_frame_equal(cells, expected)


def test_retired_models_stay_in_the_log(engine: Engine) -> None:
    fill(engine)
    models = queries.read_log(engine).models
    assert models["model_name"].tolist() == ["m", "n"]
    assert models["usd_per_1m_input"].tolist() == pytest.approx([np.nan, 2.0], nan_ok=True)


def test_the_log_is_read_as_it_stood_and_as_it_grew(engine: Engine) -> None:
    watermark = fill(engine)
    stood = queries.read_log(engine, up_to_outcome=watermark)
    assert (stood.cells["label"].tolist(), stood.watermark) == ([1.0, 0.0], watermark)
    grew = queries.read_log(engine, after_outcome=watermark)
    assert grew.cells["label"].tolist() == [0.0, 1.0]
    assert grew.watermark > watermark
    assert queries.read_log(engine, after_outcome=grew.watermark).watermark == 0
    assert len(stood.questions) == len(grew.questions) == 2


def test_a_label_that_changed_shows_as_a_disagreeing_repeat(engine: Engine) -> None:
    watermark = fill(engine)
    assert queries.repeat_rate(engine, watermark) == queries.RepeatRate(0, 0)
    assert queries.repeat_rate(engine) == queries.RepeatRate(1, 1)


def test_a_models_answers_are_counted_and_those_of_others_stand_beside_them(engine: Engine) -> None:
    watermark = fill(engine)
    found = queries.answers_of(engine, "m")
    assert found[["label", "n_observations"]].to_numpy().tolist() == [[0.5, 2], [0, 1]]
    assert queries.answers_of(engine, "m", watermark)["n_observations"].tolist() == [1]
    keys = found["key"].tolist()
    others = queries.answers_of_others(engine, "m", keys)
    assert (others["key"].tolist(), others["label"].tolist()) == (keys[:1], [1.0])
    assert queries.answers_of_others(engine, "m", keys[1:]).empty
    assert queries.answers_of_others(engine, "n", keys)["label"].tolist() == [0.5, 0.0]


def test_the_pool_counts_outcomes(engine: Engine) -> None:
    fill(engine)
    assert {row.name: (row.n_outcomes, row.retired) for row in queries.pool_models(engine)} == {
        "m": (3, False),
        "n": (1, True),
    }


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), max_size=40))
def test_aggregation_is_the_mean_of_each_cell(triples: list[tuple[int, int, int]]) -> None:
    engine = open_engine("sqlite://")
    upgrade(engine)
    questions = store.add_questions(engine, [NewQuestion(str(i), f"question {i}") for i in range(4)])
    group_questions(engine)
    models = list(store.ensure_models(engine, ["k", "l", "m"]).values())
    seen = [Observation(questions[q], models[m], label, ordinal=i) for i, (q, m, label) in enumerate(triples)]
    store.record_outcomes(engine, "s", seen)
    log = queries.read_log(engine)
    expected: dict[tuple[int, int], list[int]] = {}
    for question, model, label in triples:
        expected.setdefault((question, model), []).append(label)
    cells = zip(log.cells["question"], log.cells["model"], log.cells["label"], strict=True)
    assert {(q, m): label for q, m, label in cells} == {
        pair: pytest.approx(sum(labels) / len(labels)) for pair, labels in expected.items()
    }
    assert log.watermark == len(triples)
    engine.dispose()
