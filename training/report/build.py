"""What the report says, as values: one artifact's comparison, and its forecasts on the test questions.

The log is read as it stood when the artifact was trained, so that the page shows what its figures were taken from.
It knows nothing of charts and HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import queries
from data.queries import ArtifactRow
from data.tables import utc_now
from router.artifact import Artifact, read_artifact
from router.surface import describe
from training.baselines import model_mean
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import hide_test
from training.held_out import mean_and_error
from training.routing import RoutingBench
from training.vectors import question_vectors

Floats = NDArray[np.float64]

MIN_OUTCOMES = 10  # a model's accuracy on a benchmark counts in a mean error from this many on
N_BINS = 12


@dataclass(frozen=True)
class Accuracies:
    """Forecast and actual accuracy of each model on each benchmark, all of length n_pairs.

    by_model_mean: what forecasting each model's own mean would have said.
    """

    model: tuple[str, ...]
    benchmark: tuple[str, ...]
    forecast: Floats
    by_model_mean: Floats
    actual: Floats
    n: NDArray[np.int64]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """The pairs with enough outcomes to be judged by; all where none has."""
        enough = self.n >= MIN_OUTCOMES
        return enough if enough.any() else np.ones_like(enough)

    def mean_error(self, forecast: Floats) -> float:
        """Mean absolute error over the counted pairs."""
        return float(np.abs(forecast - self.actual)[self.counted].mean())

    @property
    def chance_error(self) -> float:
        """The mean absolute error that a perfect forecast would have, since n outcomes only sample an accuracy."""
        spread = np.sqrt(self.forecast * (1 - self.forecast) / self.n)  # of a binomial share
        return float((np.sqrt(2 / np.pi) * spread)[self.counted].mean())


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass: mean forecast, share of right answers, its standard error, outcomes; of length n_bins."""

    forecast: Floats
    actual: Floats
    error: Floats
    n: NDArray[np.int64]


@dataclass(frozen=True)
class ModelMap:
    """The models in two dimensions, of shape (n_models, 2), and how much of their differences these hold."""

    names: tuple[str, ...]
    position: Floats
    shares: tuple[float, float]
    forecast: Floats  # mean P(correct) over the test questions, of shape (n_models,)


@dataclass(frozen=True)
class SingleModels:
    """The priced pool's models without routing: mean cost of a request in USD, and accuracy, of length n_models."""

    names: tuple[str, ...]
    cost_usd: Floats
    accuracy: Floats
    oracle: float
    n_questions: int


@dataclass(frozen=True)
class Report:
    """Everything that the page shows; None where the log has nothing to show it from."""

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
    model_map: ModelMap | None
    single_models: SingleModels | None


def build_report(engine: Engine, artifact_prefix: str | None = None) -> Report:
    """Gather one artifact's report: the champion's, or that of the artifact whose id begins so."""
    champion = queries.champion(engine)
    row = _choose(queries.artifacts(engine), artifact_prefix, None if champion is None else champion.artifact_id)
    artifact = read_artifact(Path(row.path))
    data = Correctness.from_log(queries.read_log(engine, up_to_outcome=row.outcome_watermark))
    test = data.rows(data.part("test"))
    known = [name for name in test.model_names if name in set(artifact.model_names)]
    has_outcomes = bool(known) and bool(test.observed.any())
    vectors = question_vectors(engine, artifact.encoder, test)  # (n_questions, dim)
    columns = [artifact.model_names.index(name) for name in known]
    p = artifact.p_correct_of(vectors, test.prompts)[:, columns]  # (n_questions, n_known)
    label = test.label[:, [test.model_names.index(name) for name in known]]
    return Report(
        artifact_id=row.id,
        is_champion=champion is not None and champion.artifact_id == row.id,
        trained_at=row.created_at,
        written_at=utc_now(),
        encoder=artifact.manifest.encoder,
        encoder_fingerprint=artifact.manifest.encoder_fingerprint,
        seed=artifact.manifest.seed,
        comparison=row.metrics or artifact.manifest.metrics,
        gate=row.gate,
        accuracies=accuracies(tuple(known), test.benchmarks, label, p, _rates(data, known)) if has_outcomes else None,
        reliability=reliability(label, p, test.groups) if has_outcomes else None,
        model_map=_map(artifact, vectors, test.prompts),
        single_models=_single_models(data) if test.observed.any() else None,
    )


