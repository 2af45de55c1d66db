"""What a probe finds where it was planted, and does not find where it was not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from sqlalchemy import Engine
from typer.testing import CliRunner

from data.promotions import promote
from tests.conftest import url_of
from tests.planted import planted_log
from tests.stored import store_log
from training import probe_commands
from training.errors import TrainingError
from training.gains import measure_gains
from training.lineage import judge_families, judge_sizes, parameters_of
from training.model_space import ModelSpace
from training.posterior import Posterior
from training.probe import probe
from training.source import Source, read_source
from training.stability import compare_spaces
from training.train import train
from training.twins import closest_pairs

Floats = NDArray[np.float64]

N_QUESTIONS, DIM = 600, 4


def space_of(names: tuple[str, ...], embedding: Floats, seed: int = 0) -> ModelSpace:
    """Models on random questions whose embeddings are known exactly."""
    mean = np.random.default_rng(seed).normal(0, 1, (N_QUESTIONS, DIM)) * np.array([3.0, 1.0, 0.5, 0.2])
    return ModelSpace(names, embedding, np.zeros(len(names)), Posterior(mean, np.zeros((N_QUESTIONS, DIM, DIM))))


def family_space(seed: int = 0) -> ModelSpace:
    """Five families of four, whose members differ less than families do."""
    rng = np.random.default_rng(seed)
    names = tuple(
        f"{family}-{size}" for family in ("ant", "bee", "cat", "dog", "elk") for size in ("s", "m", "l", "xl")
    )
    return space_of(names, np.repeat(rng.normal(0, 1, (5, DIM)), 4, axis=0) + rng.normal(0, 0.3, (20, DIM)))


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Meta-Llama-3.1-70B-Instruct", 70),
        ("Mixtral-8x7B-Instruct-v0.1", 56),
        ("Rex-v0.1-1.5B", 1.5),
        ("Qwen3-235B-A22B", 235),
        ("Llama-3_1-8b@host", 8),
        ("gpt-4o-2024-08-06", None),
        ("phi-3-mini-4k-instruct", None),
        ("my8bit-model", None),
    ],
)
def test_parameters_are_read_from_names(name: str, billions: float | None) -> None:
    assert parameters_of(name) == billions


def test_distances_are_in_logits_and_do_not_change_with_the_coordinates() -> None:
    space = family_space()
    logits = space.logits - space.logits.mean(axis=1, keepdims=True)
    expected = np.sqrt(np.square(logits[0] - logits[7]).mean())
    assert space.distance[0, 7] == pytest.approx(expected)
    skew = np.random.default_rng(1).normal(0, 1, (DIM, DIM))  # any invertible map that the questions undo
    other = replace(
        space,
        embedding=space.embedding @ skew,
        questions=Posterior(space.questions.mean @ np.linalg.inv(skew).T, space.questions.covariance),
    )
    assert other.distance == pytest.approx(space.distance)


def test_planted_families_are_nearer_and_shuffled_ones_are_not() -> None:
    space = family_space()
    found = judge_families(space.names, space.distance)
    assert found is not None
    assert found.ratio < 0.7
    assert found.p_value < 0.001
    assert (found.n_models, found.n_pairs, len(found.families)) == (20, 30, 5)
    assert found.expected == pytest.approx(1, abs=0.02)
    p_values = []
    for seed in range(20):
        names = [space.names[i] for i in np.random.default_rng(seed).permutation(20)]
        shuffled = judge_families(names, space.distance, seed)
        assert shuffled is not None
        p_values.append(shuffled.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.2
    assert 0.2 < np.mean(p_values) < 0.8


def test_no_two_families_make_no_test() -> None:
    assert judge_families(("model-1", "model-2"), np.ones((2, 2)) - np.eye(2)) is None
    assert judge_families(("ant-1", "bee-1"), np.ones((2, 2)) - np.eye(2)) is None


def test_a_planted_direction_of_size_is_found_and_a_shuffled_one_is_not() -> None:
    rng = np.random.default_rng(0)
    billions = np.exp(rng.uniform(0, 5, 24))
    names = [f"model{i}-{size:.1f}b" for i, size in enumerate(billions)]
    position = rng.normal(0, 1, (24, DIM))
    position[:, 1] += 1.5 * (np.log(billions) - np.log(billions).mean())
    found = judge_sizes(names, position, np.log(billions) + rng.normal(0, 0.3, 24))
    assert found is not None
    assert found.n_models == 24
    assert found.level_correlation > 0.9
    assert found.level_p_value < 0.001
    assert found.explained > 0.5
    assert found.explained_p_value < 0.001
    unrelated = judge_sizes(names, rng.normal(0, 1, (24, DIM)), rng.normal(0, 1, 24))
    assert unrelated is not None
    assert unrelated.explained < 0.3
    assert unrelated.explained_p_value > 0.05
    assert unrelated.level_p_value > 0.05


def test_sizes_that_few_names_state_are_not_judged() -> None:
    assert judge_sizes(["a-7b", "b", "c-70b"], np.zeros((3, 2)), np.zeros(3)) is None
    assert judge_sizes([f"m{i}-7b" for i in range(9)], np.zeros((9, 2)), np.zeros(9)) is None, "all of one size"


def test_leaving_one_out_in_closed_form_is_leaving_one_out() -> None:
    from training.lineage import RIDGE, _explained

    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (12, 3)), rng.normal(0, 1, 12)
    x -= x.mean(axis=0)
    penalty = RIDGE * np.square(x).sum() / 3
    design = np.hstack([x, np.ones((12, 1))])
    error, about_mean = [], []
    for i in range(12):
        kept = np.arange(12) != i
        a = design[kept].T @ design[kept] + np.diag([penalty] * 3 + [0.0])
        error.append(y[i] - design[i] @ np.linalg.solve(a, design[kept].T @ y[kept]))
        about_mean.append(y[i] - y[kept].mean())
    expected = 1 - np.square(error).sum() / np.square(about_mean).sum()
    assert _explained(x, y[None])[0] == pytest.approx(expected)


def twin_log(n_models: int = 10, seed: int = 0) -> tuple[Floats, NDArray[np.float32]]:
    """P(correct) and labels of independent models; the last gives the first one's answers but for one in twenty."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.5, 1, (2000, 1)) + 0.7 * rng.normal(0, 1, (2000, n_models))
    z[:, -1] = z[:, 0]
    p = 1 / (1 + np.exp(-z))
    label = (rng.random(p.shape) < p).astype(np.float32)
    label[:, -1] = np.where(rng.random(2000) < 0.05, 1 - label[:, 0], label[:, 0])
    return p, label


