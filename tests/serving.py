"""What tests of serving build for real: a planted artifact, a database that knows it, and a running gateway."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from fastapi import FastAPI
from sqlalchemy import Engine

from data.database import ready_engine
from data.promotions import add_artifact, promote
from data.queries import decisions
from data.store import set_model
from router.app import create_app
from router.artifact import Artifact, Manifest, write_artifact
from router.encoder.base import Encoder
from router.encoder.lsa import LsaEncoder
from router.forest import Forest
from router.loopback import serve_in_thread
from router.scorer import Scorer, kernel
from router.settings import Settings
from router.surface import describe
from training.alternation import measure_features

SUMS = ["add these numbers two plus three", "what is the sum of numbers seven plus nine", "numbers plus numbers"]
POEMS = ["write a poem about the sea", "a short poem on autumn leaves", "poem of love and sea"]
A_SUM = "what is two plus three numbers"
A_POEM = "a poem about the sea"


def planted_artifact(
    root: Path, p_correct: dict[str, tuple[float, float]], seed: int = 0, encoder: Encoder | None = None
) -> Artifact:
    """An artifact that forecasts, for each model, about one P(correct) on a sum and another on a poem."""
    encoder = encoder or LsaEncoder.fit([*SUMS, *POEMS] * 3)
    vectors, surface = encoder.encode([A_SUM, A_POEM]), describe([A_SUM, A_POEM])  # (2, D), (2, n_surface)
    features = measure_features(vectors, surface)
    points = features(vectors, surface)
    logit = np.log([[p / (1 - p) for p in pair] for pair in p_correct.values()])  # (M, 2)
    # a process that says +1 at the sum and -1 at the poem, so that a model's logit is its bias +- its embedding
    scorer = Scorer(
        features,
        landmarks=points,
        weights=np.linalg.solve(kernel(points, points, surface.shape[1]), np.array([[1.0], [-1.0]])).astype(np.float32),
        prior_mean=np.zeros(1, dtype=np.float32),
        forest=Forest.nothing(1),
        forest_share=0.0,
        residual=np.zeros((1, 1), dtype=np.float32),
        known=np.zeros((2, 1), dtype=np.float32),
        signal=np.zeros((1, 1), dtype=np.float32),
        model_embedding=((logit[:, :1] - logit[:, 1:]) / 2).astype(np.float32),
        model_bias=logit.mean(axis=1).astype(np.float32),
        model_covariance=np.zeros((len(logit), 2, 2), dtype=np.float32),
    )
    manifest = Manifest(
        model_names=tuple(p_correct),
        expected_output_tokens=(100.0,) * len(p_correct),
        encoder="lsa",
        encoder_fingerprint=encoder.fingerprint,
        data_fingerprint="planted",
        outcome_watermark=0,
        seed=seed,
        metrics={},
    )
    return write_artifact(root, manifest, scorer, encoder)


def register(engine: Engine, artifact: Artifact, *, promoted: bool = True) -> None:
    """List an artifact and its models in SQL, and make it champion."""
    for name in artifact.model_names:
        set_model(engine, name)
    add_artifact(
        engine,
        artifact.id,
        path=str(artifact.folder),
        encoder_fingerprint=artifact.manifest.encoder_fingerprint,
        data_fingerprint=artifact.manifest.data_fingerprint,
        outcome_watermark=0,
        metrics={},
    )
    if promoted:
        promote(engine, artifact.id, "manual", "planted by a test")


@contextmanager
def planted_engine(folder: Path, forecasts: dict[str, tuple[float, float]]) -> Iterator[Engine]:
    """A database in a folder whose champion is a planted artifact."""
    engine = ready_engine(f"sqlite:///{folder}/gateway.db")
    try:
        register(engine, planted_artifact(folder / "artifacts", forecasts))
        yield engine
    finally:
        engine.dispose()


def entry(name: str, url: str, *, key: str | None = None, usd: float | None = 1.0, **more: Any) -> dict[str, Any]:
    """A pool entry of config.yaml whose upstream knows the model as `vendor/NAME`."""
    upstream = {"base_url": url, "model": f"vendor/{name}"} | ({"api_key": key} if key else {})
    prices = {} if usd is None else {"usd_per_1m_input": usd, "usd_per_1m_output": usd}
    return {"name": name, "upstream": upstream, **prices, **more}


def settings(pool: Sequence[dict[str, Any]] = (), **more: Any) -> Settings:
    """Settings for tests: they record and look for the champion at once, and no slow machine makes a forecast late."""
    quick = {"recording": {"flush_interval_s": 0.02}, "champion_poll_s": 0.05, "encoder": {"deadline_s": 60}}
    return Settings.model_validate({"version": 1, "pool": list(pool), **quick, **more})


@dataclass
class Gateway:
    """A gateway that serves on loopback."""

    url: str
    app: FastAPI
    engine: Engine

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def decisions(self, n_expected: int = 1, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """The decisions in SQL, oldest first, once there are that many."""
        deadline = monotonic() + timeout_s
        while len(rows := decisions(self.engine)) < n_expected:
            assert monotonic() < deadline, f"{len(rows)} of {n_expected} decisions were recorded"
            sleep(0.02)
        return sorted(rows, key=lambda row: row["created_at"])

    def decision(self, request_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The decision on one request, once it is in SQL."""
        deadline = monotonic() + timeout_s
        while monotonic() < deadline:
            if found := [row for row in decisions(self.engine) if row["request_id"] == request_id]:
                return found[0]
            sleep(0.02)
        raise AssertionError(f"no decision on {request_id} was recorded")


@contextmanager
def run_gateway(engine: Engine, configuration: Settings, **options: Any) -> Iterator[Gateway]:
    """Serve a gateway from a thread."""
    app = create_app(configuration, engine, **options)
    with serve_in_thread(app) as url:
        yield Gateway(url, app, engine)
