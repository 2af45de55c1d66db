"""Near-duplicate questions against random ones, as a task of the mteb package: how an encoder sees likeness.

    pip install mteb
    python -m tests.benchmarks.bench_similarity PATH [--encoders lsa bundled lsa+bundled llm2vec:PATH]

PATH: a long-format folder. Pairs of one near-duplicate group are alike, as many random pairs of different groups are
not; average precision of the cosine says how well the two are told apart. Near-duplicates are found by shared words,
so that encoders of words have it easy here; MTEB's own tasks would need the network. The test questions are not read.
"""

import argparse
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskPairClassification
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from numpy.typing import NDArray

from data.importers.long import read_folder
from router.encoder.base import Encoder, Vectors
from router.encoder.registry import fit_encoder
from training.dataset import Correctness

MOST_PAIRS = 2_000  # of each kind
MOST_OF_GROUP = 3  # pairs of one group: large groups are templates


class NearDuplicates(AbsTaskPairClassification):  # type: ignore[misc]  # mteb is installed for this script alone
    """Pairs of questions, alike or not."""

    metadata = TaskMetadata(
        name="NearDuplicateQuestions",
        description="Tell near-duplicate benchmark questions from random pairs.",
        dataset={"path": "local", "revision": "1"},
        type="PairClassification",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],  # mteb's name for what is judged: these are train and val questions
        eval_langs=["eng-Latn"],
        main_score="cosine_ap",
    )

    def __init__(self, pairs: dict[str, list[Any]]) -> None:
        super().__init__()
        self.dataset = DatasetDict({"test": Dataset.from_dict(pairs)})
        self.data_loaded = True

    def load_data(self, *args: object, **kwargs: object) -> None:
        """The pairs are there already."""


class AsMteb:
    """An encoder as mteb asks it."""

    def __init__(self, name: str, encoder: Encoder) -> None:
        self._encoder = encoder
        self.mteb_model_meta = ModelMeta.create_empty({"name": f"embedrouter/{name.replace('/', '-')}"})

    def encode(self, inputs: Iterable[dict[str, list[str]]], **_options: object) -> Vectors:
        return self._encoder.encode([text for batch in inputs for text in batch["text"]])

    def similarity(self, first: Vectors, second: Vectors) -> Vectors:
        similarity: Vectors = unit(first) @ unit(second).T
        return similarity

    def similarity_pairwise(self, first: Vectors, second: Vectors) -> Vectors:
        similarity: Vectors = (unit(first) * unit(second)).sum(axis=1)
        return similarity


def unit(vectors: Vectors) -> Vectors:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return unit


def draw_pairs(data: Correctness, seed: int = 0) -> dict[str, list[Any]]:
    """Pairs of prompts with a label: 1 within a near-duplicate group, 0 across; as many of each."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(data.n_questions)
    alike = [pair for group in np.unique(data.groups) for pair in _within(order[data.groups[order] == group])]
    alike = [alike[i] for i in rng.permutation(len(alike))[:MOST_PAIRS]]
    apart: list[tuple[int, int]] = []
    while len(apart) < len(alike):
        a, b = (int(i) for i in rng.integers(data.n_questions, size=2))
        if data.groups[a] != data.groups[b]:
            apart.append((a, b))
    pairs = [*alike, *apart]
    return {
        "sentence1": [data.prompts[a] for a, _ in pairs],
        "sentence2": [data.prompts[b] for _, b in pairs],
        "labels": [1] * len(alike) + [0] * len(apart),
    }


def _within(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(rows)][:MOST_OF_GROUP]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--encoders", nargs="+", default=["lsa", "bundled", "lsa+bundled"], metavar="SPEC")
    arguments = parser.parse_args()
    compare(arguments.path, arguments.encoders)


def compare(path: Path, specs: Sequence[str]) -> None:
    """Print each encoder's average precision."""
    data = Correctness.from_log(read_folder(path))
    data = data.rows(np.flatnonzero(data.split != "test"))
    pairs = draw_pairs(data)
    n_alike = sum(pairs["labels"])
    if not n_alike:
        raise SystemExit(f"{path} has no near-duplicate questions: there is nothing to tell apart")
    print(f"{path.name}: {n_alike:,} near-duplicate pairs, as many random ones; mteb {mteb.__version__}")
    print(f"{'':<24}{'cosine AP':>12}{'accuracy':>12}")
    for spec in specs:
        encoder = fit_encoder(spec, [data.prompts[row] for row in data.part("train")])
        result = mteb.evaluate(AsMteb(spec, encoder), NearDuplicates(pairs), cache=None, show_progress_bar=False)
        scores = result.task_results[0].scores["test"][0]
        print(f"{spec:<24}{scores['cosine_ap']:>12.4f}{scores['cosine_accuracy']:>12.4f}", flush=True)


if __name__ == "__main__":
    main()
