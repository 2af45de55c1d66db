"""The verb `forecast` on planted logs: each regime says what it stands on, and what does not match is refused."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import promotions, queries
from data.database import ready_engine
from data.errors import EmbedRouterError, LogFormatError
from data.log import CorrectnessLog
from data.store import set_model
from router.artifact import Artifact, read_artifact
from tests.logs import write_csv
from tests.planted import planted_log
from tests.stored import store_log
from tests.test_data_commands import run
from training.dataset import Correctness
from training.derived import population_of
from training.forecast_files import read_labels, read_questions
from training.forecast_pool import BenchmarkForecast, _Pool, forecast_benchmark
from training.suggest_labels import suggest_labels
from training.train import train

N_MODELS = 9
NEW = "model-8"  # knows what the planting gave it; no log has it
UNRUN = "model-7"  # did not run chess


@dataclass(frozen=True)
class Planted:
    """A champion that never saw dance and the last model; label: (n_questions, N_MODELS), all outcomes."""

    engine: Engine
    root: Path
    log: CorrectnessLog
    label: NDArray[np.float64]

    def rows(self, benchmark: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.log.questions["benchmark"] == benchmark)

    def answers(self, benchmark: str, n: int, models: Sequence[int] = (8,)) -> Path:
        rows = self.rows(benchmark)[:n]
        cells = [(f"q{q}", f"model-{m}", self.label[q, m]) for q in rows for m in models]
        write_csv(self.root / "answers.csv", ("question_id", "model_name", "label"), cells)
        return self.root / "answers.csv"

    def questions(self, benchmark: str) -> Path:
        prompts = self.log.questions["prompt"]
        rows = [(f"q{q}", prompts[q]) for q in self.rows(benchmark)]
        write_csv(self.root / "questions.csv", ("question_id", "prompt"), rows)
        return self.root / "questions.csv"

    def truth(self, benchmark: str, model: int) -> float:
        return float(self.label[self.rows(benchmark), model].mean())

    def forecast(
        self,
        benchmark: str,
        model: str | None = None,
        *,
        is_new: bool = False,
        questions: Path | None = None,
        answers: Path | None = None,
    ) -> BenchmarkForecast:
        return forecast_benchmark(
            self.engine,
            self.root / "artifacts",
            benchmark,
            model=model,
            is_new=is_new,
            questions=questions,
            answers=answers,
        )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    root = tmp_path_factory.mktemp("forecast")
    log = planted_log(480, N_MODELS, seed=3).log
    label = np.full((480, N_MODELS), np.nan)
    label[log.cells["question"], log.cells["model"]] = log.cells["label"]
    benchmark = log.questions["benchmark"].to_numpy()[log.cells["question"]]
    known = (log.cells["model"] < 8) & (benchmark != "dance")
    known &= ~((log.cells["model"] == 7) & (benchmark == "chess"))
    engine = ready_engine(f"sqlite:///{root}/forecast.db")
    store_log(engine, CorrectnessLog(log.questions, log.models.iloc[:8], log.cells[known]), "planted")
    champion = train(engine, root / "artifacts").artifact
    promotions.promote(engine, champion.id, "train", "planted")
    yield Planted(engine, root, log, label)
    engine.dispose()


def test_a_new_model_on_a_known_benchmark_is_forecast_from_its_labels(planted: Planted) -> None:
    (row,) = planted.forecast("algebra", NEW, answers=planted.answers("algebra", 40)).rows
    assert (row.model, row.regime, row.forecast.n_labelled) == (NEW, "known benchmark, new model", 40)
    assert row.forecast.low < planted.truth("algebra", 8) < row.forecast.high
    assert row.forecast.sample_mean == pytest.approx(planted.label[planted.rows("algebra")[:40], 8].mean())
    (blind,) = planted.forecast("algebra", NEW, is_new=True).rows
    assert blind.forecast.sample_mean is None
    assert blind.forecast.high - blind.forecast.low > 2 * (row.forecast.high - row.forecast.low)


def test_the_whole_pool_is_a_sorted_table_with_what_was_observed_as_it_is(planted: Planted) -> None:
    found = planted.forecast("chess")
    rows = {row.model: row for row in found.rows}
    assert found.n_items == len(planted.rows("chess"))
    accuracies = [row.forecast.accuracy for row in found.rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert set(rows) == {f"model-{m}" for m in range(8)}
    assert rows["model-0"].regime == "observed"
    assert rows["model-0"].forecast.accuracy == pytest.approx(planted.truth("chess", 0))
    assert rows[UNRUN].regime == "known benchmark, known model"
    assert rows[UNRUN].forecast.low < rows[UNRUN].forecast.high


def test_an_alias_is_its_model_and_a_retired_model_is_left_out_of_the_table(planted: Planted) -> None:
    set_model(planted.engine, "model-2", retired=True)
    set_model(planted.engine, "model-1", aliases=("model-1-latest",))
    try:
        shown = [row.model for row in planted.forecast("chess").rows]
        assert "model-2" not in shown
        assert len(shown) == 7
        (asked,) = planted.forecast("chess", "model-2").rows
        assert asked.model == "model-2"
        (row,) = planted.forecast("chess", "model-1-latest").rows
        assert (row.model, row.regime) == ("model-1", "observed")
    finally:
        set_model(planted.engine, "model-2", retired=False)


def test_a_new_benchmark_is_forecast_for_known_and_new_models(planted: Planted) -> None:
    questions = planted.questions("dance")
    none = {row.model: row for row in planted.forecast("steps", questions=questions).rows}
    assert {row.regime for row in none.values()} == {"new benchmark, known model"}
    answers = planted.answers("dance", 30, models=(0, 1, 8))
    some = {row.model: row for row in planted.forecast("steps", questions=questions, answers=answers).rows}
    assert some[NEW].regime == "new benchmark, new model"
    for model in (0, 1, 8):
        one, truth = some[f"model-{model}"].forecast, planted.truth("dance", model)
        assert one.n_labelled == 30
        assert one.accuracy == pytest.approx(truth, abs=0.12)
    assert some["model-0"].forecast.high - some["model-0"].forecast.low < 0.3
    width = [forecast["model-0"].forecast.high - forecast["model-0"].forecast.low for forecast in (none, some)]
    assert width[1] < width[0]


def test_labels_of_others_tell_of_a_model_that_labelled_nothing(planted: Planted) -> None:
    """What a new benchmark does to all models is learned from those that have labels."""
    questions = planted.questions("dance")
    alike = [m for m in range(7) if abs(planted.truth("dance", m) - planted.truth("dance", 7)) < 0.2]
    answers = planted.answers("dance", 40, models=alike)
    (told,) = planted.forecast("steps", UNRUN, questions=questions, answers=answers).rows
    (blind,) = planted.forecast("steps", UNRUN, questions=questions).rows
    assert told.forecast.n_labelled == 0
    assert told.forecast != blind.forecast


def champion_of(planted: Planted) -> tuple[Artifact, Correctness]:
    champion = queries.champion(planted.engine)
    assert champion is not None
    artifact = read_artifact(planted.root / "artifacts" / champion.artifact_id)
    return artifact, Correctness.from_log(queries.read_log(planted.engine))


def test_what_others_tell_of_a_model_holds_nothing_of_its_own(planted: Planted) -> None:
    """Its answers are folded in; neither its column nor questions that know its answers may bring them again."""
    artifact, data = champion_of(planted)
    here, column = data.benchmarks == "chess", data.model_names.index("model-0")
    turned = data.label.copy()
    turned[:, column] = 1 - turned[:, column]
    rows = np.flatnonzero(~here)
    said, said_otherwise = (
        _Pool(planted.engine, artifact, one, here, None, 0, lambda _: None)._questions_without("model-0", rows)
        for one in (data, replace(data, label=turned))
    )
    assert said.mean == pytest.approx(said_otherwise.mean, abs=1e-2)
    assert said.covariance == pytest.approx(said_otherwise.covariance, abs=1e-2)
    moved = artifact.scorer.model_bias.copy()
    moved[artifact.model_names.index("model-0")] += 3
    other = replace(artifact, scorer=replace(artifact.scorer, model_bias=moved))
    assert population_of(other, "model-0").mean == pytest.approx(population_of(artifact, "model-0").mean)
    assert population_of(other, "model-1").mean[-1] > population_of(artifact, "model-1").mean[-1] + 0.1


def test_repeats_elsewhere_narrow_what_is_known_of_a_model(planted: Planted) -> None:
    artifact, data = champion_of(planted)
    here, column = data.benchmarks == "chess", data.model_names.index("model-0")
    repeated = replace(data, n_observations=np.where(data.observed, 4, 0).astype(np.float32))
    once, often = (
        _Pool(planted.engine, artifact, one, here, None, 0, lambda _: None)._theta("model-0", column)
        for one in (data, repeated)
    )
    assert np.trace(often.covariance) < np.trace(once.covariance)


def test_the_command_prints_a_table_and_json(planted: Planted) -> None:
    options = ("--database", str(planted.engine.url), "--artifacts-dir", str(planted.root / "artifacts"))
    answers = str(planted.answers("algebra", 40))
    asked = ("--benchmark", "algebra", "--model", NEW, "--answers", answers)
    shown = run(planted.root, "forecast", *asked, *options)
    assert shown.returncode == 0, shown.stderr
    assert NEW in shown.stdout
    assert "known benchmark, new model" in shown.stdout
    found = json.loads(run(planted.root, "forecast", "--benchmark", "algebra", "--json", *options).stdout)
    assert found["level"] == 0.9
    assert [row["model"] for row in found["forecasts"]].count("model-0") == 1


def test_items_to_label_are_suggested_and_read_back(planted: Planted, tmp_path: Path) -> None:
    options = ("--database", str(planted.engine.url))
    asked = ("forecast", "--benchmark", "chess", "--model", UNRUN)
    output = tmp_path / "ask.csv"
    done = run(tmp_path, *asked, "--suggest", "20", "--output", str(output), *options)
    assert done.returncode == 0, done.stderr
    assert f"20 questions are in {output}: fill in" in done.stdout
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chess = {f"q{q}": q for q in planted.rows("chess")}
    assert len({row["question_id"] for row in rows} & chess.keys()) == 20
    write_csv(
        output, tuple(rows[0]), [(*list(row.values())[:3], planted.label[chess[row["question_id"]], 7]) for row in rows]
    )
    (told,) = planted.forecast("chess", UNRUN, answers=output).rows
    assert told.forecast.n_labelled == 20
    again = run(tmp_path, *asked, "--suggest", "20", "--output", str(output), *options)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_what_cannot_be_suggested_says_why(planted: Planted) -> None:
    with pytest.raises(EmbedRouterError, match="perhaps chess"):
        suggest_labels(planted.engine, "ches", 5)
    with pytest.raises(EmbedRouterError, match="model-0 has answered every item of algebra"):
        suggest_labels(planted.engine, "algebra", 5, model="model-0")


def test_unknown_names_are_refused_with_the_nearest(planted: Planted) -> None:
    with pytest.raises(EmbedRouterError, match=r"no benchmark 'algebr'.*perhaps algebra"):
        planted.forecast("algebr")
    with pytest.raises(EmbedRouterError, match=r"no log knows the model 'modle-1'.*model-1"):
        planted.forecast("algebra", "modle-1")
    with pytest.raises(EmbedRouterError, match="hold a benchmark 'chess' already"):
        planted.forecast("chess", questions=planted.questions("dance"))


def test_a_model_of_the_logs_is_not_new(planted: Planted) -> None:
    with pytest.raises(EmbedRouterError, match="the logs know the model 'model-0': leave out --new"):
        planted.forecast("algebra", "model-0", is_new=True)
    with pytest.raises(EmbedRouterError, match="--new says that one model is in no log: name it with --model"):
        planted.forecast("algebra", is_new=True)


def test_rows_of_other_benchmarks_are_left_out_and_counted(planted: Planted, tmp_path: Path) -> None:
    told = [(f"q{q}", b, planted.label[q, 8]) for b in ("algebra", "botany") for q in planted.rows(b)[:30]]
    write_csv(tmp_path / "answers.csv", ("question_id", "benchmark", "label"), [*told, ("q0", "chess", "")])
    found = planted.forecast("algebra", NEW, answers=tmp_path / "answers.csv")
    assert found.n_labels_elsewhere == 30
    assert found.rows == planted.forecast("algebra", NEW, answers=planted.answers("algebra", 30)).rows
    with pytest.raises(EmbedRouterError, match=r"labels no item of 'dance': its column benchmark says algebra, botany"):
        planted.forecast("dance", NEW, questions=planted.questions("dance"), answers=tmp_path / "answers.csv")
    options = ("--database", str(planted.engine.url), "--artifacts-dir", str(planted.root / "artifacts"))
    asked = ("--benchmark", "algebra", "--model", NEW, "--answers", "answers.csv")
    assert "left out of answers.csv: 30 labelled rows of other" in run(tmp_path, "forecast", *asked, *options).stdout


def test_a_new_benchmark_without_labels_says_how_little_its_level_is_known(planted: Planted) -> None:
    options = ("--database", str(planted.engine.url), "--artifacts-dir", str(planted.root / "artifacts"))
    asked = ("--benchmark", "steps", "--questions", str(planted.questions("dance")))
    shown = run(planted.root, "forecast", *asked, *options).stdout
    assert "the order of models says more than their level, which is learned from 3 known benchmarks" in shown
    assert "About 20 labelled items of a model narrow its interval" in shown
    labelled = ("--model", "model-0", "--answers", str(planted.answers("dance", 30, models=(0,))))
    told = json.loads(run(planted.root, "forecast", *asked, *labelled, "--json", *options).stdout)
    assert (told["n_benchmarks"], told["note"], told["n_labels_elsewhere"]) == (3, None, 0)
    assert planted.forecast("chess").n_benchmarks is None


def test_labels_of_other_items_or_of_nobody_are_refused(planted: Planted) -> None:
    with pytest.raises(EmbedRouterError, match="labels 10 items that are not of this benchmark"):
        planted.forecast("algebra", NEW, answers=planted.answers("botany", 10))
    write_csv(planted.root / "whose.csv", ("question_id", "label"), [(f"q{planted.rows('algebra')[0]}", 1)])
    with pytest.raises(EmbedRouterError, match="whose labels"):
        planted.forecast("algebra", answers=planted.root / "whose.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("question_id,label\n", "no labelled items"),
        ("question_id,label\nq1,\n", "no labelled items"),
        ("question_id,label\nq1,1.5\n", r"line 2: label is '1.5', it must be from 0 to 1"),
        ("question_id,label\nq1,maybe\n", "line 2: label is 'maybe', not a number"),
        ("question_id,label\nq1,1\nq1,0\n", "line 3: question_id q1 is labelled above"),
        ("question_id,label\nq1,1,2\n", "line 2: 3 columns, not 2"),
        ("question,label\nq1,1\n", "lacks the column question_id"),
        ("question_id\tlabel\nq1\t1\n", "separate columns by commas, not by tabs"),
    ],
)
def test_a_bad_file_of_labels_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(LogFormatError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_a_graded_label_and_a_blank_one_are_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"question_id": "a", "label": 0.5}\n{"question_id": "b", "label": null}\n')
    (label,) = read_labels(tmp_path / "labels.jsonl")
    assert (label.question_id, label.model, label.label) == ("a", None, 0.5)


def test_questions_are_numbered_where_they_have_no_id(tmp_path: Path) -> None:
    with (tmp_path / "prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], ["What, then?"], ["And now?"]])
    assert [(one.question_id, one.prompt) for one in read_questions(tmp_path / "prompts.csv")] == [
        ("1", "What, then?"),
        ("2", "And now?"),
    ]
    with pytest.raises(LogFormatError, match="does not exist"):
        read_questions(tmp_path / "absent.csv")
    (tmp_path / "none.csv").write_text("prompt\n")
    with pytest.raises(LogFormatError, match="holds no questions"):
        read_questions(tmp_path / "none.csv")
