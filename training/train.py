"""Train: the logs as they are now in, an artifact on disk and in SQL out.

It neither promotes nor judges against a champion; `training.gate` does.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from data import promotions, queries
from data.locks import LOGS, sharing
from data.splits import group_questions
from router.abstention import Abstention
from router.artifact import Artifact, Manifest, write_artifact
from router.costs import Costs
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Encoder
from router.encoder.registry import fit_encoder
from router.logged import LoggedQuestions
from training.dataset import Correctness, require_every_split
from training.errors import TrainingError
from training.evaluate import QUICK_BASELINES, compare
from training.fit import Fitted
from training.learned_outcomes import leave_out_learned
from training.pace import fit_pace
from training.routing import mean_output_tokens
from training.vectors import question_vectors

Progress = Callable[[str], None]
ERROR_LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2)  # what a training says of abstaining; any other can be asked for


@dataclass(frozen=True)
class Trained:
    """A new artifact, its comparison with the baselines (the JSON object of `evaluate`), and how long it took."""

    artifact: Artifact
    comparison: dict[str, Any]
    seconds: float


def train(
    engine: Engine,
    artifacts_root: Path,
    *,
    encoder_spec: str = DEFAULT_ENCODER,
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> Trained:
    """Read the logs, encode, fit, calibrate, compare, and write the artifact; the same logs give the same artifact."""
    with sharing(engine, LOGS):
        return _train(engine, artifacts_root, encoder_spec, seed, on_progress)


def _train(engine: Engine, artifacts_root: Path, encoder_spec: str, seed: int, on_progress: Progress) -> Trained:
    started = time.perf_counter()
    on_progress("reading the logs")
    data = read_correctness(engine)
    on_progress(f"encoding {data.n_questions:,} questions with {encoder_spec}")
    encoder = fit_encoder(encoder_spec, [data.prompts[row] for row in data.learnable("train")])
    left = leave_out_learned(data, encoder_spec)
    vectors = question_vectors(engine, encoder, data, on_progress)
    comparison = compare(
        left.data,
        vectors,
        seed=seed,
        methods=QUICK_BASELINES,
        protocol={"split": "stored", "encoder": encoder_spec, "n_left_out": left.n_left_out},
        on_progress=on_progress,
    )
    on_progress("writing the artifact")
    fitted = comparison.fitted
    figures = comparison.figures | {"fit": _choices(fitted)}
    manifest = _manifest(data, encoder, encoder_spec, figures, seed, round(fitted.max_novelty, 6))
    pace = fit_pace(queries.timings(engine), data.model_names)
    costs = Costs(comparison.lengths.forecaster, pace)
    questions = LoggedQuestions.of(data.keys[fitted.rows], fitted.questions.mean, fitted.questions.covariance)
    artifact = write_artifact(artifacts_root, manifest, fitted.scorer, encoder, costs, questions, fitted.abstention)
    promotions.add_artifact(
        engine,
        artifact_id=artifact.id,
        path=str(artifact.folder.resolve()),
        encoder_fingerprint=manifest.encoder_fingerprint,
        data_fingerprint=manifest.data_fingerprint,
        outcome_watermark=manifest.outcome_watermark,
        metrics=figures,
    )
    return Trained(artifact, figures, time.perf_counter() - started)


def read_correctness(engine: Engine) -> Correctness:
    """Read the whole log from SQL; TrainingError where a split has no outcomes, saying what is there."""
    group_questions(engine)  # those that feedback brought have no split yet
    log = queries.read_log(engine)
    if log.cells.empty:
        raise TrainingError("the database holds no outcomes; `embedrouter import long PATH` brings some")
    data = Correctness.from_log(log)
    require_every_split(data)
    return data


def _manifest(
    data: Correctness, encoder: Encoder, encoder_spec: str, figures: dict[str, Any], seed: int, max_novelty: float
) -> Manifest:
    tokens = mean_output_tokens(data)
    return Manifest(
        model_names=data.model_names,
        expected_output_tokens=tuple(None if np.isnan(n) else round(float(n), 1) for n in tokens),
        output_tokens_estimated=tuple(name in data.estimated_tokens for name in data.model_names),
        encoder=encoder_spec,
        encoder_fingerprint=encoder.fingerprint,
        data_fingerprint=data.fingerprint(),
        outcome_watermark=data.watermark,
        seed=seed,
        metrics=_without_timings(figures),
        max_novelty=max_novelty,
    )


def _choices(fitted: Fitted) -> dict[str, Any]:
    """What cross-validation chose, and each candidate's loss: of the process's noise, then of the forest's share."""
    return {
        "noise": fitted.noise,
        "forest_share": fitted.scorer.forest_share,
        "by_noise": [{"noise": noise, "nll": nll} for noise, nll in fitted.nll_by_noise.items()],
        "by_forest_share": [{"share": share, "nll": nll} for share, nll in fitted.nll_by_forest_share.items()],
        "abstention": [_abstention(fitted.abstention, max_error) for max_error in ERROR_LIMITS],
    }


def _abstention(abstention: Abstention, max_error: float) -> dict[str, Any]:
    """How much would be answered within a limit on errors, of the held-out questions; nothing where none keeps it."""
    step = abstention.step(max_error)
    return {
        "max_error": max_error,
        "min_p_correct": None if step is None else float(abstention.p_correct[step]),
        "share_answered": 0.0 if step is None else float(abstention.share[step]),
        "error": None if step is None else float(abstention.error[step]),
    }


def _without_timings(figures: dict[str, Any]) -> dict[str, Any]:
    """What training again on the same logs gives again, so that the artifact's name is its content."""
    kept = copy.deepcopy(figures)
    for method in kept["methods"].values():
        del method["fit_seconds"]
    return kept
