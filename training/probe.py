"""What an artifact's model embeddings know: families, sizes, twins, benchmarks, and whether another seed agrees.

Everything is measured in what the models are predicted to do on the logged questions. Test outcomes are read only to
count what stands beside the embeddings' gains by benchmark.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from router.abstention import Abstention
from router.artifact import Artifact
from router.encoder.base import Vectors
from router.logged import LoggedQuestions
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import hide_test
from training.fit import Fitted, refit
from training.gains import Gains, measure_gains
from training.lineage import Families, Sizes, judge_families, judge_sizes
from training.model_space import ModelSpace
from training.posterior import Posterior
from training.source import Source
from training.stability import Stability, compare_spaces
from training.twins import Pair, closest_pairs
from training.vectors import question_vectors

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Probe:
    """What was found; None where the log or the names have nothing to find it in.

    families_without_twins: the same test with one model of each pair of twins left out, which would be a family anyhow.
    """

    n_models: int
    n_questions: int
    families: Families | None
    families_without_twins: Families | None
    sizes: Sizes | None
    pairs: tuple[Pair, ...]
    gains: Gains | None
    stability: Stability | None


def probe(
    engine: Engine,
    source: Source,
    *,
    stability: bool = True,
    vectors: Vectors | None = None,
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> Probe:
    """Probe an artifact on the questions it was trained on.

    stability: whether to fit once more with another seed, which takes most of the time; vectors: of the source's
    questions, where the caller has them. TrainingError where the artifact does not hold its questions.
    """
    artifact, data = source.artifact, source.data
    logged = artifact.logged_questions()
    if logged is None:
        raise TrainingError(f"artifact {artifact.id} does not hold what it learned of its questions: train again")
    rows = _rows_of(data, logged)
    space = space_of(artifact, logged)
    columns = _columns(data, space.names)
    test = data.part("test")
    on_progress("comparing models")
    pairs = closest_pairs(space.names, space.p_correct, columns[rows], data.benchmarks[rows])
    refitted = None
    if stability:
        on_progress("fitting with another seed")
        vectors = question_vectors(engine, artifact.encoder, data) if vectors is None else vectors
        refitted = _another_seed(artifact, logged, space, data, vectors)
    return Probe(
        n_models=len(space.names),
        n_questions=len(rows),
        families=judge_families(space.names, space.distance, seed),
        families_without_twins=_without_twins(space, pairs, seed),
        sizes=judge_sizes(space.names, space.position, space.level, seed),
        pairs=pairs,
        gains=measure_gains(space, data.benchmarks[rows], data.benchmarks[test], columns[test]),
        stability=refitted,
    )


def space_of(artifact: Artifact, logged: LoggedQuestions) -> ModelSpace:
    """Where an artifact places its models, on the questions that it learned from."""
    return ModelSpace(
        names=artifact.model_names,
        embedding=artifact.scorer.model_embedding.astype(np.float64),
        bias=artifact.scorer.model_bias.astype(np.float64),
        questions=Posterior(logged.mean.astype(np.float64), logged.covariance()),
    )


def _rows_of(data: Correctness, logged: LoggedQuestions) -> NDArray[np.int64]:
    """The data's rows of the logged questions, in their order."""
    order = np.argsort(data.keys)
    at = np.searchsorted(data.keys[order], logged.keys)
    if len(logged.keys) and (at.max() >= len(order) or (data.keys[order[at]] != logged.keys).any()):
        raise TrainingError("the logs no longer hold all questions that the artifact learned from")
    return order[at].astype(np.int64)


def _columns(data: Correctness, names: tuple[str, ...]) -> NDArray[np.float32]:
    """The labels by these models, (n_questions, n_names), NaN for one that the log does not know."""
    label = np.full((data.n_questions, len(names)), np.nan, dtype=np.float32)
    for column, name in enumerate(names):
        if name in data.model_names:
            label[:, column] = data.label[:, data.model_names.index(name)]
    return label


def _without_twins(space: ModelSpace, pairs: tuple[Pair, ...], seed: int) -> Families | None:
    dropped = {pair.second for pair in pairs if pair.is_twin}
    if not dropped:
        return None
    kept = space.models([name for name in space.names if name not in dropped])
    return judge_families(kept.names, kept.distance, seed)


def _another_seed(
    artifact: Artifact, logged: LoggedQuestions, space: ModelSpace, data: Correctness, vectors: Vectors
) -> Stability | None:
    """Fit the same log once more; None where the artifact does not say which noise level it chose."""
    chosen: dict[str, Any] = artifact.manifest.metrics.get("fit") or {}
    shared = [name for name in space.names if name in data.model_names and name not in artifact.manifest.onboarded]
    if chosen.get("noise") is None or len(shared) < 3:
        return None
    like = Fitted(
        scorer=artifact.scorer,
        rows=np.zeros(0, dtype=np.int64),
        questions=space.questions,
        noise=float(chosen["noise"]),
        interval_scale=1.0,
        nll_by_noise={},
        nll_by_forest_share={},
        abstention=Abstention(*np.zeros((4, 0))),
        max_novelty=1.0,
    )
    again = refit(hide_test(data), vectors, like, seed=artifact.manifest.seed + 1)
    order = np.argsort(data.keys[again.rows])
    if not np.array_equal(data.keys[again.rows][order], logged.keys):
        return None  # other questions have outcomes now: not the same fit
    questions = again.questions.rows(order)
    embedding, bias = again.scorer.model_embedding, again.scorer.model_bias
    other = ModelSpace(data.model_names, embedding.astype(np.float64), bias.astype(np.float64), questions)
    return compare_spaces(space.models(shared), other.models(shared))
