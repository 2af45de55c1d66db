"""Writes: each leaves exactly what it says, and repeating it leaves the same."""

from threading import Thread
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event, select

from data import queries, store
from data.errors import EmbedRouterError
from data.log import CorrectnessLog
from data.observations import NewQuestion, Observation, Recorded, Repeats
from data.splits import group_questions, split_of
from data.tables import SPLITS, Decision
from tests.logs import contents

STORY = (
    "A story about a farmer, his seventeen sheep, a river, an old wooden gate and the slowly sinking evening sun. " * 2
)


def test_questions_are_stored_once_and_referred_to_in_order(engine: Engine) -> None:
    new = [NewQuestion("b", "second", "x"), NewQuestion("a", "first"), NewQuestion("b", "second", "changed")]
    refs = store.add_questions(engine, new)
    assert [ref.external_id for ref in refs] == ["b", "a", "b"]
    assert refs[0] == refs[2]
    before = contents(engine)
    assert store.add_questions(engine, new) == refs
    assert contents(engine) == before
    assert store.add_questions(engine, [NewQuestion("a", "another prompt")])[0].id not in {ref.id for ref in refs}


def test_a_question_is_not_read_before_it_has_its_group(engine: Engine) -> None:
    store.add_questions(engine, [NewQuestion("a", "first", split="test")])
    assert queries.read_log(engine).questions.empty
    assert group_questions(engine) == 1
    assert group_questions(engine) == 0
    assert queries.read_log(engine).questions["split"].tolist() == ["test"]


def test_a_later_near_duplicate_joins_the_stored_group_and_its_split(engine: Engine) -> None:
    (first,) = store.add_questions(engine, [NewQuestion("a", STORY)])
    group_questions(engine)
    split = queries.read_log(engine).questions["split"].item()
    elsewhere = next(other for other in SPLITS if other != split)
    store.add_questions(engine, [NewQuestion("b", STORY + "Why?", split=elsewhere)])
    group_questions(engine)
    questions = queries.read_log(engine).questions
    assert questions["split"].tolist() == [split, split]
    assert questions["group"].tolist() == [first.id, first.id]


@pytest.mark.parametrize(("stated", "splits"), [("each", ["test", "train", "test"]), ("first", ["test"] * 3)])
def test_in_a_new_group_each_or_the_first_stated_split_counts(engine: Engine, stated: Any, splits: list[str]) -> None:
    stories = [NewQuestion("a", STORY, split="test"), NewQuestion("b", STORY + "Why?", split="train")]
    store.add_questions(engine, [*stories, NewQuestion("c", STORY + "When?")])
    group_questions(engine, stated)
    assert queries.read_log(engine).questions["split"].tolist() == splits


@pytest.mark.parametrize("together", [True, False])
def test_a_question_asked_again_takes_its_twins_split(engine: Engine, together: bool) -> None:
    stated = [NewQuestion("a", STORY, split="train"), NewQuestion("b", STORY + "Why?", split="test")]
    store.add_questions(engine, stated)
    if not together:
        group_questions(engine)
    store.add_questions(engine, [NewQuestion("c", STORY + "Why?"), NewQuestion("d", STORY + "When?")])
    group_questions(engine)
    assert queries.read_log(engine).questions["split"].tolist() == ["train", "test", "test", "train"]


def test_unstated_splits_are_drawn_80_10_10_by_the_prompt_alone(engine: Engine) -> None:
    store.add_questions(engine, [NewQuestion(f"q{i}", f"question {i} of {i * 7919 % 1000}") for i in range(1000)])
    group_questions(engine)
    counts = queries.read_log(engine).questions["split"].value_counts()
    assert 760 < counts["train"] < 840
    assert 70 < counts["val"] < 130
    assert 70 < counts["test"] < 130
    assert split_of("ab" * 32) == split_of("ab" * 32, seed=0)
    assert {split_of("ab" * 32, seed=seed) for seed in range(60)} == set(SPLITS)