def test_one_model_under_two_names_is_found() -> None:
    p, label = twin_log()
    names = [f"model-{m}" for m in range(10)]
    pairs = closest_pairs(names, p, label)
    assert [(pair.first, pair.second) for pair in pairs if pair.is_twin] == [("model-0", "model-9")]
    twins = pairs[0]
    assert twins.counted == pytest.approx(0.05, abs=0.02)
    assert twins.expected == pytest.approx(twins.repeats), "embeddings alike: as equally able models"
    assert twins.repeats == pytest.approx((2 * p[:, 0] * (1 - p[:, 0])).mean())
    assert all(pair.ratio == pytest.approx(1, abs=0.15) for pair in pairs[1:])


def test_models_that_only_have_the_same_skill_are_not_one_model() -> None:
    p, label = twin_log()
    label[:, -1] = np.random.default_rng(1).random(2000) < p[:, 0]
    pairs = closest_pairs([f"model-{m}" for m in range(10)], p, label)
    assert not any(pair.is_twin for pair in pairs)


def test_models_that_share_one_easy_benchmark_alone_are_not_called_one() -> None:
    p, label = twin_log()
    names, benchmarks = [f"model-{m}" for m in range(10)], np.where(np.arange(2000) < 1000, "easy", "hard")
    twins = [pair.is_twin for pair in closest_pairs(names, p, label, benchmarks)]
    assert sum(twins) == 1
    label[1000:, 0] = np.nan
    assert not any(pair.is_twin for pair in closest_pairs(names, p, label, benchmarks))


def test_disagreement_is_counted_where_both_answered() -> None:
    p = np.full((200, 2), 0.5)
    label = np.ones((200, 2), dtype=np.float32)
    label[:60, 1] = 0
    label[60:100, 0] = np.nan
    (pair,) = closest_pairs(["a", "b"], p, label)
    assert pair.n_shared == 160
    assert pair.counted == pytest.approx(60 / 160)
    label[40:, 0] = np.nan
    assert closest_pairs(["a", "b"], p, label) == (), "too few questions that both answered"


