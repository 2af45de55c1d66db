"""A text's topic is made of its distinct tokens' directions, and a model learns to give it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_llama import N_TOKENS, tiny_llama
from training.llm2vec.batches import Batches, Size, pad_rows
from training.llm2vec.checkpoint_folders import make_bidirectional
from training.llm2vec.latent import latent_embeddings
from training.llm2vec.loop import Schedule, run_steps
from training.llm2vec.topics import Topics, topic_of

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [[5, 6, 7], [5, 6, 8, 9], [10, 11, 12, 10], [11, 12, 13]]


def giving(states: torch.Tensor) -> Any:
    return SimpleNamespace(base_model=lambda **_: SimpleNamespace(last_hidden_state=states))


def test_a_token_that_returns_counts_by_the_root_of_how_often() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    assert topic_of([2, 0, 2, 2, 2], embeddings) == pytest.approx([1, 0, 2, 0])


def test_nothing_is_lost_where_the_vectors_are_the_topics_in_other_places_and_lengths() -> None:
    embeddings = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    topics = np.stack([topic_of(row, embeddings) for row in ROWS])
    batch = pad_rows(ROWS, 0)
    states = torch.from_numpy(3 * topics + 5)[:, None].expand(-1, batch.ids.shape[1], -1)
    loss = Topics(embeddings)
    assert float(loss(giving(states), batch, torch.Generator())) == pytest.approx(0, abs=1e-5)
    assert float(loss(giving(-states), batch, torch.Generator())) == pytest.approx(2, abs=1e-5)


def test_a_model_learns_them(tmp_path: Path) -> None:
    model = tiny_llama()
    make_bidirectional(model)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, N_TOKENS, 12).tolist() for _ in range(64)]
    objective = Topics(rng.normal(size=(N_TOKENS, 32)).astype(np.float32))
    batches = Batches(rows, max_tokens=12, size=Size(192, 16), seed=0, pad=0)
    losses = run_steps(model, objective, batches, Schedule(40, 1e-2, 4), tmp_path, seed=0)
    assert losses[0] > 0.9
    assert np.mean(losses[-4:]) < 0.5


def test_tokens_of_the_same_texts_start_close_and_all_rows_equally_long() -> None:
    texts = [[5, 6, 7]] * 10 + [[8, 9, 10]] * 10
    rows = latent_embeddings(texts, 12, 4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.full(12, np.linalg.norm(rows[0])), rel=1e-5)
    assert unit[5] @ unit[6] > 0.9
    assert abs(unit[5] @ unit[8]) < 0.3
