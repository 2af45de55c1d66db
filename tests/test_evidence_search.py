"""Nearest vectors beyond what is compared exactly: what faiss finds, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from router.encoder.base import Vectors
from router.evidence import Evidence, load_evidence, save_evidence
from router.evidence_search import Approximate, Exact, approximate

DIM = 24
UNCLUSTERED = 100.0  # the spread at which nothing is left of the clusters


def directions(array: NDArray[np.floating]) -> Vectors:
    """Rows of unit length."""
    unit: Vectors = (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)
    return unit


def clustered(n: int, spread: float, seed: int = 0) -> Vectors:
    """Directions about 50 centres, spread so far as is said; of one seed, the centres are the same for every n."""
    centres = np.random.default_rng(0).normal(size=(50, DIM))
    rng = np.random.default_rng(seed)
    return directions(centres[rng.integers(50, size=n)] + spread * rng.normal(size=(n, DIM)))


def evidence(search: Exact | Approximate, prompts: list[str]) -> Evidence:
    n = len(prompts)
    return Evidence(
        encoder_fingerprint="f",
        watermark=1,
        n_left_out=0,
        model_names=("m",),
        questions=[(f"q{i}", "b", "train", prompt) for i, prompt in enumerate(prompts)],
        search=search,
        starts=np.arange(n + 1),
        models=np.zeros(n, dtype=np.int32),
        labels=np.ones(n, dtype=np.float32),
        counts=np.ones(n, dtype=np.int32),
    )


def recall(search: Approximate, stored: Vectors, asked: Vectors) -> float:
    """The share of the ten nearest stored vectors that a search finds, over other vectors that ask."""
    exact = Exact(stored)
    hits = [len(set(search.nearest(q, 10).rows) & set(exact.nearest(q, 10).rows)) for q in asked]
    return float(np.mean(hits)) / 10


@pytest.mark.parametrize("target", [0.5, 0.7])
def test_the_recall_that_is_stated_is_what_new_questions_get(target: float) -> None:
    stored, asked = clustered(8_000, UNCLUSTERED, seed=1), clustered(1_000, UNCLUSTERED, seed=2)
    found = approximate(stored, target_recall=target)
    assert found.recall_at_10 == pytest.approx(target, abs=0.1)  # read on, it would be more
    assert recall(found, stored, asked) == pytest.approx(found.recall_at_10, abs=0.03)


@pytest.mark.parametrize("spread", [0.1, 0.5, UNCLUSTERED])
def test_nearly_all_of_the_nearest_are_found_in_clusters_and_without(spread: float) -> None:
    stored = clustered(8_000, spread, seed=1)
    found = approximate(stored)
    assert found.recall_at_10 > 0.98
    assert recall(found, stored, clustered(500, spread, seed=2)) > 0.98


def test_more_lists_are_read_where_the_nearest_are_in_more_of_them() -> None:
    easy, hard = (approximate(clustered(8_000, spread)).index for spread in (0.1, UNCLUSTERED))
    assert easy.nlist == hard.nlist == 8_000 // 39
    assert easy.nprobe < hard.nprobe < hard.nlist


def test_similarities_are_cosines_and_ties_go_to_the_older() -> None:
    stored = clustered(500, 0.5)
    stored[[7, 300, 11]] = stored[400]
    found, exact = approximate(stored).nearest(stored[400], 6), Exact(stored).nearest(stored[400], 6)
    assert found.rows.tolist() == exact.rows.tolist()
    assert found.rows.tolist()[:4] == [7, 11, 300, 400]
    assert found.similarity == pytest.approx(exact.similarity, abs=1e-6)


def test_near_duplicates_do_not_count_as_missed() -> None:
    assert approximate(np.repeat(clustered(20, 0.5), 100, axis=0)).recall_at_10 == 1.0


def test_few_vectors_and_vectors_without_direction_are_indexed_too() -> None:
    stored = clustered(3, 0.5)
    stored[1] = 0
    found = approximate(stored)
    assert found.recall_at_10 == 1.0
    assert sorted(found.nearest(stored[0], 10).rows.tolist()) == [0, 1, 2]
    assert approximate(np.zeros((2, DIM), dtype=np.float32)).nearest(stored[0], 1).similarity.tolist() == [0.0]


def test_fewer_than_asked_come_back_where_the_lists_hold_no_more() -> None:
    stored = clustered(2_000, 0.1)
    found = approximate(stored)
    found.index.nprobe = 1
    nearest = found.nearest(stored[0], 2_000)
    assert 0 < len(nearest.rows) < 2_000
    assert (nearest.rows >= 0).all()
    assert (np.diff(nearest.similarity) <= 0).all()


def test_an_index_by_faiss_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    stored = clustered(2_000, 0.5)
    kept = evidence(approximate(stored), [f"prompt {i}" for i in range(2_000)])
    save_evidence(kept, tmp_path / "kept")
    back = load_evidence(tmp_path / "kept", "f")
    assert back is not None
    assert back.summary() == kept.summary()
    assert [back.nearest(vector, 20) for vector in stored[:50]] == [kept.nearest(vector, 20) for vector in stored[:50]]


def test_a_file_that_faiss_cannot_read_is_no_index(tmp_path: Path) -> None:
    save_evidence(evidence(approximate(clustered(200, 0.5)), ["p"] * 200), tmp_path / "kept")
    arrays = load_file(tmp_path / "kept")
    for broken in (arrays["faiss"][: len(arrays["faiss"]) // 2], np.zeros(100, dtype=np.uint8)):
        save_file({**arrays, "faiss": broken}, tmp_path / "broken", {"format_version": "2"})
        assert load_evidence(tmp_path / "broken", "f") is None
    save_file(arrays, tmp_path / "whole", {"format_version": "2"})
    assert load_evidence(tmp_path / "whole", "f") is not None


def test_more_text_than_a_header_holds_is_kept(tmp_path: Path) -> None:
    kept = evidence(Exact(clustered(2, 0.5)), ["a" * 60_000_000, "b" * 60_000_000])
    save_evidence(kept, tmp_path / "kept")
    back = load_evidence(tmp_path / "kept", "f")
    assert back is not None
    assert back.questions == kept.questions
