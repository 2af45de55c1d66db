"""Near-duplicate questions against random ones, as a task of the mteb package: how an encoder sees likeness.

    pip install mteb
    python -m tests.benchmarks.bench_similarity PATH [--encoders lsa bundled lsa+bundled llm2vec:PATH]

PATH: a long-format folder. Pairs of one near-duplicate group are alike, as many random pairs of different groups are
not; average precision of the cosine says how well the two are told apart. Near-duplicates are found by shared words,
so that encoders of words have it easy here; MTEB's own tasks would need the network. The test questions are not read.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskPairClassification
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta

from data.importers.long import read_folder
from router.encoder.base import Encoder, Vectors
from router.encoder.registry import fit_encoder
from tests.benchmarks.near_duplicates import draw_sentences, unit_length
from training.dataset import Correctness


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

    def __init__(self, pairs: dict[str, list[str] | list[int]]) -> None:
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
        similarity: Vectors = unit_length(first) @ unit_length(second).T
        return similarity

    def similarity_pairwise(self, first: Vectors, second: Vectors) -> Vectors:
        similarity: Vectors = (unit_length(first) * unit_length(second)).sum(axis=1)
        return similarity


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
    pairs = draw_sentences(data)
    n_alike = len(pairs["labels"]) // 2
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
