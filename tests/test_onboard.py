"""Onboarding on planted logs: the model that was hidden is found again from its answers, and serves."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import promotions, queries
from data.database import ready_engine
from data.errors import LogFormatError
from data.imports import find_imports, forget_imports
from data.log import CorrectnessLog
from router.artifact import Artifact, read_artifact
from router.champion import ChampionWatch
from router.surface import describe
from tests.conftest import url_of
from tests.logs import write_csv
from tests.planted import planted_log
from tests.serving import settings
from tests.stored import store_log
from tests.test_data_commands import run
from training.contradictions import Contradictions, find_contradictions, warn_of
from training.errors import TrainingError
from training.onboard import Onboarded, onboard
from training.suggest import Design, suggest
from training.train import train

NEW = "model-7"


@dataclass
class Planted:
    """A trained champion of seven models, and the answers of the eighth that it never saw."""

    engine: Engine
    root: Path
    champion: Artifact
    log: CorrectnessLog
    label: NDArray[np.float64]  # (N,): the new model's, by question
    p: NDArray[np.float64]  # (N,): the truth behind them

    def answers(self, questions: NDArray[np.int64], name: str = "answers.csv") -> Path:
        rows = [(f"q{q}", int(self.label[q])) for q in questions]
        write_csv(self.root / name, ("question_id", "label"), rows)
        return self.root / name

    def part(self, *splits: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.log.questions["split"].isin(splits))

    def onboard(self, answers: Path, model: str = NEW) -> Onboarded:
        return onboard(self.engine, self.root / "artifacts", model, answers, rejects_folder=self.root / "rejects")


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    truth = planted_log(400, 8, seed=5)
    cells = truth.log.cells
    label = np.full(400, np.nan)
    own = cells[cells["model"] == 7]
    label[own["question"]] = own["label"]
    engine = ready_engine(f"sqlite:///{tmp_path}/onboard.db")
    log = CorrectnessLog(truth.log.questions, truth.log.models.iloc[:7], cells[cells["model"] < 7])
    store_log(engine, log, "planted")
    champion = train(engine, tmp_path / "artifacts").artifact
    promotions.promote(engine, champion.id, "train", "planted")
    yield Planted(engine, tmp_path, champion, log, label, truth.p[:, 7])
    engine.dispose()


def test_a_hidden_model_is_forecast_from_its_answers_and_serves(planted: Planted) -> None:
    watch = ChampionWatch(planted.engine, settings())
    done = planted.onboard(planted.answers(planted.part("train")[:80]))
    assert (done.was, done.n_answers, done.promoted, done.parent) == ("new", 80, True, planted.champion.id)
    champion = queries.champion(planted.engine)
    assert champion is not None
    assert (champion.artifact_id, champion.kind) == (done.artifact, "onboard")
    assert watch.refresh(with_pool=False)
    served = watch.current.artifact
    assert served is not None
    assert served.model_names == (*planted.champion.model_names, NEW)
    held_out = planted.part("test")
    p = served.p_correct([planted.log.questions["prompt"][q] for q in held_out])
    assert np.corrcoef(p[:, -1], planted.p[held_out])[0, 1] > 0.8
    before = planted.champion.p_correct(["algebra of algebra: w1", "chess of chess: w2"])
    assert served.p_correct(["algebra of algebra: w1", "chess of chess: w2"])[:, :-1] == pytest.approx(before)
    learned = planted.part("train", "val")
    assert done.accuracy is not None
    assert done.accuracy.low < planted.label[learned].mean() < done.accuracy.high
    assert set(done.by_benchmark) == {"algebra", "botany", "chess", "dance"}
    assert sum(one.n_questions for one in done.by_benchmark.values()) == done.accuracy.n_questions == len(learned)


def test_the_same_answers_again_change_nothing_and_more_narrow_it(planted: Planted) -> None:
    rows = planted.part("train")
    first = planted.onboard(planted.answers(rows[:40]))
    again = planted.onboard(planted.answers(rows[:40]))
    assert (again.artifact, again.promoted, again.imported.n_new) == (first.artifact, False, 0)
    more = planted.onboard(planted.answers(rows[:160]))
    assert (more.was, more.imported.n_new, more.n_answers) == ("onboarded", 120, 160)
    assert more.accuracy is not None
    assert first.accuracy is not None
    assert more.accuracy.error < first.accuracy.error
    root = read_artifact(planted.root / "artifacts" / more.artifact)
    assert (root.manifest.parent, root.manifest.onboarded) == (planted.champion.id, (NEW,))


def test_more_answers_in_parts_are_the_same_as_all_at_once(planted: Planted) -> None:
    """Also for a trained model: what its training knew is the prior once, however often answers come."""
    rows = planted.part("train")
    for model in (NEW, "model-0"):
        planted.onboard(planted.answers(rows[:30]), model)
        planted.onboard(planted.answers(rows[30:60]), model)
    apart = read_artifact(planted.root / "artifacts" / planted.onboard(planted.answers(rows[:60]), "model-0").artifact)
    promotions.promote(planted.engine, planted.champion.id, "manual", "again")
    planted.onboard(planted.answers(rows[:60]))
    together = read_artifact(
        planted.root / "artifacts" / planted.onboard(planted.answers(rows[:60]), "model-0").artifact
    )
    assert together.id == apart.id


def test_repeated_answers_count_as_far_as_they_are_new_draws(planted: Planted) -> None:
    rows = planted.part("train")[:120]
    right = np.random.default_rng(0).random((len(rows), 8)) < planted.p[rows, None]
    error = {}
    for name, columns in (("once", [0]), ("draws", range(8)), ("echoes", [0] * 8)):
        said = [(f"q{q}", int(right[at, column])) for column in columns for at, q in enumerate(rows)]
        write_csv(planted.root / "answers.csv", ("question_id", "label"), said)
        promotions.promote(planted.engine, planted.champion.id, "manual", "again")
        done = planted.onboard(planted.root / "answers.csv", f"{name}-1")
        assert (done.n_answers, done.imported.n_new) == (120, 120 * len(columns))
        assert done.accuracy is not None
        error[name] = done.accuracy.error
    assert error["draws"] < 0.8 * error["once"], error
    assert error["echoes"] == pytest.approx(error["once"], rel=0.15)


def test_a_model_of_the_pool_is_updated_from_what_its_training_knew(planted: Planted) -> None:
    column = planted.champion.model_names.index("model-0")
    rows = planted.part("train")[:100]
    write_csv(planted.root / "wrong.csv", ("question_id", "label"), [(f"q{q}", 0) for q in rows])
    done = planted.onboard(planted.root / "wrong.csv", "model-0")
    assert (done.was, done.promoted) == ("trained", True)
    served = read_artifact(planted.root / "artifacts" / done.artifact)
    assert served.model_names == planted.champion.model_names
    prompts = [planted.log.questions["prompt"][q] for q in planted.part("test")]
    before, after = planted.champion.p_correct(prompts), served.p_correct(prompts)
    assert after[:, column].mean() < before[:, column].mean() - 0.1
    assert np.delete(after, column, axis=1) == pytest.approx(np.delete(before, column, axis=1))


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_is_believed_but_not_for_certain(planted: Planted, right: int) -> None:
    rows = planted.part("train")[:25]
    write_csv(planted.root / "same.csv", ("question_id", "label"), [(f"q{q}", right) for q in rows])
    accuracy = planted.onboard(planted.root / "same.csv").accuracy
    assert accuracy is not None
    assert (accuracy.expected > 0.65) if right else (accuracy.expected < 0.35)
    assert accuracy.high - accuracy.low > 0.02


def test_bad_rows_are_rejected_with_reasons_and_the_good_ones_count(planted: Planted) -> None:
    rows = [f"q{q}" for q in planted.part("train")[:4]]
    said = [
        {"question_id": rows[0], "label": 1},
        {"question_id": rows[0], "label": 1},
        {"question_id": rows[1], "score": 0.9},
        {"question_id": "nobody-asked", "label": 1},
        {"question_id": rows[2], "label": 2},
        {"label": 1},
        {"question_id": rows[3], "model_name": "model-1", "label": 1},
    ]
    path = planted.root / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    done = planted.onboard(path)
    assert (done.n_answers, done.imported.n_new, done.imported.n_rejected) == (2, 3, 4)
    reasons = " ".join(done.imported.first_rejects)
    assert "question_id nobody-asked is not in the logs: give its prompt too" in reasons
    assert "label is 2, not 0 or 1" in reasons
    assert "neither question_id nor prompt" in reasons
    assert f"model_name is model-1, these are the answers of {NEW}" in reasons


def test_new_prompts_become_questions_and_teach_by_their_text(planted: Planted) -> None:
    prompts = [f"algebra of algebra: w{i} w{i + 300} w{7 * i}" for i in range(40)]
    stored = [planted.log.questions["prompt"][q] for q in planted.part("train")[:3]]
    write_csv(planted.root / "new.csv", ("prompt", "label"), [(p, 1) for p in [*prompts, *stored]])
    done = planted.onboard(planted.root / "new.csv")
    assert done.imported.n_new_questions == 40  # the others are known by their text
    assert done.n_answers + done.n_held_out == 43
    assert done.by_benchmark["algebra"].expected == max(one.expected for one in done.by_benchmark.values())


def test_answers_to_test_questions_are_kept_for_comparisons(planted: Planted) -> None:
    with pytest.raises(TrainingError, match="all 5 are to test questions"):
        planted.onboard(planted.answers(planted.part("test")[:5]))
    both = planted.onboard(planted.answers(np.concatenate([planted.part("test")[:5], planted.part("val")[:9]])))
    assert (both.n_answers, both.n_held_out) == (9, 5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question_id,label\n", "no answer that can be used: the file has no rows"),
        (
            "question_id,label\nno-such,1\n",
            "1 rows were rejected, the first at answers.csv line 2: question_id no-such",
        ),
    ],
)
def test_no_usable_answer_changes_nothing(planted: Planted, content: str, said: str) -> None:
    (planted.root / "answers.csv").write_text(content)
    with pytest.raises(TrainingError, match=said):
        planted.onboard(planted.root / "answers.csv")
    champion = queries.champion(planted.engine)
    assert champion is not None
    assert champion.artifact_id == planted.champion.id
    assert NEW not in [row.name for row in queries.pool_models(planted.engine)]


def counted_answers(planted: Planted, n: int, column: str = "output_tokens", units: int = 1) -> Path:
    """A file of n answers whose lengths are 20, 30, .., tokens in turn; one more does not say its own."""
    rows = planted.part("train")[: n + 1]
    lengths = [str(units * (20 + 10 * (i % 3))) for i in range(n)] + [""]
    path = planted.root / f"{column}-{n}.csv"
    said = [(f"q{q}", int(planted.label[q]), length) for q, length in zip(rows, lengths, strict=True)]
    write_csv(path, ("question_id", "label", column), said)
    return path


@pytest.mark.parametrize(("column", "units", "estimated"), [("output_tokens", 1, False), ("output_chars", 4, True)])
def test_counted_answers_tell_what_the_models_answers_will_take(
    planted: Planted, column: str, units: int, estimated: bool
) -> None:
    done = planted.onboard(counted_answers(planted, 60, column, units))
    assert (done.expected_output_tokens, done.n_counted, done.output_tokens_estimated) == (30, 60, estimated)
    served = read_artifact(planted.root / "artifacts" / done.artifact)
    prompts = ["algebra of algebra: w1", "chess of chess: w2"]
    before, after = (one.output_tokens_of(one.encoder.encode(prompts), prompts) for one in (planted.champion, served))
    assert np.array_equal(after[:, :-1], before)
    assert after[:, -1] == pytest.approx(30, rel=0.1)
    assert served.manifest.expected_output_tokens == (*planted.champion.manifest.expected_output_tokens, 30)
    assert served.manifest.output_tokens_estimated == (*[False] * 7, estimated)


def test_more_counted_answers_update_the_length(planted: Planted) -> None:
    planted.onboard(counted_answers(planted, 1))
    in_parts = planted.onboard(counted_answers(planted, 60))
    promotions.promote(planted.engine, planted.champion.id, "manual", "again")
    at_once = planted.onboard(counted_answers(planted, 60))
    assert (in_parts.artifact, in_parts.expected_output_tokens) == (at_once.artifact, 30)


def test_uncounted_answers_leave_the_length_unknown(planted: Planted) -> None:
    done = planted.onboard(planted.answers(planted.part("train")[:60]))
    assert (done.expected_output_tokens, done.n_counted) == (None, 0)
    served = read_artifact(planted.root / "artifacts" / done.artifact)
    prompts = ["algebra of algebra: w1"]
    assert np.isnan(served.output_tokens_of(served.encoder.encode(prompts), prompts)[:, -1]).all()


def test_what_training_knows_of_a_models_length_stands(planted: Planted) -> None:
    done = planted.onboard(counted_answers(planted, 60), "model-0")
    assert (done.expected_output_tokens, done.n_counted) == (100, 0)
    served = read_artifact(planted.root / "artifacts" / done.artifact)
    assert served.costs.lengths.tokens(*asked(served)) == pytest.approx(
        planted.champion.costs.lengths.tokens(*asked(planted.champion))
    )


def asked(artifact: Artifact) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    prompts = ["algebra of algebra: w1", "chess of chess: w2"]
    return artifact.encoder.encode(prompts), describe(prompts)


def test_the_verb_tells_lengths_and_the_router_costs(planted: Planted) -> None:
    database = {"EMBEDROUTER_DATABASE_URL": url_of(planted.engine)}
    verb = ("onboard", NEW, "--artifacts-dir", "artifacts", "--answers")
    plain = planted.answers(planted.part("train")[:60], "plain.csv")
    silent = run(planted.root, *verb, plain.name, environment=database)
    assert "how long its answers are is not known" in silent.stdout, silent.stderr
    more = counted_answers(planted, 90)
    shown = json.loads(run(planted.root, *verb, more.name, "--json", environment=database).stdout)
    told = run(planted.root, *verb, more.name, environment=database).stdout
    n, mean = shown["n_counted"], shown["expected_output_tokens"]
    assert n > 0
    assert shown["output_tokens_estimated"] is False
    assert f"its answers take {mean:.0f} tokens, the mean of {n} counted; prompts tell more" in told
    prices = ("--usd-per-1m-input", "1", "--usd-per-1m-output", "1000")
    assert run(planted.root, "models", "set", NEW, *prices, environment=database).returncode == 0
    routed = json.loads(run(planted.root, "route", "algebra of algebra: w1", "--json", environment=database).stdout)
    new = next(one for one in routed["candidates"] if one["model"] == NEW)
    assert new["expected_output_tokens"] == pytest.approx(mean, rel=0.1)
    assert new["expected_cost_usd"] == pytest.approx(new["expected_output_tokens"] * 1e-3, rel=0.01)


def test_a_wrong_file_is_named(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("id,correct\nq1,1\n")
    with pytest.raises(
        LogFormatError, match="lacks the column question_id or prompt and label or score; it has id, cor"
    ):
        planted.onboard(tmp_path / "answers.csv")
    (tmp_path / "answers.csv").write_text("question_id;label\nq1;1\n")
    with pytest.raises(LogFormatError, match=r"it has question_id;label: separate columns by commas, not by semic"):
        planted.onboard(tmp_path / "answers.csv")
    (tmp_path / "answers.txt").write_text("q1 right")
    with pytest.raises(LogFormatError, match=r"ends in \.txt"):
        planted.onboard(tmp_path / "answers.txt")
    with pytest.raises(LogFormatError, match="does not exist"):
        planted.onboard(tmp_path / "absent.csv")


def test_without_a_champion_it_says_what_makes_one(sqlite_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="`embedrouter train` makes and promotes one"):
        onboard(sqlite_engine, tmp_path, NEW, tmp_path / "answers.csv")


def test_a_later_training_learns_the_model_like_any_other(planted: Planted) -> None:
    planted.onboard(planted.answers(planted.part("train", "val")))
    trained = train(planted.engine, planted.root / "artifacts").artifact
    assert NEW in trained.model_names
    assert trained.manifest.onboarded == ()
    promotions.promote(planted.engine, trained.id, "manual", "test")
    again = planted.onboard(planted.answers(planted.part("train")[:5]))
    assert (again.was, again.n_answers, again.imported.n_repeated, again.promoted) == ("trained", 0, 5, False)
    assert (again.artifact, again.parent) == (trained.id, trained.id)
    assert again.accuracy is not None
    verb = ("onboard", NEW, "--artifacts-dir", "artifacts", "--answers", "answers.csv")
    told = run(planted.root, *verb, environment={"EMBEDROUTER_DATABASE_URL": url_of(planted.engine)})
    assert told.returncode == 0, told.stderr
    assert f"{NEW} was in the pool already, and its training knew all of these answers" in told.stdout
    assert f"nothing new: the champion {trained.id} knows these answers" in told.stdout
    (planted.root / "none.csv").write_text("question_id,label\nno-such,1\n")
    with pytest.raises(TrainingError, match=r"1 rows were rejected, the first at none\.csv line 2"):
        planted.onboard(planted.root / "none.csv")


def turned_round(planted: Planted, questions: NDArray[np.int64]) -> Path:
    """The new model's answers with every label the other way."""
    rows = [(f"q{q}", 1 - int(planted.label[q])) for q in questions]
    write_csv(planted.root / "turned.csv", ("question_id", "label"), rows)
    return planted.root / "turned.csv"


