"""Onboarding in a backtest: each model is held out, folded in from few answers, and forecast on test questions.

    python -m tests.benchmarks.bench_onboarding PATH [--quick] [--develop] [--json]

The rest of the pool is fitted without the model; its N answers are drawn from the train and val questions. Beside the
fold-in stand a full fit with the same N answers and a fold-in of two numbers, offset and slope on the pool's mean
logit. Only the text side's noise level and the two numbers of the calibration come from one fit with all models. The
control folds in with the questions' embeddings permuted, which leaves them nothing to say. Intervals are bootstrapped
over models, those of coverage over the test questions too, whose luck all models share. `--develop` puts the val
questions in the place of test, which is then not read; `--quick` tries less.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Vectors
from router.encoder.registry import fit_encoder
from router.scorer import Z90, Scorer
from router.surface import describe
from tests.benchmarks.onboarding_table import Measured, render, summarize
from training.alternation import FitSettings
from training.dataset import Correctness
from training.family import family_of
from training.fit import Fitted, fit_scorer, refit
from training.fold_in import (
    LOG_PRIOR_MODELS,
    UNSEEN_SHIFT,
    Accuracy,
    ModelPosterior,
    expect_accuracies,
    family_prior,
    pool_prior,
    questions_from_text,
)
from training.metrics import Cells, hit_by_cell, nll_by_cell
from training.outliers import fold_in_outlier
from training.posterior import Posterior, sigmoid
from training.suggest import d_optimal, information_points, stratified

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

N_PROCESSES = 2
N_RESAMPLED = 400  # sets of test questions, for the luck that all models share
OFFSET_SPREAD, SLOPE_SPREAD = 1.0, 0.2  # of the two-number fold-in's prior: the best of several on val questions


@dataclass(frozen=True)
class Plan:
    """How much is tried.

    n_answers: the N; n_sets: answer sets of each, n_compared: how many of them other methods are tried on too,
    n_logged: and for how many the accuracy on logged questions is judged, which takes longest;
    n_models: the most models held out; n_retrained: of how many of them everything is fitted with the answers.
    """

    n_answers: tuple[int, ...] = (20, 50, 100, 200)
    n_sets: int = 20
    n_compared: int = 5
    n_logged: int = 2
    n_models: int | None = None
    n_retrained: int | None = None
    fit: FitSettings = field(default_factory=FitSettings)


QUICK = Plan(n_answers=(20, 100), n_sets=5, n_models=4, n_retrained=0, fit=FitSettings(n_landmarks=300, n_rounds=6))


@dataclass(frozen=True)
class _Work:
    """What every process shares."""

    data: Correctness
    vectors: Vectors
    like: Fitted
    plan: Plan
    retrained: frozenset[int]
    seed: int


@dataclass(frozen=True)
class _Pool:
    """The pool without the model: what it says of the questions learned from and of the test questions.

    resampled: (N_RESAMPLED, N), the test questions' shares in sets of them that are drawn with replacement.
    """

    scorer: Scorer
    learned: Posterior
    test: Posterior
    prior: ModelPosterior
    plain_prior: ModelPosterior
    resampled: Floats


_work: _Work


def run(
    path: Path, quick: bool = False, *, develop: bool = False, plan: Plan | None = None, seed: int = 0
) -> dict[str, Any]:
    """Hold out each model of a long-format folder in turn; figures by N, with intervals over models."""
    plan = plan or (QUICK if quick else Plan())
    data = Correctness.from_log(read_folder(path))
    if develop:
        data = data.rows(np.flatnonzero(data.split != "test"))
        data = replace(data, split=np.where(data.split == "val", "test", data.split))
    data = data.rows(np.delete(np.arange(data.n_questions), data.near_test()))
    with threadpool_limits(1):
        vectors = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in data.part("train")]).encode(data.prompts)
        like = fit_scorer(data, vectors, seed, plan.fit)
    columns = _spread(np.arange(data.n_models), plan.n_models)
    retrained = frozenset(_spread(columns, plan.n_retrained).tolist())
    work = _Work(data, vectors, like, plan, retrained, seed)
    context = multiprocessing.get_context("fork")  # the data are shared, not copied
    with ProcessPoolExecutor(N_PROCESSES, context, initializer=_share, initargs=(work,)) as processes:
        by_model = list(processes.map(_try_model, columns.tolist()))
    return {
        "path": path.name,
        "held_out": "val" if develop else "test",
        "n_models": len(columns),
        "n_test_questions": len(data.part("test")),
        "n_sets": plan.n_sets,
        "by_n": {str(n): summarize([one[n] for one in by_model]) for n in plan.n_answers},
    }


def _spread(columns: Rows, n: int | None) -> Rows:
    """Some of the columns, evenly spread; all where n is None."""
    if n is None or n >= len(columns):
        return columns
    return columns[np.linspace(0, len(columns) - 1, n).astype(np.int64)]


def _share(work: _Work) -> None:
    global _work
    _work = work


def _try_model(column: int) -> dict[int, Measured]:
    """Everything measured of one held-out model, by number of answers, averaged over answer sets."""
    data, plan, seed = _work.data, _work.plan, _work.seed
    with threadpool_limits(1):
        others = np.delete(np.arange(data.n_models), column)
        without = data.columns(others)
        fitted = refit(without, _work.vectors, _work.like, seed, plan.fit)
        test = data.part("test")[~np.isnan(data.label[data.part("test"), column])]
        pool = _pool_of(fitted, test, column)
        truth = data.label[test, column]
        own = data.label[fitted.rows, column].astype(np.float64)
        answered = np.flatnonzero(~np.isnan(own))
        rng = np.random.default_rng([seed, column])
        shuffled = _permuted(pool, rng)
        points = information_points(pool.prior, _take(pool.learned, answered))
        strata = np.unique(data.benchmarks[fitted.rows[answered]], return_inverse=True)[1]
        found: dict[int, Measured] = {}
        for n in plan.n_answers:
            one = _Tally()
            for s in range(plan.n_sets):
                asked = rng.choice(answered, min(n, len(answered)), replace=False)
                model = one.fold("fold_in", pool, pool.prior, asked, own, truth)
                one.interval(model, pool, own[asked], truth)
                if s == 0 and column in _work.retrained:
                    one.score("fold_in_once", _calibrated(pool.scorer, model.p_correct(pool.test)), truth)
                    one.score("retrain", _retrain(column, fitted.rows[asked], test), truth)
                if s >= plan.n_compared:
                    continue
                one.fold("fold_in_compared", pool, pool.prior, asked, own, truth)
                if s < plan.n_logged:
                    one.logged_intervals(model, pool, answered, strata, own)
                one.fold("no_family", pool, pool.plain_prior, asked, own, truth)
                one.score("two_numbers", _two_numbers(pool, asked, own), truth)
                one.score("model_mean", np.full(len(test), (own[asked].sum() + 1) / (len(asked) + 2)), truth)
                one.fold("permuted", shuffled, pool.prior, asked, own, truth)
                one.score("permuted_two_numbers", _two_numbers(shuffled, asked, own), truth)
                drawn = answered[stratified(strata, n, seed=1000 * column + s)]
                one.fold("stratified", pool, pool.prior, drawn, own, truth)
            one.fold("d_optimal", pool, pool.prior, answered[d_optimal(points, pool.prior, n)], own, truth)
            found[n] = one.measured()
    return found


class _Tally:
    """Adds up measurements of one model at one number of answers."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.resampled: list[Floats] = []

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def score(self, name: str, p: Floats, truth: NDArray[np.float32]) -> None:
        cells = Cells.from_grid(truth[:, None], p[:, None])
        self.add(f"{name}.nll", float(nll_by_cell(cells).mean()))
        self.add(f"{name}.hits", float(hit_by_cell(cells).mean()))

    def fold(
        self, name: str, pool: _Pool, prior: ModelPosterior, asked: Rows, own: Floats, truth: NDArray[np.float32]
    ) -> ModelPosterior:
        questions = _take(pool.learned, asked)
        started = time.thread_time()
        model = fold_in_outlier(prior, questions, own[asked])
        self.add(f"{name}.ms", 1e3 * (time.thread_time() - started))
        p = _calibrated(pool.scorer, model.p_correct(pool.test))
        self.score(name, p, truth)
        self.add(f"{name}.error", abs(float(p.mean()) - float(truth.mean())))
        return model

    def interval(self, model: ModelPosterior, pool: _Pool, label: Floats, truth: NDArray[np.float32]) -> None:
        slope, offset = pool.scorer.slope, pool.scorer.offset
        everything = np.zeros(len(truth), dtype=np.int64)
        (accuracy,) = expect_accuracies(model, pool.test, everything, slope=slope, offset=offset, shift=UNSEEN_SHIFT)
        self.add("covered", float(_holds(accuracy, float(truth.mean()))))
        self.add("width", accuracy.high - accuracy.low)
        self.resampled.append(_covered_when_resampled(accuracy, model, pool, truth))
        share = (label.sum() + 0.5) / (len(label) + 1)  # Jeffreys' prior keeps all-right from being certain
        self.add("binomial_width", 2 * Z90 * float(np.sqrt(share * (1 - share) / len(label))))
        self.add("sample_mean.error", abs(float(label.mean()) - float(truth.mean())))

    def logged_intervals(
        self, model: ModelPosterior, pool: _Pool, answered: Rows, benchmark: NDArray[np.int64], own: Floats
    ) -> None:
        """Judge what the verb prints: shares of right answers to logged questions, whose outcomes the pool knows."""
        questions, label = _take(pool.learned, answered), own[answered]
        slope, offset = pool.scorer.slope, pool.scorer.offset
        for name, group in (("logged", np.zeros_like(benchmark)), ("by_benchmark", benchmark)):
            truth = np.bincount(group, weights=label) / np.bincount(group)
            expected = expect_accuracies(model, questions, group, slope=slope, offset=offset)
            held = [_holds(one, share) for one, share in zip(expected, truth.tolist(), strict=True)]
            self.add(f"{name}.covered", float(np.mean(held)))
            self.add(f"{name}.width", float(np.mean([one.high - one.low for one in expected])))

    def measured(self) -> Measured:
        median = {name: float(np.median(values)) for name, values in self.values.items() if name.endswith(".ms")}
        means = {name: float(np.mean(values)) for name, values in self.values.items()} | median
        return Measured(means, np.mean(self.resampled, axis=0))


