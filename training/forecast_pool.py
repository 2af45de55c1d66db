"""Forecast models' accuracies on a benchmark from the champion and the logs: which of three regimes, and with what.

A benchmark that enough models have run is known: their answers to its very questions tell most. Of any other only the
questions' text is known, and what labelled items there are. Models that the champion does not know are drawn from the
pool's population, which their answers elsewhere and their labelled items narrow.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import queries
from data.errors import EmbedRouterError
from router.artifact import Artifact, read_artifact
from router.encoder.base import Vectors
from router.scorer import Singles
from router.surface import describe
from training.dataset import Correctness
from training.derived import column_of, population_of, require_champion
from training.errors import TrainingError
from training.fold_in import ModelPosterior, fold_in, questions_from_outcomes
from training.forecast import Forecast, forecast_accuracy, forecast_or_count
from training.forecast_files import Label, NewQuestion, read_labels, read_questions
from training.gate import champion_folder
from training.known_benchmark import OUTLIER, ability_elsewhere, facts_of, fit_benchmark
from training.posterior import Posterior
from training.repeats import weigh
from training.transfer import Transfer, measure_transfer, models_of, new_items, shared_error, shift_of
from training.vectors import question_vectors

Progress = Callable[[str], None]

OBSERVED = "observed"
KNOWN_BENCHMARK = "known benchmark"
NEW_BENCHMARK = "new benchmark"
N_NAMED = 5


@dataclass(frozen=True)
class ModelForecast:
    """One model's forecast, and what it stands on.

    regime: "observed" where every item is labelled, else "known benchmark" or "new benchmark" and "known model" or
    "new model".
    """

    model: str
    regime: str
    forecast: Forecast


@dataclass(frozen=True)
class BenchmarkForecast:
    """A benchmark's forecasts, the best model first.

    n_labels_elsewhere: labels of other benchmarks, which the file held too; n_benchmarks: from how many known ones it
    was learned how models do on a new one, None where nothing needed that.
    """

    benchmark: str
    n_items: int
    artifact: str
    rows: tuple[ModelForecast, ...]
    n_labels_elsewhere: int
    n_benchmarks: int | None


def forecast_benchmark(
    engine: Engine,
    artifacts_root: Path,
    benchmark: str,
    *,
    model: str | None = None,
    is_new: bool = False,
    questions: Path | None = None,
    answers: Path | None = None,
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> BenchmarkForecast:
    """Forecast models on a benchmark of the logs, or on a file of new questions.

    model: a name or an alias, default every model of the logs that is not retired; is_new says that no log knows it.
    answers: labelled items, the model's or, with a column model_name, several models'; where a column benchmark names
    others, theirs are left out.
    EmbedRouterError where names, files or items do not match.
    """
    known = queries.pool_models(engine)
    name_of = {alias: row.name for row in known for alias in (row.name, *row.aliases)}
    model = name_of.get(model, model) if model else None
    asked = read_questions(questions) if questions else None
    labels = read_labels(answers) if answers else []
    given = [
        label if label.model is None else replace(label, model=name_of.get(label.model, label.model))
        for label in labels
        if label.benchmark in (None, benchmark)
    ]
    if labels and not given:
        theirs = sorted({label.benchmark for label in labels if label.benchmark})
        raise EmbedRouterError(
            f"{answers} labels no item of {benchmark!r}: its column benchmark says {_listed(theirs)}"
        )
    on_progress("reading the champion and the logs")
    artifact = read_artifact(champion_folder(require_champion(engine), artifacts_root))
    log = queries.read_log(engine)
    if log.cells.empty:
        raise TrainingError("the database holds no outcomes; `embedrouter import long PATH` brings some")
    data = Correctness.from_log(log)
    id_of = dict(zip(log.questions["key"].tolist(), log.questions["question_id"].astype(str).tolist(), strict=True))
    here = data.benchmarks == benchmark
    named = sorted({label.model for label in given if label.model} | ({model} if model else set()))
    _check_names(data, benchmark, here, asked, model, is_new, given)
    names = [*data.model_names, *(name for name in named if name not in data.model_names)]
    ids = [one.question_id for one in asked] if asked else [id_of[int(key)] for key in data.keys[here]]
    label = _grid(ids, names, None if asked else data.label[here], given, model, answers)
    pool = _Pool(engine, artifact, data, here & (asked is None), asked, seed, on_progress)
    retired = {row.name for row in known if row.retired}
    wanted = [names.index(model)] if model else [at for at, name in enumerate(names) if name not in retired]
    rows = [pool.forecast(names, column, label) for column in wanted]
    rows.sort(key=lambda row: -row.forecast.accuracy)
    is_new_benchmark = any(row.regime.startswith(NEW_BENCHMARK) for row in rows)
    n_benchmarks = pool.n_benchmarks if is_new_benchmark else None
    return BenchmarkForecast(benchmark, len(ids), artifact.id, tuple(rows), len(labels) - len(given), n_benchmarks)


class _Pool:
    """What the champion and the logs know; the expensive parts are made when first asked for."""

    def __init__(
        self,
        engine: Engine,
        artifact: Artifact,
        data: Correctness,
        here: NDArray[np.bool_],
        asked: list[NewQuestion] | None,
        seed: int,
        on_progress: Progress,
    ) -> None:
        self.engine, self.artifact, self.data, self.here, self.asked = engine, artifact, data, here, asked
        self.seed, self.on_progress = seed, on_progress

    def forecast(self, names: Sequence[str], column: int, label: NDArray[np.float32]) -> ModelForecast:
        """Forecast one column of the labels (N, M) on the items."""
        self.on_progress(f"forecasting {names[column]}")
        own, others = label[:, column], np.delete(label, column, axis=1)
        elsewhere = self.data.model_names.index(names[column]) if names[column] in self.data.model_names else None
        known = "known model" if elsewhere is not None and self._answered_elsewhere(elsewhere) else "new model"
        if not np.isnan(own).any():
            return ModelForecast(names[column], OBSERVED, self._judge(self._population(names[column]), own))
        fitted = fit_benchmark(others, self.seed)
        if fitted is not None:
            ability = np.append(self._ability, np.full(len(names) - self.data.n_models, np.nan))
            facts = facts_of(names, ability)
            prior = fitted.prior_given(np.delete(facts, column, axis=0)[fitted.columns], facts[column])
            forecast = forecast_accuracy(prior, fitted.items, own, OUTLIER, self.seed)
            return ModelForecast(names[column], f"{KNOWN_BENCHMARK}, {known}", forecast)
        theta = self._theta(names[column], elsewhere)
        models = models_of(self.artifact.scorer)
        told = self._by_champion(label, names)
        if names[column] in self.artifact.model_names:
            told[:, self.artifact.model_names.index(names[column])] = np.nan
        shared = shared_error(self._transfer, models, self._text, told)
        items = new_items(self._transfer, models, self._text, told, shared)
        shift = shift_of(self._transfer, shared, theta.embedding)
        forecast = forecast_or_count(theta, items, own, shift, self.seed)
        return ModelForecast(names[column], f"{NEW_BENCHMARK}, {known}", forecast)

    @property
    def n_benchmarks(self) -> int:
        """From how many benchmarks it was learned how models do on a new one."""
        return self._transfer.n_benchmarks

    def _by_champion(self, label: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """Labels (N, len(names)) by the champion's models, (N, M); NaN for one that is not among the names."""
        column = {name: at for at, name in enumerate(names)}
        unobserved = np.full((len(label), 1), np.nan, dtype=np.float32)
        laid_out: NDArray[np.float32] = np.hstack([label, unobserved])[
            :, [column.get(name, len(names)) for name in self.artifact.model_names]
        ]
        return laid_out

    def _judge(self, theta: ModelPosterior, own: NDArray[np.float32]) -> Forecast:
        n, dim = len(own), len(theta.embedding)
        return forecast_accuracy(theta, Posterior(np.zeros((n, dim)), np.zeros((n, dim, dim))), own, OUTLIER)

    def _answered_elsewhere(self, column: int) -> bool:
        return bool(self.data.observed[~self.here, column].any())

    def _population(self, name: str) -> ModelPosterior:
        return population_of(self.artifact, name)

    def _theta(self, name: str, column: int | None) -> ModelPosterior:
        """What is known of a model from other benchmarks: its answers there count once, and others tell of the rest."""
        answers = None if column is None else np.where(self.here, np.nan, self.data.label[:, column])
        if name in self.artifact.model_names and not self.here.any():
            return column_of(self.artifact.scorer, self.artifact.model_names.index(name))
        prior = self._population(name)
        if answers is None or np.isnan(answers).all():
            return prior
        rows = np.flatnonzero(~np.isnan(answers))
        weight = None if self._weight is None else self._weight[rows, column]
        return fold_in(prior, self._questions_without(name, rows), answers[rows].astype(np.float64), weight)

    def _questions_without(self, name: str, rows: NDArray[np.int64]) -> Posterior:
        """What text and the champion's models but one say of some logged questions, row numbers of shape (n,)."""
        known = self._questions.rows(rows)
        if name not in self.artifact.model_names:
            return known
        label = self._by_champion(self.data.label[rows], self.data.model_names)
        label[:, self.artifact.model_names.index(name)] = np.nan
        return questions_from_outcomes(self.artifact.scorer, self._embedding[rows], label, known.mean)

    @cached_property
    def _ability(self) -> NDArray[np.float64]:
        return ability_elsewhere(self.data.label[~self.here], self.data.benchmarks[~self.here])

    @cached_property
    def _vectors(self) -> Vectors:
        self.on_progress(f"encoding {self.data.n_questions:,} logged questions")
        return question_vectors(self.engine, self.artifact.encoder, self.data)

    @cached_property
    def _surface(self) -> Singles:
        return describe(self.data.prompts)

    @cached_property
    def _questions(self) -> Posterior:
        """What text and the champion's models' outcomes say of every logged question."""
        label = self._by_champion(self.data.label, self.data.model_names)
        return questions_from_outcomes(self.artifact.scorer, self._embedding, label)

    @cached_property
    def _embedding(self) -> Singles:
        """The text's forecast of every logged question's embedding, (n_questions, K)."""
        return self.artifact.scorer.embed(self._vectors, self._surface)

    @cached_property
    def _weight(self) -> Singles | None:
        """How many outcomes each logged label is worth, (n_questions, n_models); none: one each."""
        counts = self.data.n_observations
        return None if counts is None else weigh(self.data.label, counts)

    @cached_property
    def _text(self) -> NDArray[np.float64]:
        """The text's forecast of the items' embeddings, (N, K)."""
        scorer = self.artifact.scorer
        if self.asked is None:
            return scorer.embed(self._vectors[self.here], self._surface[self.here]).astype(np.float64)
        prompts = [one.prompt for one in self.asked]
        return scorer.embed(self.artifact.encoder.encode(prompts), describe(prompts)).astype(np.float64)

    @cached_property
    def _transfer(self) -> Transfer:
        """How far forecasts went astray on the other benchmarks."""
        self.on_progress("leaving out each known benchmark")
        scorer, rows = self.artifact.scorer, np.flatnonzero(~self.here)
        label = self._by_champion(self.data.label, self.data.model_names)[rows]
        questions = self._questions.rows(rows)
        return measure_transfer(
            models_of(scorer),
            scorer.residual.astype(np.float64),
            questions,
            scorer.features(self._vectors[rows], self._surface[rows]),
            self._surface.shape[1],
            label,
            self.data.benchmarks[rows],
            self.seed,
        )