def test_answers_that_contradict_earlier_ones_are_told_and_forgetting_mends_them(planted: Planted) -> None:
    rows = planted.part("train")[:40]
    right = planted.onboard(planted.answers(rows))
    assert (right.contradictions, right.warnings) == (Contradictions(0, (), 0, 0), ())
    mixed = planted.onboard(turned_round(planted, rows[:10]))
    source = f"answers:{NEW}"
    assert mixed.contradictions == Contradictions(10, (source,), 0, 0)
    (warning,) = mixed.warnings
    assert warning.startswith(f"answers to 10 questions contradict earlier ones of {NEW}")
    assert f"`embedrouter imports forget {source} --yes`, then onboard again" in warning
    assert planted.onboard(planted.answers(rows)).contradictions.n_each_other == 10, "said again, until mended"
    forget_imports(planted.engine, [one.id for one in find_imports(planted.engine, source)])
    mended = planted.onboard(planted.answers(rows))
    assert (mended.artifact, mended.warnings) == (right.artifact, ())


def test_answers_that_contradict_what_the_logs_hold_are_counted(planted: Planted) -> None:
    rows = planted.part("train")[:30]
    cells = planted.log.cells[planted.log.cells["model"] == 0]
    logged = dict(zip(cells["question"], cells["label"].astype(int), strict=True))
    said = [(f"q{q}", 1 - logged[q] if at < 12 else logged[q]) for at, q in enumerate(rows)]
    write_csv(planted.root / "model-0.csv", ("question_id", "label"), said)
    done = planted.onboard(planted.root / "model-0.csv", "model-0")
    assert done.contradictions == Contradictions(0, (), 30, 12)
    (warning,) = done.warnings
    assert warning.startswith("12 of its 30 answers to logged questions contradict what the logs hold of it")