def _holds(accuracy: Accuracy, share: float) -> bool:
    return accuracy.low <= share <= accuracy.high


def _covered_when_resampled(
    accuracy: Accuracy, model: ModelPosterior, pool: _Pool, truth: NDArray[np.float32]
) -> Floats:
    """Whether the interval holds for each set of test questions drawn anew, 0 or 1, of shape (N_RESAMPLED,).

    Drawing adds the luck of so many questions once more to what the interval holds, so it is widened by as much.
    """
    p = _calibrated(pool.scorer, model.p_correct(pool.test))
    luck = float((p * (1 - p)).mean()) / len(p)
    wider = np.sqrt((accuracy.error**2 + 2 * luck) / (accuracy.error**2 + luck))
    miss = pool.resampled @ (truth - p)  # (N_RESAMPLED,)
    low, high = wider * (accuracy.low - accuracy.expected), wider * (accuracy.high - accuracy.expected)
    held: Floats = ((low <= miss) & (miss <= high)).astype(np.float64)
    return held


def _resample(test: Rows) -> Floats:
    """Draw the test questions by near-duplicate group, alike for all models; shares of those of one model."""
    data = _work.data
    groups, group = np.unique(data.groups[data.part("test")], return_inverse=True)
    times = np.random.default_rng(_work.seed).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), N_RESAMPLED
    )
    counted = times[:, group][:, np.isin(data.part("test"), test)].astype(np.float64)
    shares: Floats = counted / counted.sum(axis=1, keepdims=True)
    return shares


