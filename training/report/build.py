"""What the report says, as values: one artifact's comparison, its forecasts on the test questions, what it knows.

The log is read as it stood when the artifact was trained, so that the page shows what its figures were taken from.
It knows nothing of charts and HTML.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data.tables import utc_now
from router.artifact import Artifact
from router.scorer import Forecast
from router.surface import describe
from training.baselines import model_mean
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import hide_test
from training.model_map import ModelMap, map_models
from training.probe import Probe, probe
from training.promises import Ece, Promise, calibration, promises
from training.report.accuracies import Accuracies, accuracies, intervals
from training.report.controls import Control
from training.report.measured import Measured, of_data
from training.report.reliability import Reliability, reliability
from training.routing import RoutingBench, area_under_curve
from training.source import Source, read_source
from training.vectors import question_vectors

Floats = NDArray[np.float64]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class SingleModels:
    """The priced pool's models without routing: mean cost of a request in USD, and accuracy, of length n_models.

    aiq: the mean quality over costs that sending shares of all requests to single models reaches, which a router that
    reads prompts has to beat (RouterBench's zero router, arXiv 2403.12031).
    """

    names: tuple[str, ...]
    cost_usd: Floats
    accuracy: Floats
    oracle: float
    n_questions: int
    aiq: float


@dataclass(frozen=True)
class Report:
    """Everything that the page shows; None, or nothing, where the log has nothing to show it from."""

    artifact_id: str
    is_champion: bool
    trained_at: datetime
    written_at: datetime
    encoder: str
    encoder_fingerprint: str
    seed: int
    comparison: dict[str, Any]
    gate: dict[str, Any] | None
    accuracies: Accuracies | None
    reliability: Reliability | None
    errors: tuple[Ece, ...]
    promises: tuple[Promise, ...]
    model_map: ModelMap | None
    single_models: SingleModels | None
    probe: Probe | None
    controls: tuple[Control, ...] = ()
    measured: tuple[Measured, ...] = ()


def build_report(
    engine: Engine,
    artifact_prefix: str | None = None,
    *,
    stability: bool = True,
    controls: tuple[Control, ...] = (),
    measured: tuple[Measured, ...] = (),
    on_progress: Progress = lambda _: None,
) -> Report:
    """Gather one artifact's report: the champion's, or that of the artifact whose id begins so.

    stability: whether to fit once more with another seed and compare, which takes most of the time; controls, measured:
    figures taken elsewhere, to be shown. TrainingError where `measured` is of other data than the artifact's.
    """
    on_progress("reading the artifact and its log")
    source = read_source(engine, artifact_prefix)
    artifact, data = source.artifact, source.data
    of_this_data = of_data(measured, artifact.manifest.data_fingerprint)
    vectors = question_vectors(engine, artifact.encoder, data)  # (n_questions, dim)
    test = data.part("test")
    p, tokens = _forecasts(artifact, data, vectors, test)
    columns = np.array([m for m, name in enumerate(data.model_names) if name in artifact.model_names], dtype=np.int64)
    known = tuple(data.model_names[m] for m in columns)
    label, forecast = data.label[np.ix_(test, columns)], p[np.ix_(test, columns)]
    has_outcomes = bool((~np.isnan(label)).any())
    on_progress("forecasting benchmarks")
    return Report(
        artifact_id=source.row.id,
        is_champion=source.is_champion,
        trained_at=source.row.created_at,
        written_at=utc_now(),
        encoder=artifact.manifest.encoder,
        encoder_fingerprint=artifact.manifest.encoder_fingerprint,
        seed=artifact.manifest.seed,
        comparison=source.row.metrics or artifact.manifest.metrics,
        gate=source.row.gate,
        accuracies=_accuracies(source, vectors, known, forecast) if has_outcomes else None,
        reliability=reliability(label, forecast, data.groups[test]) if has_outcomes else None,
        errors=tuple(calibration(label, forecast, data.benchmarks[test], known)) if has_outcomes else (),
        promises=_promises(data, p, tokens),
        model_map=_map(artifact, vectors[test], [data.prompts[row] for row in test]),
        single_models=_single_models(data, tokens),
        probe=_probe(engine, source, vectors, stability, on_progress),
        controls=controls,
        measured=of_this_data,
    )


def _forecasts(
    artifact: Artifact, data: Correctness, vectors: NDArray[np.float32], test: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """P(correct) and expected tokens of the test questions, each (n_questions, n_models) of the data, NaN elsewhere."""
    p, tokens = np.full(data.label.shape, np.nan), np.full(data.label.shape, np.nan)
    prompts = [data.prompts[row] for row in test]
    by_artifact = artifact.p_correct_of(vectors[test], prompts), artifact.output_tokens_of(vectors[test], prompts)
    for m, name in enumerate(data.model_names):
        if name in artifact.model_names:
            column = artifact.model_names.index(name)
            p[test, m], tokens[test, m] = by_artifact[0][:, column], by_artifact[1][:, column]
    return p, tokens


def _accuracies(source: Source, vectors: NDArray[np.float32], known: tuple[str, ...], forecast: Floats) -> Accuracies:
    artifact, data = source.artifact, source.data
    test = data.part("test")
    columns = np.array([data.model_names.index(name) for name in known])
    label = data.label[np.ix_(test, columns)]
    rates = model_mean(hide_test(data), np.zeros((0, 0), np.float32))[0][columns]
    served = artifact.scorer.forecast(vectors[test], describe([data.prompts[row] for row in test]))
    of_known = [artifact.model_names.index(name) for name in known]
    served = Forecast(served.p_correct[:, of_known], served.low[:, of_known], served.high[:, of_known], served.novelty)
    judged = accuracies(known, data.benchmarks[test], label, forecast, rates)
    return intervals(judged, known, data.benchmarks[test], served, ~np.isnan(label))


def _promises(data: Correctness, p: Floats, tokens: Floats) -> tuple[Promise, ...]:
    bench = RoutingBench.from_data(data, tokens=tokens)
    if not bench.countable or np.isnan(p[np.ix_(bench.rows, bench.columns)]).any():
        return ()
    return tuple(promises(bench, p, data.groups))


def _map(artifact: Artifact, vectors: NDArray[np.float32], prompts: Sequence[str]) -> ModelMap | None:
    if len(vectors) < 2 or len(artifact.model_names) < 2:
        return None
    forecast = artifact.p_correct_of(vectors, prompts).mean(axis=0)
    questions = artifact.scorer.embed(vectors, describe(prompts))
    return map_models(artifact.model_names, artifact.scorer.model_embedding, questions, forecast)


def _single_models(data: Correctness, tokens: Floats) -> SingleModels | None:
    bench = RoutingBench.from_data(data, tokens=tokens)
    if not bench.countable or not (priced := bench.priced()).countable:
        return None
    cost, accuracy = priced.cost.mean(axis=0), priced.label.mean(axis=0)
    return SingleModels(
        names=tuple(data.model_names[column] for column in priced.columns),
        cost_usd=cost,
        accuracy=accuracy,
        oracle=float(priced.label.max(axis=1).mean()),
        n_questions=len(priced.rows),
        aiq=area_under_curve(cost, accuracy, float(cost.min()), float(cost.max())),
    )


def _probe(
    engine: Engine, source: Source, vectors: NDArray[np.float32], stability: bool, on_progress: Progress
) -> Probe | None:
    try:
        return probe(engine, source, stability=stability, vectors=vectors, on_progress=on_progress)
    except TrainingError:
        return None  # the artifact does not hold its questions: the page says nothing of them