def accuracies(
    names: tuple[str, ...], benchmarks: NDArray[np.str_], label: NDArray[np.float32], p: Floats, rates: Floats
) -> Accuracies:
    """Average observed cells by model and benchmark; label and p of shape (n_questions, n_models)."""
    rows: list[tuple[str, str, float, float, float, int]] = []
    for benchmark in np.unique(benchmarks):
        here = benchmarks == benchmark
        for column, name in enumerate(names):
            seen = here & ~np.isnan(label[:, column])
            if seen.any():
                forecast, actual = float(p[seen, column].mean()), float(label[seen, column].mean())
                rows.append((name, str(benchmark), forecast, float(rates[column]), actual, int(seen.sum())))
    model, benchmark_of, forecasts, means, actuals, n = zip(*rows, strict=True)
    return Accuracies(model, benchmark_of, np.array(forecasts), np.array(means), np.array(actuals), np.array(n))


def reliability(label: NDArray[np.float32], p: Floats, groups: NDArray[np.int64]) -> Reliability:
    """Sort the observed cells by forecast into bins of equal mass; label and p of shape (n_questions, n_models)."""
    question, model = np.nonzero(~np.isnan(label))
    forecast, right = p[question, model], label[question, model].astype(np.float64)
    order = np.argsort(forecast, kind="stable")
    bins = [part for part in np.array_split(order, min(N_BINS, len(order))) if len(part)]
    judged = [mean_and_error(right[part], groups[question[part]]) for part in bins]
    return Reliability(
        forecast=np.array([forecast[part].mean() for part in bins]),
        actual=np.array([mean for mean, _ in judged]),
        error=np.array([error for _, error in judged]),
        n=np.array([len(part) for part in bins]),
    )


def map_models(
    names: tuple[str, ...], models: NDArray[np.float32], questions: NDArray[np.float32], forecast: Floats
) -> ModelMap:
    """Lay the models out so that their distance is how differently they take to the same questions.

    models: embeddings of shape (n_models, K); questions: of shape (n_questions, K). Their logits on the questions,
    without each model's own mean, by the two leading principal components. To the right is what goes with a higher
    forecast accuracy, so that the map has no arbitrary mirror image.
    """
    logits = models @ (questions - questions.mean(axis=0)).T / np.sqrt(max(len(questions), 1))  # (M, N)
    centred = logits - logits.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    position = np.zeros((len(names), 2))
    n_axes = min(2, len(singular))
    position[:, :n_axes] = left[:, :n_axes] * singular[:n_axes]  # (M, 2)
    for axis in range(2):
        if position[:, axis] @ (forecast - forecast.mean()) < 0:
            position[:, axis] *= -1
    power = singular**2
    total = float(power.sum())
    shares = [float(share) / total if total > 0 else 0.0 for share in power[:2]]
    return ModelMap(names, position, (shares[0], shares[1] if len(shares) > 1 else 0.0), forecast)


def _map(artifact: Artifact, vectors: NDArray[np.float32], prompts: Sequence[str]) -> ModelMap | None:
    if len(vectors) < 2 or len(artifact.model_names) < 2:
        return None
    forecast = artifact.p_correct_of(vectors, prompts).mean(axis=0)
    questions = artifact.scorer.embed(vectors, describe(prompts))
    return map_models(artifact.model_names, artifact.scorer.model_embedding, questions, forecast)


def _single_models(data: Correctness) -> SingleModels | None:
    bench = RoutingBench.from_data(data)
    if not bench.countable or not (priced := bench.priced()).countable:
        return None
    return SingleModels(
        names=tuple(data.model_names[column] for column in priced.columns),
        cost_usd=priced.cost.mean(axis=0),
        accuracy=priced.label.mean(axis=0),
        oracle=float(priced.label.max(axis=1).mean()),
        n_questions=len(priced.rows),
    )


def _rates(data: Correctness, names: list[str]) -> Floats:
    """What model mean forecasts, of shape (n_names,)."""
    rates = model_mean(hide_test(data), np.zeros((0, 0), np.float32))[0]
    by_name = dict(zip(data.model_names, rates.tolist(), strict=True))
    return np.array([by_name[name] for name in names])


def _choose(rows: list[ArtifactRow], prefix: str | None, champion_id: str | None) -> ArtifactRow:
    """The artifact that is meant: by its id's beginning, else the champion, else the newest."""
    if not rows:
        raise TrainingError("no artifact to report on: `embedrouter train` makes one")
    wanted = prefix or champion_id or rows[0].id
    matching = [row for row in rows if row.id.startswith(wanted)]
    if len(matching) != 1:
        there = ", ".join(row.id for row in matching or rows[:5])
        raise TrainingError(
            f"{len(matching)} artifacts begin with {wanted!r}; {'these' if matching else 'there'}: {there}"
        )
    return matching[0]