def _grid(
    ids: Sequence[str],
    names: Sequence[str],
    logged: NDArray[np.float32] | None,
    given: Sequence[Label],
    model: str | None,
    path: Path | None,
) -> NDArray[np.float32]:
    """Lay out the items' labels, (n_items, n_models); a file's stand over the log's."""
    grid = np.full((len(ids), len(names)), np.nan, dtype=np.float32)
    if logged is not None:
        grid[:, : logged.shape[1]] = logged
    row = {question_id: at for at, question_id in enumerate(ids)}
    unknown = [label.question_id for label in given if label.question_id not in row]
    if unknown:
        raise EmbedRouterError(
            f"{path} labels {len(unknown)} items that are not of this benchmark, the first is {unknown[0]!r}; "
            f"its items are {', '.join(map(repr, ids[:3]))}, ..."
        )
    for label in given:
        name = label.model or model
        if name is None:
            raise EmbedRouterError(f"{path} does not say whose labels they are: add a column model_name, or --model")
        grid[row[label.question_id], names.index(name)] = label.label
    return grid


def _check_names(
    data: Correctness,
    benchmark: str,
    here: NDArray[np.bool_],
    asked: list[NewQuestion] | None,
    model: str | None,
    is_new: bool,
    given: Sequence[Label],
) -> None:
    if asked is None and not here.any():
        raise EmbedRouterError(
            f"the logs hold no benchmark {benchmark!r}: {near_names(benchmark, data.benchmarks.tolist())}; "
            "for a new one, name its prompts with --questions FILE"
        )
    if asked is not None and here.any():
        raise EmbedRouterError(f"the logs hold a benchmark {benchmark!r} already: leave out --questions, or rename it")
    if is_new and model is None:
        raise EmbedRouterError("--new says that one model is in no log: name it with --model")
    if is_new and model in data.model_names:
        raise EmbedRouterError(f"the logs know the model {model!r}: leave out --new, or give a new model its own name")
    if model is None or model in data.model_names:
        return
    if not is_new and not any(label.model in (None, model) for label in given):
        raise EmbedRouterError(
            f"no log knows the model {model!r}: {near_names(model, data.model_names)}; "
            "a new model needs --answers FILE, or --new for a forecast without any"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:N_NAMED]) + (", ..." if len(names) > N_NAMED else "")


def near_names(name: str, known: Sequence[str]) -> str:
    distinct = sorted(set(known))
    near = difflib.get_close_matches(name, distinct, n=3, cutoff=0.4) or distinct[:5]
    return f"perhaps {', '.join(near)}"