def test_contradictions_of_other_sources_name_them() -> None:
    counts = pd.DataFrame(
        [(1, "answers:m", 1, 1, 0, 0), (1, "long:march", 1, 0, 0, 0), (2, "long:april", 1, 1, 1, 1)],
        columns=["question", "source", "n", "n_right", "n_earlier", "n_earlier_right"],
    )
    found = find_contradictions(counts)
    assert found == Contradictions(1, ("answers:m", "long:march"), 1, 0)
    (warning,) = warn_of(found, "m", "answers:m")
    assert warning.startswith("answers to 1 question contradict")
    assert "They come from answers:m, long:march" in warning


def test_the_verb_warns_of_contradictions_and_tells_what_a_rollback_leaves(planted: Planted) -> None:
    """One file that says both; and the answers are folded in again after a rollback, as is said."""
    database = {"EMBEDROUTER_DATABASE_URL": url_of(planted.engine)}
    q = planted.part("train")
    write_csv(planted.root / "both.csv", ("question_id", "label"), [(f"q{q[0]}", 1), (f"q{q[0]}", 0), (f"q{q[1]}", 1)])
    verb = ("onboard", NEW, "--artifacts-dir", "artifacts", "--answers")
    told = run(planted.root, *verb, "both.csv", environment=database).stdout
    forget = f"`embedrouter imports forget answers:{NEW} --yes`"
    assert f"warning: answers to 1 question contradict earlier ones of {NEW}, in this file or before it" in told
    assert "the answers stay stored, and the next onboarding or training learns from them, unless " + forget in told
    back = run(planted.root, "artifacts", "rollback", environment=database).stdout
    assert f"{planted.champion.id} is the champion again" in back
    assert "the onboarded answers stay stored" in back
    (planted.root / "more.csv").write_text(f"question_id,label\nq{q[2]},1\n")
    shown = json.loads(run(planted.root, *verb, "more.csv", "--json", environment=database).stdout)
    assert (shown["n_answers"], shown["contradictions"]["n_each_other"], len(shown["warnings"])) == (3, 1, 1)


