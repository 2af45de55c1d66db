"""Training from SQL: what it writes, what it caches, and what it says when the logs are too thin."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select

from data import queries
from data.tables import QuestionVector
from router.artifact import content_id, read_artifact
from router.encoder.base import Vectors
from router.errors import ArtifactError
from tests.planted import planted_log
from tests.stored import store_log
from training.dataset import Correctness
from training.errors import TrainingError
from training.train import read_correctness, train
from training.vectors import question_vectors


def test_a_log_becomes_an_artifact_that_forecasts_new_prompts(engine: Engine, tmp_path: Path) -> None:
    truth = planted_log(500, 4)
    store_log(engine, truth.log, "planted")
    trained = train(engine, tmp_path)
    artifact = read_artifact(trained.artifact.folder)
    fillers = [" ".join(f"w{7 * i + 31 * j}" for j in range(6)) for i in range(20)]
    prompts = [f"{topic} of {topic}: {words}" for topic in ("algebra", "dance") for words in fillers]
    p = artifact.p_correct(prompts)
    expert, other = artifact.model_names.index("model-0"), artifact.model_names.index("model-1")
    algebra, dance = p[:20].mean(axis=0), p[20:].mean(axis=0)
    assert algebra[expert] > 0.65 > 0.35 > algebra[other]
    assert dance[expert] < 0.35 < 0.65 < dance[other]
    assert np.array_equal(p, trained.artifact.p_correct(prompts))


def test_the_artifact_is_registered_and_not_promoted(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, planted_log(200, 3).log, "planted")
    trained = train(sqlite_engine, tmp_path)
    (row,) = queries.artifacts(sqlite_engine)
    manifest = trained.artifact.manifest
    assert (row.id, row.data_fingerprint) == (trained.artifact.id, manifest.data_fingerprint)
    assert row.outcome_watermark == manifest.outcome_watermark == 600
    assert manifest.max_novelty is not None
    assert 0 < manifest.max_novelty <= 1
    assert row.metrics["default"] == "embedrouter"
    assert queries.champion(sqlite_engine) is None


def test_the_same_logs_give_the_same_artifact(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, planted_log(200, 3).log, "planted")
    one, other = train(sqlite_engine, tmp_path), train(sqlite_engine, tmp_path)
    assert one.artifact.id == other.artifact.id == content_id(one.artifact.folder)
    assert train(sqlite_engine, tmp_path, seed=1).artifact.id != one.artifact.id
    assert len(queries.artifacts(sqlite_engine)) == 2


def test_a_changed_artifact_is_refused(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, planted_log(200, 3).log, "planted")
    folder = train(sqlite_engine, tmp_path).artifact.folder
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("model-0", "model-9"))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        read_artifact(folder)
    with pytest.raises(ArtifactError, match="`embedrouter train` makes one"):
        read_artifact(tmp_path / "absent")


def test_an_empty_database_says_what_brings_logs(sqlite_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="`embedrouter import long PATH` brings some"):
        train(sqlite_engine, tmp_path)


def test_a_log_without_test_questions_says_what_it_found(sqlite_engine: Engine, tmp_path: Path) -> None:
    log = planted_log(60, 3).log
    store_log(sqlite_engine, type(log)(log.questions.assign(split="train"), log.models, log.cells), "planted")
    with pytest.raises(TrainingError, match=r"in val and test \(found 60 train, 0 val, 0 test\)"):
        train(sqlite_engine, tmp_path)


def test_sql_and_arrays_say_the_same(engine: Engine) -> None:
    truth = planted_log(150, 4, observed=0.6, seed=4)
    store_log(engine, truth.log, "planted")
    stored, planted = read_correctness(engine), Correctness.from_log(truth.log)
    order = [stored.prompts.index(prompt) for prompt in planted.prompts]
    assert np.array_equal(stored.label[order], planted.label, equal_nan=True)
    assert stored.model_names == planted.model_names
    assert stored.split[order].tolist() == planted.split.tolist()


@dataclass
class CountingEncoder:
    """A text encoder that does not depend on the logs, and counts what it is asked."""

    fingerprint: str = "counts-letters"
    dim: int = 2
    max_tokens: int = 100
    depends_on_logs: bool = False
    is_light: bool = False
    is_serial: bool = False
    asked: list[str] = field(default_factory=list)

    def encode(self, prompts: Sequence[str]) -> Vectors:
        self.asked.extend(prompts)
        return np.array([[len(p), p.count("a")] for p in prompts], dtype=np.float32).reshape(-1, 2)

    def save(self, folder: Path) -> None:
        raise AssertionError("vectors are cached, encoders are not")


def test_a_second_run_encodes_nothing_and_a_longer_log_only_what_is_new(engine: Engine) -> None:
    log = planted_log(80, 3).log
    store_log(engine, log, "planted")
    encoder, data = CountingEncoder(), read_correctness(engine)
    first = question_vectors(engine, encoder, data)
    assert sorted(encoder.asked) == sorted(data.prompts)
    encoder.asked.clear()
    assert np.array_equal(question_vectors(engine, encoder, data), first)
    assert encoder.asked == []
    store_log(engine, planted_log(90, 3, seed=9).log, "more")
    longer = read_correctness(engine)
    question_vectors(engine, encoder, longer)
    assert sorted(encoder.asked) == sorted(set(longer.prompts) - set(data.prompts))
    with engine.connect() as connection:
        assert len(connection.execute(select(QuestionVector.question_id)).all()) == longer.n_questions


def test_vectors_that_depend_on_the_logs_are_not_cached(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, planted_log(100, 3).log, "planted")
    train(sqlite_engine, tmp_path, encoder_spec="lsa")
    with sqlite_engine.connect() as connection:
        assert connection.execute(select(QuestionVector.question_id)).all() == []