def test_a_rotated_copy_is_stable_and_another_fit_is_not() -> None:
    space = family_space()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(0, 1, (DIM, DIM)))
    questions = Posterior(space.questions.mean @ rotation, space.questions.covariance)
    same = compare_spaces(space, replace(space, embedding=space.embedding @ rotation, questions=questions))
    assert same is not None
    assert same.embedding_correlation == pytest.approx(1)
    assert same.distance_correlation == pytest.approx(1)
    assert same.p_difference == pytest.approx(0, abs=1e-9)
    assert same.by_chance < 0.7
    unrelated = np.random.default_rng(2).normal(0, 1, space.embedding.shape)
    other = compare_spaces(space, replace(space, embedding=unrelated))
    assert other is not None
    assert other.distance_correlation < 0.5
    assert other.embedding_correlation == pytest.approx(other.by_chance, abs=0.3)
    with pytest.raises(ValueError, match="same models"):
        compare_spaces(space, space.models(space.names[:3]))


def test_a_gain_is_beyond_level_and_difficulty() -> None:
    embedding = np.zeros((3, DIM))
    embedding[0, 0], embedding[1, 0] = 1.0, -1.0
    mean = np.zeros((40, DIM))
    mean[:20, 0], mean[20:, 0] = 1.0, -1.0
    space = ModelSpace(("a", "b", "c"), embedding, np.array([0.0, 0.0, 2.0]), Posterior(mean, np.zeros((40, DIM, DIM))))
    benchmarks = np.array(["x"] * 20 + ["y"] * 20)
    test_label = np.array([[1, 0, 1]] * 20 + [[0, 1, 1]] * 20, dtype=np.float32)
    found = measure_gains(space, benchmarks, benchmarks, test_label)
    assert found is not None
    assert found.gain == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]), abs=1e-9)
    assert found.agreement == pytest.approx(1)
    alone = measure_gains(space, np.array(["x"] * 40), benchmarks, test_label)
    assert alone is None


@pytest.fixture
def source(sqlite_engine: Engine, tmp_path: Path) -> Source:
    store_log(sqlite_engine, planted_log(300, 6).log, "planted")
    trained = train(sqlite_engine, tmp_path / "artifacts")
    promote(sqlite_engine, trained.artifact.id, "train", "the first")
    return read_source(sqlite_engine)


def test_a_trained_artifact_is_probed_whole(source: Source, sqlite_engine: Engine) -> None:
    found = probe(sqlite_engine, source)
    assert (found.n_models, found.n_questions) == (6, int((source.data.split != "test").sum()))
    assert found.families is None, "all are called model"
    assert found.gains is not None
    assert found.gains.agreement is not None
    assert found.gains.agreement > 0.8, "each model is good at its own topics"
    assert found.stability is not None
    assert found.stability.distance_correlation > 0.9


def test_an_artifact_without_its_questions_cannot_be_probed(
    source: Source, sqlite_engine: Engine, tmp_path: Path
) -> None:
    bare = replace(source, artifact=replace(source.artifact, folder=tmp_path / "without"))
    with pytest.raises(TrainingError, match="train again"):
        probe(sqlite_engine, bare)


def test_the_verb_prints_tables_or_one_object(source: Source, sqlite_engine: Engine) -> None:
    app = typer.Typer()
    probe_commands.register(app)
    table = CliRunner().invoke(app, ["--database", url_of(sqlite_engine), "--no-stability"])
    assert table.exit_code == 0, table.output
    for expected in (source.row.id, "Benchmarks", "algebra", "model-5", "not measured"):
        assert expected in table.stdout
    ended = CliRunner().invoke(app, ["--database", url_of(sqlite_engine), "--no-stability", "--json"])
    assert ended.exit_code == 0, ended.output
    answer = json.loads(ended.stdout)
    assert answer["artifact"] == source.row.id
    assert answer["stability"] is None
    assert len(answer["map"]["models"]) == 6
    assert np.array(answer["gains"]["gain"]).shape == (6, 4)
