"""The labelled questions nearest to a prompt, with each model's record on them.

Exact cosine similarity over arrays: one product of a matrix and a vector. An index is built from the logs and the
champion's encoder and kept in one file (`router.evidence_index` says when); this module knows neither SQL nor HTTP.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data.log import CorrectnessLog
from router.encoder.base import Encoder, Vectors
from router.ids import new_id

FORMAT_VERSION = 1
MAX_QUESTIONS = 200_000  # what is searched exactly within a few tens of milliseconds; beyond it, the newest
EXCERPT_CHARS = 300
ARRAYS = ("vectors", "starts", "models", "labels", "counts")
CHUNK = 1_000  # prompts encoded at once


@dataclass(frozen=True)
class Record:
    """How one model did on one question: `label` is the mean of `n` observations."""

    model: str
    label: float
    n: int


@dataclass(frozen=True)
class Neighbour:
    """A labelled question near a prompt; `similarity` is the cosine of their vectors."""

    question_id: str
    benchmark: str
    split: str
    prompt: str
    similarity: float
    records: tuple[Record, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "question_id": self.question_id,
            "benchmark": self.benchmark,
            "split": self.split,
            "prompt": self.prompt,
            "similarity": round(self.similarity, 4),
            "models": {r.model: {"correct": round(r.label, 4), "n": r.n} for r in self.records},
        }


@dataclass(frozen=True)
class Evidence:
    """An index of labelled questions.

    vectors: float32 of shape (n_questions, dim), rows of unit length, or zero where the encoder knows nothing of a
    question; starts: of shape (n_questions + 1,), where each question's cells begin in models, labels and counts, each
    of shape (n_cells,), models being positions in `model_names`. `questions` are (id, benchmark, split, excerpt).
    """

    encoder_fingerprint: str
    watermark: int
    n_left_out: int
    model_names: tuple[str, ...]
    questions: Sequence[Sequence[str]]
    vectors: Vectors
    starts: NDArray[np.int64]
    models: NDArray[np.int32]
    labels: NDArray[np.float32]
    counts: NDArray[np.int32]

    @property
    def n_questions(self) -> int:
        return len(self.questions)

    def nearest(self, vector: NDArray[np.float32], k: int) -> list[Neighbour]:
        """The k questions of the greatest cosine with a vector of shape (dim,), the nearest first; ties by age."""
        length = float(np.linalg.norm(vector))
        if not self.n_questions or not length:
            return []
        similarity = self.vectors @ (vector / np.float32(length))  # (Q,)
        k = min(k, self.n_questions)
        top = np.argpartition(-similarity, k - 1)[:k]
        least = similarity[top].min()
        tied = np.flatnonzero(similarity >= least)  # a tie at the edge must not depend on the partition
        order = tied[np.lexsort((tied, -similarity[tied]))][:k]
        return [self._neighbour(int(row), float(similarity[row])) for row in order]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        cells = range(int(self.starts[row]), int(self.starts[row + 1]))
        records = (
            Record(self.model_names[self.models[cell]], float(self.labels[cell]), int(self.counts[cell]))
            for cell in cells
        )
        question_id, benchmark, split, prompt = self.questions[row]
        return Neighbour(question_id, benchmark, split, prompt, similarity, tuple(records))


def build_evidence(
    log: CorrectnessLog,
    encoder: Encoder,
    *,
    max_questions: int = MAX_QUESTIONS,
    known: Mapping[int, NDArray[np.float32]] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Evidence:
    """Index the questions of a log that have outcomes; the newest `max_questions` where there are more.

    `known` holds vectors of questions that were encoded before, by their keys.
    """
    cells = log.cells.sort_values(["question", "model"], kind="stable")
    asked, starts = np.unique(cells["question"].to_numpy(np.int64), return_index=True)
    kept = asked[-max_questions:]
    first = int(starts[len(asked) - len(kept)]) if len(kept) else 0
    ends = np.append(starts[len(asked) - len(kept) :], len(cells)) - first
    table = log.questions.iloc[kept]
    columns = (table[name].astype(str).tolist() for name in ("question_id", "benchmark", "split"))
    prompts = table["prompt"].tolist()
    vectors = np.zeros((len(kept), encoder.dim), dtype=np.float32)  # (Q, D)
    missing: list[int] = []
    for row, key in enumerate(table["key"].tolist()):
        if known and key in known:
            vectors[row] = known[key]
        else:
            missing.append(row)
    for start in range(0, len(missing), CHUNK):
        rows = missing[start : start + CHUNK]
        vectors[rows] = encoder.encode([prompts[row] for row in rows])
        on_progress(f"encoded {start + len(rows):,} of {len(missing):,} labelled questions")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, length, out=vectors, where=length > 0)
    seen = cells.iloc[first:]
    return Evidence(
        encoder_fingerprint=encoder.fingerprint,
        watermark=log.watermark,
        n_left_out=len(asked) - len(kept),
        model_names=tuple(log.models["model_name"].tolist()),
        questions=list(zip(*columns, (_excerpt(prompt) for prompt in prompts), strict=True)),
        vectors=vectors,
        starts=ends.astype(np.int64),
        models=seen["model"].to_numpy(np.int32),
        labels=seen["label"].to_numpy(np.float32),
        counts=seen["n_observations"].to_numpy(np.int32),
    )


def save_evidence(evidence: Evidence, path: Path) -> None:
    """Keep an index in one file, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {
        "format_version": FORMAT_VERSION,
        "encoder_fingerprint": evidence.encoder_fingerprint,
        "watermark": evidence.watermark,
        "n_left_out": evidence.n_left_out,
        "model_names": evidence.model_names,
        "questions": evidence.questions,
    }
    arrays = {name: np.ascontiguousarray(getattr(evidence, name)) for name in ARRAYS}
    draft = path.with_name(f".{path.name}-{new_id()}")
    try:
        save_file(arrays, draft, {"evidence": json.dumps(words)})
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load_evidence(path: Path, encoder_fingerprint: str) -> Evidence | None:
    """Bring back an index that was kept for this encoder, if there is one."""
    try:
        with safe_open(path, "np") as file:
            words = json.loads(file.metadata()["evidence"])
            if (words.pop("format_version"), words["encoder_fingerprint"]) != (FORMAT_VERSION, encoder_fingerprint):
                return None
            words["model_names"] = tuple(words["model_names"])
            words["questions"] = [tuple(question) for question in words["questions"]]
            return Evidence(**words, **{name: file.get_tensor(name) for name in ARRAYS})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _excerpt(prompt: str) -> str:
    cut = prompt if len(prompt) <= EXCERPT_CHARS else f"{prompt[: EXCERPT_CHARS - 1]}…"
    return cut.encode("utf-8", "replace").decode()