def _pool_of(fitted: Fitted, test: Rows, column: int) -> _Pool:
    data, scorer = _work.data, fitted.scorer
    theta = np.hstack([scorer.model_embedding, scorer.model_bias[:, None]]).astype(np.float64)
    plain = pool_prior(theta[:, :-1], theta[:, -1], LOG_PRIOR_MODELS)
    others = np.delete(np.array(data.model_names), column).tolist()
    related = [family_of(name) == family_of(data.model_names[column]) for name in others]
    by_text = questions_from_text(scorer, _work.vectors[test], describe([data.prompts[row] for row in test]))
    prior = family_prior(plain, theta[related], len(theta))
    return _Pool(scorer, fitted.questions, by_text, prior, plain, _resample(test))


def _permuted(pool: _Pool, rng: np.random.Generator) -> _Pool:
    """The pool with every question's embedding given to another."""
    learned = _take(pool.learned, rng.permutation(len(pool.learned.mean)))
    return replace(pool, learned=learned, test=_take(pool.test, rng.permutation(len(pool.test.mean))))


def _take(questions: Posterior, rows: Rows) -> Posterior:
    return Posterior(questions.mean[rows], questions.covariance[rows])


def _calibrated(scorer: Scorer, p: Floats) -> Floats:
    return sigmoid(scorer.slope * np.log(p / (1 - p)) + scorer.offset)


