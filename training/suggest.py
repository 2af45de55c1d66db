"""Which questions to ask a new model: those that say most about it for every kind of question that there is.

Stratified random drawing is the default: in the backtest of `tests/benchmarks/bench_onboarding.py` D-optimal designs,
which ask where the pool's models differ most, forecast a new model no better. They trust the low-rank model also where
it is only nearly true.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from data import queries
from router.artifact import read_artifact
from training.derived import population_of, require_champion
from training.errors import TrainingError
from training.fold_in import ModelPosterior
from training.gate import champion_folder
from training.posterior import Posterior

Floats = NDArray[np.float64]


class Design(StrEnum):
    """How questions are chosen."""

    stratified = "stratified"
    d_optimal = "d-optimal"


@dataclass(frozen=True)
class SuggestedQuestion:
    """A question that a new model should be asked."""

    question_id: str
    benchmark: str
    prompt: str


def suggest(
    engine: Engine,
    artifacts_root: Path,
    model_name: str,
    n: int,
    *,
    design: Design = Design.stratified,
    seed: int = 0,
) -> list[SuggestedQuestion]:
    """Choose n logged questions to ask a model, none that it has answered and none of the test split.

    TrainingError where the champion says nothing of logged questions, or none is left.
    """
    champion = read_artifact(champion_folder(require_champion(engine), artifacts_root))
    logged = champion.logged_questions()
    if logged is None:
        raise TrainingError(f"artifact {champion.id} was made without its questions: `embedrouter train` makes another")
    names = queries.question_names(engine).set_index("key")
    answered = queries.answers_of(engine, model_name)["key"]
    usable = np.isin(logged.keys, names.index[names["split"] != "test"]) & ~np.isin(logged.keys, answered)
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise TrainingError(f"{model_name} has answered every question that artifact {champion.id} was fitted on")
    if design is Design.d_optimal:
        prior = population_of(champion, model_name)
        questions = Posterior(logged.mean[rows].astype(np.float64), logged.covariance()[rows])
        chosen = rows[d_optimal(information_points(prior, questions), prior, n)]
    else:
        benchmark = names["benchmark"].reindex(logged.keys[rows]).to_numpy(dtype=np.str_)
        chosen = rows[stratified(np.unique(benchmark, return_inverse=True)[1], n, seed)]
    keys = logged.keys[chosen].tolist()
    prompts = queries.prompts_of(engine, keys)
    return [
        SuggestedQuestion(str(names["question_id"].loc[key]), str(names["benchmark"].loc[key]), prompts[key])
        for key in keys
    ]


def stratified(stratum: NDArray[np.int64], n: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw n of the rows, each stratum in proportion to its size, by systematic sampling; all where n is too many.

    stratum: of shape (N,), such as each question's benchmark.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(stratum))
    order = shuffled[np.argsort(stratum[shuffled], kind="stable")]  # strata one after another, each in random order
    n = min(n, len(order))
    drawn: NDArray[np.int64] = order[((rng.random() + np.arange(n)) * len(order) / max(n, 1)).astype(np.int64)]
    return drawn


def d_optimal(points: Floats, prior: ModelPosterior, n: int) -> NDArray[np.int64]:
    """Choose n rows greedily so that the determinant of the posterior's precision grows most (Fedorov 1972).

    points: (N, K+1), as of `information_points`. Each step updates all gains at once: O(N K) a question.
    """
    covariance = prior.covariance.copy()
    gain = np.einsum("nk,kl,nl->n", points, covariance, points)
    chosen: list[int] = []
    for _ in range(min(n, len(points))):
        best = int(gain.argmax())
        chosen.append(best)
        direction = covariance @ points[best]
        shrunk = 1 + points[best] @ direction
        gain -= np.square(points @ direction) / shrunk  # Sherman and Morrison 1950
        covariance -= np.outer(direction, direction) / shrunk
        gain[chosen] = -np.inf
    return np.array(chosen, dtype=np.int64)


def information_points(prior: ModelPosterior, questions: Posterior) -> Floats:
    """Each question as a point x, (N, K+1), with x x' about the information that its answer holds on theta."""
    n = len(questions.mean)
    joined = np.hstack([questions.mean, np.ones((n, 1))])
    flat = questions.covariance.reshape(n, -1)
    u = prior.embedding
    of_question = flat @ (np.outer(u, u) + prior.covariance[:-1, :-1]).ravel()
    p = prior.p_correct(questions)
    weight = p * (1 - p) / (1 + np.pi / 8 * of_question)  # what is not known of a question dampens what it tells
    points: Floats = joined * np.sqrt(weight)[:, None]
    return points