def test_an_onboarded_artifact_is_listed_without_figures_and_names_whose_it_has(planted: Planted) -> None:
    rows = planted.part("train")
    first = planted.onboard(planted.answers(rows[:20]))
    second = planted.onboard(planted.answers(rows[:30]))
    database = {"EMBEDROUTER_DATABASE_URL": url_of(planted.engine)}
    shown = json.loads(run(planted.root, "artifacts", "list", "--json", environment=database).stdout)["artifacts"]
    listed = {one["id"]: (one["measured_on"], one["nll"] is None) for one in shown}
    trained = planted.champion.id
    assert listed == {trained: (None, False), first.artifact: (trained, True), second.artifact: (trained, True)}
    told = run(planted.root, "artifacts", "list", environment=database).stdout
    assert f"{first.artifact} was not measured: it is {trained} with models onboarded since" in told


@pytest.mark.parametrize("design", list(Design))
def test_suggestions_are_learnable_unanswered_and_distinct(planted: Planted, design: Design) -> None:
    root = planted.root / "artifacts"
    chosen = [one.question_id for one in suggest(planted.engine, root, NEW, 50, design=design)]
    assert len(set(chosen)) == 50
    split = planted.log.questions.set_index("question_id")["split"]
    assert "test" not in set(split.loc[chosen])
    write_csv(planted.root / "asked.csv", ("question_id", "label"), [(question, 1) for question in chosen])
    planted.onboard(planted.root / "asked.csv")
    assert not set(chosen) & {one.question_id for one in suggest(planted.engine, root, NEW, 1000, design=design)}


