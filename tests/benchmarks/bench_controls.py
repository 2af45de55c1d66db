"""Controls: logs from which nothing can be learned, on which the default must show exactly that.

    python -m tests.benchmarks.bench_controls PATH [--quick]

Each control breaks one connection in the train and val outcomes or in the questions, fits the default on what is left,
and judges it on test beside the model mean of the same data, paired, with intervals by bootstrap over near-duplicate
groups of test questions:

    across     outcomes permuted across questions, jointly for all models: prompts say nothing of outcomes
    within     outcomes permuted within every question, test as well: which model was right is chance
    vectors    random question vectors and no surface: the default is blind
    surface    random question vectors, surface as it is: what the second channel alone is worth, no control
    none       nothing broken: what there is to lose

Only the models that were asked nearly everything take part. Where a model was not asked at random (whole benchmarks
left out), its mean holds what it was asked, which the default corrects for, so that the two differ for no fault.

The splits are scanned for near-duplicates as well, anew and by exhaustive comparison of word shingles, so that a fault
of the grouping itself would show.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from data.importers.long import read_folder
from data.near_duplicates import SIMILARITY, WORDS_PER_SHINGLE, group_near_duplicates
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Vectors
from router.encoder.registry import fit_encoder
from tests.benchmarks.paired import TestLosses
from training.baselines import model_mean
from training.dataset import Correctness
from training.estimators import embedrouter
from training.evaluate import hide_test
from training.metrics import Cells, auc, bootstrap_weights, interval, within_question_pairs
from training.routing import POOL_COVERAGE

Floats = NDArray[np.float64]

QUICK_QUESTIONS = 800


@dataclass(frozen=True)
class Control:
    """One broken log: data with its test labels, and the vectors that the default is given."""

    name: str
    data: Correctness
    vectors: Vectors


def controls(data: Correctness, vectors: Vectors, seed: int = 0) -> Iterator[Control]:
    """Yield the log as it is and each of its broken copies."""
    rng = np.random.default_rng(seed)
    yield Control("none", data, vectors)
    yield Control("across", replace(data, label=permuted_across_questions(data, rng)), vectors)
    yield Control("within", replace(data, label=permuted_within_questions(data.label, rng)), vectors)
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    yield Control("vectors", replace(data, prompts=("",) * data.n_questions), noise)
    yield Control("surface", data, noise)


def permuted_across_questions(data: Correctness, rng: np.random.Generator) -> NDArray[np.float32]:
    """Give every train and val question the outcomes of another, all models together; test keeps its own."""
    label = data.label.copy()
    learned = np.flatnonzero(data.split != "test")
    label[learned] = data.label[rng.permutation(learned)]
    return label


def permuted_within_questions(label: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shuffle every question's outcomes among the models that were observed on it."""
    shuffled = label.copy()
    for row in range(len(label)):
        seen = np.flatnonzero(~np.isnan(label[row]))
        shuffled[row, seen] = label[row, rng.permutation(seen)]
    return shuffled


def leakage(data: Correctness) -> dict[str, Any]:
    """Scan the splits: how many test questions have a near-duplicate, or an equal prompt, among train and val.

    nearest: the Jaccard similarity of each test question's word shingles to its nearest train or val question, by
    comparing all pairs, as quantiles; above: how many lie above SIMILARITY, templates included; shared_groups: how many
    test questions share a freshly computed near-duplicate group with a train or val question.
    """
    test, learned = data.part("test"), np.flatnonzero(data.split != "test")
    group = group_near_duplicates(data.prompts)
    words = [" ".join(prompt.lower().split()) for prompt in data.prompts]
    known = {words[row] for row in learned}
    nearest = nearest_similarity(words, test, learned)
    quantiles = np.quantile(nearest, [0.5, 0.9, 0.99, 1.0])
    return {
        "n_test_questions": len(test),
        "shared_groups": int(np.isin(group[test], group[learned]).sum()),
        "equal_prompts": sum(words[row] in known for row in test),
        "above": int((nearest >= SIMILARITY).sum()),
        "nearest": dict(zip(("median", "90%", "99%", "largest"), quantiles.tolist(), strict=True)),
    }