def test_outcomes_are_counted_as_new_repeated_resumed_and_conflicting(engine: Engine) -> None:
    first, second = store.add_questions(engine, [NewQuestion("a", "first"), NewQuestion("b", "second")])
    model = store.ensure_models(engine, ["m"])["m"]
    import_id = store.begin_import(engine, "long", "s", "/somewhere", "0" * 64)
    right, wrong = Observation(first, model, 1), Observation(first, model, 0)
    assert store.record_outcomes(engine, "s", [right], import_id=import_id) == Recorded(n_new=1)
    again = store.record_outcomes(engine, "s", [right, Observation(second, model, 1)], import_id=import_id)
    assert again == Recorded(n_new=1, n_repeated=1, n_resumed=1)
    assert store.record_outcomes(engine, "t", [right, wrong]) == Recorded(n_new=2, n_conflicting=1)
    assert store.record_outcomes(engine, "u", [right]) == Recorded(n_new=1, n_conflicting=1)
    store.finish_import(engine, import_id, n_repeated=0, n_rejected=3)
    before = contents(engine)
    store.finish_import(engine, import_id, n_repeated=9, n_rejected=9)
    assert contents(engine) == before
    assert before["imports"][0][7:] == (2, 0, 0, 3)


def test_outcomes_appear_in_the_order_of_their_ids(engine: Engine) -> None:
    """A watermark is the last id that was seen, so that nothing may come below it afterwards."""
    (question,) = store.add_questions(engine, [NewQuestion("a", "first")])
    group_questions(engine)
    model = store.ensure_models(engine, ["m"])["m"]
    second = Thread(target=store.record_outcomes, args=(engine, "two", [Observation(question, model, 0)]))
    logs: list[CorrectnessLog] = []

    def overtake(_connection: Connection) -> None:
        if not second.ident:
            second.start()
            second.join(0.5)
            logs.append(queries.read_log(engine))

    event.listen(engine, "commit", overtake)
    store.record_outcomes(engine, "one", [Observation(question, model, 1)])
    second.join(30)
    assert len(queries.additions(engine, logs[0].watermark)) == 2 - logs[0].cells["n_observations"].sum()


def test_identical_observations_are_kept_when_they_are_numbered(engine: Engine) -> None:
    (question,) = store.add_questions(engine, [NewQuestion("a", "first")])
    model = store.ensure_models(engine, ["m"])["m"]
    twice = [Observation(question, model, 1, output_tokens=5)] * 2
    assert store.record_outcomes(engine, "s", twice) == Recorded(n_new=1, n_repeated=1)
    repeats = Repeats("s")
    numbered = [repeats.number(observation) for observation in twice]
    assert [observation.ordinal for observation in numbered] == [0, 1]
    assert store.record_outcomes(engine, "s", numbered) == Recorded(n_new=1, n_repeated=1)


def test_an_observations_key_never_changes(engine: Engine) -> None:
    (question,) = store.add_questions(engine, [NewQuestion("a", "first")])
    model = store.ensure_models(engine, ["m"])["m"]
    observation = Observation(question, model, 1, score=0.75, cost_usd=1e-05, output_chars=12, latency_s=0.1)
    assert observation.key("long:x") == "5884dd9c9d1810dc741d34126162e233"
    assert observation.key("long:y") != observation.key("long:x")


def test_a_model_is_set_found_by_its_alias_and_listed(engine: Engine) -> None:
    assert store.set_model(engine, "m", usd_per_1m_input=1.5, capabilities=["tools"], aliases=["org/m", "m"])
    assert not store.set_model(engine, "m", upstream_url="http://127.0.0.1:9/v1", retired=True, aliases=["org/m"])
    assert store.ensure_models(engine, ["org/m"])["org/m"].name == "m"
    (row,) = queries.pool_models(engine)
    assert (row.usd_per_1m_input, row.usd_per_1m_output, row.capabilities) == (1.5, None, ("tools",))
    assert (row.aliases, row.retired, row.n_outcomes, row.upstream_url) == (
        ("org/m",),
        True,
        0,
        "http://127.0.0.1:9/v1",
    )


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("m", {"usd_per_1m_input": -0.1}, "usd_per_1m_input of m cannot be -0.1: a price is 0 or more"),
        ("m", {"usd_per_1m_output": float("nan")}, "cannot be nan"),
        ("m", {"upstream_url": "ftp://x/v1"}, "starts with http:// or https://"),
        ("m", {"context_window": 0}, "1 token or more"),
        ("m", {"aliases": ["taken"]}, "taken cannot be an alias of m: it is another model's name"),
        ("m", {"aliases": ["other"]}, "other cannot be an alias of m: it is an alias of taken"),
        ("other", {}, "other is an alias of taken: set that one"),
        (" ", {}, "no model can have a blank name"),
        ("m" * 257, {}, "1 to 256 characters"),
        ("auto", {}, "no model can be called auto"),
        ("m", {"aliases": ["auto"]}, "no model can be called auto"),
        ("m", {"aliases": [""]}, "no model can have a blank name"),
        ("m", {"upstream_url": "https://me:hunter2@host/v1"}, r"https://\*\*\*@host/v1: it holds a user name"),
        ("m", {"upstream_url": "https://host:hunter2/v1"}, "and a host"),
        ("m", {"upstream_key_env": "sk-hunter2"}, "the name of the environment variable"),
    ],
)
def test_what_a_model_cannot_be_is_refused_and_nothing_changes(
    engine: Engine, name: str, fields: Any, said: str
) -> None:
    store.set_model(engine, "taken", aliases=["other"])
    before = contents(engine)
    with pytest.raises(EmbedRouterError, match=said) as refused:
        store.set_model(engine, name, **fields)
    assert "hunter2" not in str(refused.value) or "@" not in str(fields)
    assert contents(engine) == before