def test_the_verb_suggests_reads_back_and_says_what_it_expects(planted: Planted) -> None:
    database = {"EMBEDROUTER_DATABASE_URL": url_of(planted.engine)}
    verb = ("onboard", NEW, "--artifacts-dir", "artifacts")
    suggested = run(planted.root, *verb, "--suggest", "40", "--output", "ask.csv", environment=database)
    assert suggested.stdout.startswith(f"40 questions are in ask.csv: ask {NEW}"), suggested.stderr
    again = run(planted.root, *verb, "--suggest", "40", "--output", "ask.csv", environment=database)
    assert (again.returncode, "may hold answers" in again.stderr) == (1, True)
    with (planted.root / "ask.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    asked = [(*row[:3], str(int(planted.label[int(row[0][1:])]))) for row in rows]
    write_csv(planted.root / "ask.csv", header, asked)
    done = run(planted.root, *verb, "--answers", "ask.csv", environment=database)
    assert "answers: 40 new, 0 repeated, 0 conflicting, 0 rejected" in done.stdout, done.stderr
    assert f"{NEW} is new to the pool: 40 answers folded in" in done.stdout
    assert "all logged questions" in done.stdout
    assert "more answers would halve" in done.stdout
    assert "is the champion now, in place of" in done.stdout
    shown = json.loads(run(planted.root, *verb, "--answers", "ask.csv", "--json", environment=database).stdout)
    assert (shown["was"], shown["n_answers"], shown["promoted"]) == ("onboarded", 40, False)
    assert shown["accuracy"]["low"] < shown["accuracy"]["expected"] < shown["accuracy"]["high"]
    routed = run(planted.root, "route", "algebra of algebra: w1 w2", "--json", environment=database)
    assert NEW in {one["model"] for one in json.loads(routed.stdout)["candidates"]}, routed.stdout


def test_the_verb_asks_for_one_of_its_two_uses(tmp_path: Path) -> None:
    for words in ((), ("--answers", "a.csv", "--suggest", "5")):
        refused = run(tmp_path, "onboard", NEW, *words)
        assert (refused.returncode, refused.stderr[:39]) == (1, "embedrouter: say either --answers FILE,")