def nearest_similarity(texts: list[str], rows: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """The largest Jaccard similarity of each row's shingles to any of the others', of shape (len(rows),)."""
    index: dict[tuple[str, ...], int] = {}
    indices: list[int] = []
    bounds = [0]
    for text in texts:
        words = text.split()
        starts = range(max(len(words) - WORDS_PER_SHINGLE + 1, 1))
        shingles = {tuple(words[start : start + WORDS_PER_SHINGLE]) for start in starts}
        indices += [index.setdefault(shingle, len(index)) for shingle in shingles]
        bounds.append(len(indices))
    matrix = sp.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, bounds), shape=(len(texts), len(index)))
    size = np.diff(matrix.indptr)
    nearest = np.zeros(len(rows))
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        shared = (matrix[part] @ matrix[others].T).toarray()
        nearest[start : start + 64] = (shared / (size[part][:, None] + size[others] - shared)).max(axis=1)
    return nearest


def run(path: Path, quick: bool = False) -> dict[str, Any]:
    """Fit the default on every control and judge it beside the model mean. quick: on a part of the questions."""
    data = with_complete_models(Correctness.from_log(read_folder(path)))
    scan = leakage(data)
    if quick:
        chosen = np.sort(np.random.default_rng(0).permutation(data.n_questions)[:QUICK_QUESTIONS])
        data = data.rows(chosen)
    encoder = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in data.learnable("train")])
    found = {}
    for control in controls(data, encoder.encode(data.prompts)):
        found[control.name] = judge(control)
        print(_line(control.name, found[control.name]), flush=True)
    splits = dict(Counter(data.split.tolist()))
    return {"path": str(path), "splits": splits, "controls": found, "leakage": scan}


def with_complete_models(data: Correctness) -> Correctness:
    """Keep the models observed on nearly all questions, and the questions that they answered."""
    kept = np.flatnonzero(data.observed.mean(axis=0) >= POOL_COVERAGE)
    part = data.columns(kept)
    return part.rows(np.flatnonzero(part.observed.any(axis=1)))


def judge(control: Control) -> dict[str, Any]:
    """NLL, AUC and within-question AUC of the default on test, and the NLL less the model mean's of the same data."""
    data = control.data
    visible = hide_test(data)
    losses = TestLosses.of(data)
    test = losses.rows
    p = embedrouter(visible, control.vectors)[test]
    mean = model_mean(visible, control.vectors)[test]
    concordant, pairs = within_question_pairs(data.label[test], p)
    weights = bootstrap_weights(data.groups[test], 1000, seed=0)
    ours, theirs = losses.by_question(p), losses.by_question(mean)
    once = np.ones(len(test))
    return {
        "nll": losses.mean(ours),
        "nll_model_mean": losses.mean(theirs),
        "nll_minus_model_mean": losses.difference(ours, theirs).figures(),
        "auc": float(auc(Cells.from_grid(data.label[test], p), once)),
        "auc_model_mean": float(auc(Cells.from_grid(data.label[test], mean), once)),
        "auc_within_question": float(concordant.sum() / pairs.sum()),
        "auc_within_question_ci95": interval((weights @ concordant) / (weights @ pairs)),
    }


def render(figures: Mapping[str, Any]) -> str:
    """Lay the controls and the scan out as text."""
    scan = figures["leakage"]
    nearest = ", ".join(f"{name} {value:.2f}" for name, value in scan["nearest"].items())
    return "\n".join(
        [
            f"{figures['path']}: {figures['splits']}",
            f"{'':<10}{'NLL':>8}{'mean':>8}   NLL less the model mean's {'AUC':>10}{'mean':>7}   AUC within questions",
            *(_line(name, one) for name, one in figures["controls"].items()),
            f"leakage: of {scan['n_test_questions']:,} test questions {scan['shared_groups']} share a near-duplicate "
            f"group with train or val, {scan['equal_prompts']} an equal prompt; {scan['above']} are {SIMILARITY} "
            f"similar or more (templates included); similarity to the nearest: {nearest}",
        ]
    )


def _line(name: str, one: Mapping[str, Any]) -> str:
    d, (low, high) = one["nll_minus_model_mean"], one["auc_within_question_ci95"]
    return (
        f"{name:<10}{one['nll']:>8.4f}{one['nll_model_mean']:>8.4f}"
        f"   {d['estimate']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
        f"{one['auc']:>8.4f}{one['auc_model_mean']:>7.4f}"
        f"   {one['auc_within_question']:.4f} ({low:.4f} to {high:.4f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--quick", action="store_true", help=f"on {QUICK_QUESTIONS} of the questions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = run(arguments.path, arguments.quick)
    print(json.dumps(figures) if arguments.json else "\n" + render(figures))


if __name__ == "__main__":
    main()
