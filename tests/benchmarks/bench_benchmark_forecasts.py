"""How well accuracies on whole benchmarks are forecast, with what is forecast held out, on a long-format folder.

    python -m tests.benchmarks.bench_benchmark_forecasts PATH [--quick] [--json FILE]

(a) known benchmark, new model: each model in turn is unknown but for its name, the other models' answers to the same
    questions known. Once for each benchmark, and once with the whole log taken for one benchmark.
(b) new benchmark, known models: each benchmark in turn is left out of the encoder's LSA half, of the fit and of what
    measures how far forecasts go astray; each model has labels of N items of its own ("pooled": and forecasts share
    them).
(c) both new: each benchmark and each fifth of the models are left out together.

The encoder's bundled half is not fitted anew. It has read, without outcomes, the texts of both public logs' train
questions, those of the benchmark that is left out among them; of other logs it has read nothing.

Truth is the mean label over all the benchmark's items that the model answered. Refits use a noise level fixed
beforehand, no forest and no calibration, so nothing that was chosen saw what is held out. Intervals of the figures are
by bootstrap over models in (a), over benchmarks in (b) and (c).
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Encoder, Vectors
from router.encoder.registry import fit_encoder
from router.surface import describe
from tests.benchmarks.forecast_figures import NAN, WHOLE, Cell, figures, render
from training.alternation import FitSettings
from training.dataset import Correctness
from training.fit import Fitted, fit_scorer, refit
from training.fold_in import LOG_PRIOR_MODELS, ModelPosterior, pool_prior
from training.forecast import Forecast, forecast_accuracy, forecast_or_count
from training.irt import fit_items, forecast_irt
from training.known_benchmark import OUTLIER, ability_elsewhere, facts_of, fit_benchmark, suggest_items
from training.posterior import Posterior
from training.transfer import measure_transfer, models_of, new_items, shared_error, shift_of

Floats = NDArray[np.float64]
Labels = NDArray[np.float32]

LABELLED = (0, 20, 50, 100)
DRAWS = 2  # sets of labelled items for each N
N_FOLDS = 5
MIN_ITEMS = 100  # that a model answered of a benchmark, to have a truth
NOISE = 2.0
SETTINGS = FitSettings(n_landmarks=400, n_rounds=8)


@dataclass(frozen=True)
class Unit:
    """What is held out together; fold is -1 where no models are. With the regime WHOLE the benchmark is the log."""

    regime: str
    benchmark: str
    fold: int = -1


@dataclass(frozen=True)
class Bench:
    """The data, read once and inherited by the processes."""

    data: Correctness
    folds: NDArray[np.int64]
    like: Fitted
    every: int  # of the models in (a)

    def items(self, benchmark: str, model: int) -> NDArray[np.int64]:
        """The rows of a benchmark, or of the whole log, that a model answered."""
        here = (self.data.benchmarks == benchmark) | (benchmark == WHOLE)
        return np.flatnonzero(here & self.data.observed[:, model])

    def cell(
        self,
        unit: Unit,
        model: int,
        method: str,
        n: int,
        draw: int,
        forecast: float,
        low: float = NAN,
        high: float = NAN,
    ) -> Cell:
        """Set a forecast beside its truth."""
        truth = float(self.data.label[self.items(unit.benchmark, model), model].mean())
        name = self.data.model_names[model]
        return Cell(unit.regime, method, n, draw, name, unit.benchmark, truth, forecast, low, high)

    def elsewhere(self, benchmark: str, model: int) -> float:
        """The mean of a model's means on the other benchmarks that it ran; NaN where it ran none."""
        others = [self.items(str(name), model) for name in np.unique(self.data.benchmarks) if name != benchmark]
        means = [float(self.data.label[rows, model].mean()) for rows in others if len(rows)]
        return float(np.mean(means)) if means else float("nan")


_BENCH: list[Bench] = []  # inherited by the forked processes, which are handed units alone


def hide(label: Labels, rows: NDArray[np.int64]) -> Labels:
    """The labels of some rows alone, NaN elsewhere."""
    seen = np.full(len(label), np.nan, dtype=np.float32)
    seen[rows] = label[rows]
    return seen