def test_no_log_can_bring_a_model_called_auto(engine: Engine) -> None:
    with pytest.raises(EmbedRouterError, match="no model can be called auto"):
        store.ensure_models(engine, ["m", "auto"])
    assert queries.pool_models(engine) == []


def test_vectors_come_back_by_fingerprint(engine: Engine) -> None:
    refs = store.add_questions(engine, [NewQuestion("a", "first"), NewQuestion("b", "second")])
    vectors = {ref.id: np.array([ref.id, -0.5, 3e-8], dtype=np.float32) for ref in refs}
    store.save_question_vectors(engine, "f1", vectors)
    store.save_question_vectors(engine, "f1", vectors)
    stored = queries.question_vectors(engine, "f1")
    assert stored.keys() == vectors.keys()
    for key, vector in vectors.items():
        np.testing.assert_array_equal(stored[key], vector)
        assert stored[key].dtype == np.float32
    assert queries.question_vectors(engine, "f2") == {}


def test_decisions_are_stored_once_each(engine: Engine) -> None:
    row: dict[str, Any] = {
        "id": "d1",
        "request_id": "r1",
        "policy": "quality",
        "candidates": [{"model": "m", "p_correct": 0.7}],
        "first_choice": "m",
        "answered_by": "m",
        "attempts": [],
        "status": 200,
    }
    store.add_decisions(engine, [])
    store.add_decisions(engine, [row])
    store.add_decisions(
        engine, [row | {"status": 500}, row | {"id": "d2", "error": "upstream_failed", "cost_usd": 0.1}]
    )
    stored = {decision["id"]: decision for decision in queries.decisions(engine)}
    assert {key: (d["status"], d["error"], d["cost_usd"]) for key, d in stored.items()} == {
        "d1": (200, None, None),
        "d2": (200, "upstream_failed", 0.1),
    }
    assert stored["d1"]["candidates"] == [{"model": "m", "p_correct": 0.7}]


@pytest.mark.parametrize("n", [1, 24, 25, 26, 130])
def test_decisions_are_stored_as_they_are_however_many_come_at_once(engine: Engine, n: int) -> None:
    def decision(number: int) -> dict[str, Any]:
        worth = [{"model": "a ? %s $1 'b'", "p_correct": number / 7}]
        made = {"id": f"d{number}", "request_id": "r", "policy": "quality", "candidates": worth, "first_choice": "a"}
        return {**made, "attempts": [], "status": 200, "cost_usd": None if number % 2 else 0.1 * number}

    made = [decision(number) for number in range(n)]
    store.add_decisions(engine, made[: n // 2])
    store.add_decisions(engine, [*made, *made[::-1]])  # some are there already, and each comes twice
    with engine.connect() as connection:
        rows = connection.execute(select(Decision.id, Decision.candidates, Decision.cost_usd)).all()
    stored = {row.id: (row.candidates, row.cost_usd) for row in rows}
    assert len(rows) == n
    assert stored == {one["id"]: (one["candidates"], one["cost_usd"]) for one in made}