def _retrain(column: int, answered: Rows, test: Rows) -> Floats:
    """Fit everything with the model's answers among the outcomes; its P(correct) on test questions."""
    data = _work.data
    label = data.label.copy()
    label[:, column] = np.nan
    label[answered, column] = data.label[answered, column]
    scorer = refit(replace(data, label=label), _work.vectors, _work.like, _work.seed, _work.plan.fit).scorer
    p = scorer.p_correct(_work.vectors[test], describe([data.prompts[row] for row in test]))
    return p[:, column]


def _two_numbers(pool: _Pool, asked: Rows, own: Floats) -> Floats:
    """Fold in offset and slope on the pool's mean logit, MAP and Laplace like the model's; P(correct) on test."""
    questions = _take(pool.learned, asked)
    x = np.column_stack([np.ones(len(asked)), _mean_logit(pool.scorer, questions)])
    precision = np.diag([OFFSET_SPREAD**-2.0, SLOPE_SPREAD**-2.0])
    start = np.array([0.0, 1.0])
    theta = start.copy()
    for _ in range(30):
        p = sigmoid(x @ theta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + precision
        step = np.linalg.solve(hessian, x.T @ (own[asked] - p) - precision @ (theta - start))
        theta = theta + step * min(1.0, 1 / max(float(np.abs(step).max()), 1e-9))
    z = np.column_stack([np.ones(len(pool.test.mean)), _mean_logit(pool.scorer, pool.test)])
    variance = np.einsum("nk,kl,nl->n", z, np.linalg.inv(hessian), z)
    return sigmoid(z @ theta / np.sqrt(1 + np.pi / 8 * variance))


def _mean_logit(scorer: Scorer, questions: Posterior) -> Floats:
    """The pool's mean logit on each question, the question's error integrated out."""
    u = scorer.model_embedding.astype(np.float64)
    outer = (u[:, :, None] * u[:, None, :]).reshape(len(u), -1)
    variance = questions.covariance.reshape(len(questions.mean), -1) @ outer.T
    logits: Floats = (questions.mean @ u.T + scorer.model_bias) / np.sqrt(1 + np.pi / 8 * variance)
    mean: Floats = logits.mean(axis=1)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--quick", action="store_true", help="few models, few answer sets, no full fits")
    parser.add_argument("--develop", action="store_true", help="hold out the val questions; test is not read")
    parser.add_argument("--retrained", type=int, help="fit with the answers for so many models only; they take long")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    if arguments.retrained is not None:
        plan = replace(plan, n_retrained=arguments.retrained)
    figures = run(arguments.path, develop=arguments.develop, plan=plan)
    print(json.dumps(figures | {"plan": asdict(plan)}) if arguments.json else render(figures))


if __name__ == "__main__":
    main()