def known_benchmark(bench: Bench, unit: Unit) -> Iterator[Cell]:
    """Regime (a): every model in turn, from N random items of the benchmark, and of every benchmark."""
    data, is_whole = bench.data, unit.regime == WHOLE
    names = sorted(set(data.benchmarks.tolist()))
    place = len(names) if is_whole else names.index(unit.benchmark)
    outside = np.flatnonzero(data.benchmarks != unit.benchmark)
    ability = (
        np.full(data.n_models, np.nan) if is_whole else ability_elsewhere(data.label[outside], data.benchmarks[outside])
    )
    facts = facts_of(data.model_names, ability)
    for model in range(place % bench.every, data.n_models, bench.every):
        rows = bench.items(unit.benchmark, model)
        if len(rows) < (data.n_questions / 2 if is_whole else MIN_ITEMS):
            continue
        others = np.delete(data.label[rows], model, axis=1)
        label = data.label[rows, model]
        fitted = fit_benchmark(others)
        if fitted is None:
            continue
        irt = fit_items(others[:, fitted.columns])
        of_others, own = np.delete(facts, model, axis=0)[fitted.columns], facts[model].copy()
        own[-1] = np.nan  # its ability elsewhere
        prior = fitted.prior_given(of_others, own)
        most = suggest_items(prior, fitted.items, max(LABELLED))  # greedy: the first N are those of N
        for n in LABELLED:
            if n:
                asked = forecast_accuracy(prior, fitted.items, hide(label, most[:n]), OUTLIER)
                yield bench.cell(unit, model, "suggested", n, 0, *_figures(asked))
            for draw in range(DRAWS if n else 1):
                rng = np.random.default_rng([place, model, n, draw])
                seen = hide(label, rng.choice(len(rows), n, replace=False))
                alone = forecast_accuracy(prior, fitted.items, seen, OUTLIER)
                by_irt = forecast_irt(irt, seen)
                yield bench.cell(unit, model, "embedrouter", n, draw, *_figures(alone))
                if n:
                    yield bench.cell(unit, model, "sample mean", n, draw, float(alone.sample_mean or 0))
                if n and not is_whole:
                    own[-1] = ability_from(bench, unit.benchmark, model, n, rng)
                    told = forecast_accuracy(fitted.prior_given(of_others, own), fitted.items, seen, OUTLIER)
                    yield bench.cell(unit, model, "suite", n, draw, *_figures(told))
                yield bench.cell(unit, model, "2PL IRT", n, draw, by_irt.mean, by_irt.low, by_irt.high)
        if not is_whole:
            yield bench.cell(unit, model, "elsewhere", 0, 0, bench.elsewhere(unit.benchmark, model))


def ability_from(bench: Bench, benchmark: str, model: int, n: int, rng: np.random.Generator) -> float:
    """A model's ability elsewhere from n labelled items of each other benchmark; other models have all their labels."""
    data = bench.data
    label = np.where(data.benchmarks[:, None] == benchmark, np.float32(np.nan), data.label)
    seen = [bench.items(str(name), model) for name in np.unique(data.benchmarks) if name != benchmark]
    kept = np.concatenate([rng.choice(rows, min(n, len(rows)), replace=False) for rows in seen])
    label[:, model] = hide(label[:, model], kept)
    outside = data.benchmarks != benchmark
    return float(ability_elsewhere(label[outside], data.benchmarks[outside])[model])


@dataclass(frozen=True)
class LeftOut:
    """What is there without a benchmark: its questions, an encoder with its LSA half fitted to them, vectors."""

    rest: Correctness
    encoder: Encoder
    vectors: Vectors
    surface: Labels


@lru_cache(maxsize=1)
def leave_out(benchmark: str) -> LeftOut:
    """Fit the encoder's LSA half anew without a benchmark, once for all that is fitted without it."""
    data = _BENCH[0].data
    rest = data.rows(np.flatnonzero(data.benchmarks != benchmark))
    encoder = fit_encoder(DEFAULT_ENCODER, [rest.prompts[row] for row in rest.part("train")])
    return LeftOut(rest, encoder, encoder.encode(rest.prompts), describe(rest.prompts))


def new_benchmark(bench: Bench, unit: Unit) -> Iterator[Cell]:
    """Regimes (b) and (c): what is left is fitted anew; then each model labels N items, alone or all together."""
    data, left = bench.data, leave_out(unit.benchmark)
    held_out = data.benchmarks == unit.benchmark
    pool = np.flatnonzero(bench.folds != unit.fold)
    rest, vectors, surface = left.rest.columns(pool), left.vectors, left.surface
    fitted = refit(rest, vectors, bench.like, settings=SETTINGS)
    scorer, rows = fitted.scorer, fitted.rows
    models, items = models_of(scorer), np.flatnonzero(held_out)
    transfer = measure_transfer(
        models,
        scorer.residual.astype(np.float64),
        fitted.questions,
        scorer.features(vectors[rows], surface[rows]),
        surface.shape[1],
        rest.label[rows],
        rest.benchmarks[rows],
    )
    prompts = [data.prompts[row] for row in items]
    text = scorer.embed(left.encoder.encode(prompts), describe(prompts)).astype(np.float64)
    nothing = np.full((len(items), len(pool)), np.nan, dtype=np.float32)
    unlabelled = shared_error(transfer, models, text, nothing)
    blank = new_items(transfer, models, text, nothing, unlabelled)
    population = pool_prior(models.embedding, models.bias, LOG_PRIOR_MODELS)
    for model in range(data.n_models) if unit.fold < 0 else np.flatnonzero(bench.folds == unit.fold).tolist():
        answered = np.flatnonzero(~np.isnan(data.label[items, model]))
        if len(answered) < MIN_ITEMS:
            continue
        label = data.label[items, model]
        of_answered = Posterior(blank.mean[answered], blank.covariance[answered])
        at = np.flatnonzero(pool == model)
        theta = population
        if len(at):
            theta = ModelPosterior(models.theta()[at[0]], scorer.model_covariance[at[0]].astype(np.float64))
        for n in LABELLED:
            for draw in range(DRAWS if n else 1):
                chosen = drawn_items(bench, unit, model, n, draw)
                seen = hide(label, chosen)
                shift = shift_of(transfer, unlabelled, theta.embedding)
                alone = forecast_or_count(theta, of_answered, seen[answered], shift)
                yield bench.cell(unit, model, "embedrouter", n, draw, *_figures(alone))
                if not n:
                    continue
                sample = float(label[chosen].mean())
                yield bench.cell(unit, model, "sample mean", n, draw, sample)
                told = nothing.copy()
                for column, other in enumerate(pool.tolist()):
                    if other != model:
                        rows_of_other = drawn_items(bench, unit, other, n, draw)
                        told[rows_of_other, column] = data.label[items[rows_of_other], other]
                shared = shared_error(transfer, models, text, told)
                known = new_items(transfer, models, text, told, shared)
                pooled = forecast_or_count(
                    theta,
                    Posterior(known.mean[answered], known.covariance[answered]),
                    seen[answered],
                    shift_of(transfer, shared, theta.embedding),
                )
                yield bench.cell(unit, model, "pooled", n, draw, *_figures(pooled))
        yield bench.cell(unit, model, "elsewhere", 0, 0, bench.elsewhere(unit.benchmark, model))


