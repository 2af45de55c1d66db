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
from router.artifact import Artifact, Manifest, write_artifact
from router.encoder.base import Encoder
from router.encoder.registry import fit_encoder
from training.dataset import Correctness, require_every_split
from training.errors import TrainingError
from training.evaluate import QUICK_BASELINES, Comparison, compare
from training.routing import mean_output_tokens
from training.vectors import question_vectors

Progress = Callable[[str], None]


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
    encoder_spec: str = "lsa",
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> Trained:
    """Read the logs, encode, fit, calibrate, compare, and write the artifact; the same logs give the same artifact."""
    started = time.perf_counter()
    on_progress("reading the logs")
    data = read_correctness(engine)
    on_progress(f"encoding {data.n_questions:,} questions with {encoder_spec}")
    encoder = fit_encoder(encoder_spec, [data.prompts[row] for row in data.part("train")])
    vectors = question_vectors(engine, encoder, data, on_progress)
    comparison = compare(
        data,
        vectors,
        seed=seed,
        methods=QUICK_BASELINES,
        protocol={"split": "stored", "encoder": encoder_spec},
        on_progress=on_progress,
    )
    on_progress("writing the artifact")
    manifest = _manifest(data, encoder, encoder_spec, comparison, seed)
    artifact = write_artifact(artifacts_root, manifest, comparison.fitted.scorer, encoder)
    promotions.add_artifact(
        engine,
        artifact_id=artifact.id,
        path=str(artifact.folder.resolve()),
        encoder_fingerprint=manifest.encoder_fingerprint,
        data_fingerprint=manifest.data_fingerprint,
        outcome_watermark=manifest.outcome_watermark,
        metrics=comparison.figures,
    )
    return Trained(artifact, comparison.figures, time.perf_counter() - started)


def read_correctness(engine: Engine) -> Correctness:
    """Read the whole log from SQL; TrainingError where a split has no outcomes, saying what is there."""
    log = queries.read_log(engine)
    if log.cells.empty:
        raise TrainingError("the database holds no outcomes; `embedrouter import long PATH` brings some")
    data = Correctness.from_log(log)
    require_every_split(data)
    return data


def _manifest(data: Correctness, encoder: Encoder, encoder_spec: str, comparison: Comparison, seed: int) -> Manifest:
    tokens = mean_output_tokens(data)
    return Manifest(
        model_names=data.model_names,
        expected_output_tokens=tuple(None if np.isnan(n) else round(float(n), 1) for n in tokens),
        encoder=encoder_spec,
        encoder_fingerprint=encoder.fingerprint,
        data_fingerprint=data.fingerprint(),
        outcome_watermark=data.watermark,
        seed=seed,
        metrics=_without_timings(comparison.figures),
    )


def _without_timings(figures: dict[str, Any]) -> dict[str, Any]:
    """What training again on the same logs gives again, so that the artifact's name is its content."""
    kept = copy.deepcopy(figures)
    for method in kept["methods"].values():
        del method["fit_seconds"]
    return kept