def drawn_items(bench: Bench, unit: Unit, model: int, n: int, draw: int) -> NDArray[np.int64]:
    """The n items of a benchmark, counted within it, that a model has labels of."""
    label = bench.data.label[bench.data.benchmarks == unit.benchmark, model]
    place = sorted(set(bench.data.benchmarks.tolist())).index(unit.benchmark)
    answered = np.flatnonzero(~np.isnan(label))
    rng = np.random.default_rng([place, model, n, draw])
    return rng.choice(answered, min(n, len(answered)), replace=False)


def _figures(forecast: Forecast) -> list[float]:
    return [forecast.accuracy, forecast.low, forecast.high]


def _be_nice() -> None:
    os.nice(max(10 - os.nice(0), 0))


def _work(units: tuple[Unit, ...]) -> list[Cell]:
    with threadpool_limits(1):
        return [
            cell
            for unit in units
            for cell in (new_benchmark if unit.regime in "bc" else known_benchmark)(_BENCH[0], unit)
        ]


def run(path: Path, quick: bool = False, n_processes: int = 2) -> dict[str, Any]:
    """Backtest all regimes; quick takes every sixth model in (a), every third benchmark in (b), one fold in (c).

    Returns {"dataset", "n_benchmarks", "n_models", "figures": one a regime, method and N, "cells": columns by name}.
    """
    data = Correctness.from_log(read_folder(path))
    folds = np.random.default_rng(0).permutation(data.n_models) % N_FOLDS
    benchmarks = sorted(set(data.benchmarks.tolist()))
    taken = benchmarks[::3] if quick else benchmarks
    folds_taken = range(1 if quick else N_FOLDS)
    units: list[tuple[Unit, ...]] = [(Unit(WHOLE, WHOLE),), *((Unit("a", name),) for name in benchmarks)]
    units += [(Unit("b", name), *(Unit("c", name, fold) for fold in folds_taken)) for name in taken]
    _BENCH[:] = [Bench(data, folds, _like(data), 6 if quick else 1)]
    cells: list[Cell] = []
    with ProcessPoolExecutor(n_processes, get_context("fork"), initializer=_be_nice) as pool:
        for done, found in enumerate(pool.map(_work, units), start=1):
            cells += found
            print(f"{done} of {len(units)}: {units[done - 1]}", flush=True)
    return {
        "dataset": path.name,
        "n_benchmarks": len(benchmarks),
        "n_models": data.n_models,
        "figures": figures(cells),
        "cells": {name: [asdict(cell)[name] for cell in cells] for name in Cell.__dataclass_fields__},
    }


def _like(data: Correctness) -> Fitted:
    """What `refit` takes over: one noise level, no forest, no calibration. The fit itself is not used."""
    few = data.rows(data.part("train")[:300])
    single = FitSettings(noises=(NOISE,), forest_shares=(0.0,), n_landmarks=50, n_rounds=2, n_folds=2)
    fitted = fit_scorer(few, np.zeros((few.n_questions, 1), dtype=np.float32), settings=single)
    return replace(fitted, scorer=replace(fitted.scorer, slope=1.0, offset=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a part of the models, benchmarks and folds")
    parser.add_argument("--json", type=Path, help="write everything here, forecasts one by one too")
    arguments = parser.parse_args()
    result = run(arguments.path, arguments.quick, arguments.processes)
    if arguments.json:
        arguments.json.write_text(json.dumps(result), encoding="utf-8")
    print("\n" + render(result))


if __name__ == "__main__":
    main()
