"""The labelled questions nearest to a prompt, with each model's record on them.

An index is built from the logs and the champion's encoder and kept in one file (`router.evidence_index` says when);
`router.evidence_search` finds its nearest vectors. This module knows neither SQL nor HTTP.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data.log import CorrectnessLog
from router.encoder.base import Encoder
from router.evidence_search import EXTRA, Approximate, Exact, approximate, faiss_installed
from router.ids import new_id
from router.spool import hold

FORMAT_VERSION = 2
MAX_QUESTIONS = 200_000  # what is searched exactly within a few tens of milliseconds
EXCERPT_CHARS = 300
ARRAYS = ("starts", "models", "labels", "counts")
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

    search: over one vector a question, of unit length, or zero where the encoder knows nothing of it; starts: of shape
    (n_questions + 1,), where each question's cells begin in models, labels and counts, each of shape (n_cells,), models
    being positions in `model_names`. `questions` are (id, benchmark, split, excerpt), the oldest first.
    """

    encoder_fingerprint: str
    watermark: int
    n_left_out: int
    model_names: tuple[str, ...]
    questions: Sequence[Sequence[str]]
    search: Exact | Approximate
    starts: NDArray[np.int64]
    models: NDArray[np.int32]
    labels: NDArray[np.float32]
    counts: NDArray[np.int32]

    @property
    def n_questions(self) -> int:
        return len(self.questions)

    def nearest(self, vector: NDArray[np.float32], k: int) -> list[Neighbour]:
        """The k questions of the greatest cosine with a vector of shape (dim,), the nearest first; ties by age.

        All of them where the search is exact; else about `recall_at_10` of them.
        """
        length = float(np.linalg.norm(vector))
        if not self.n_questions or not length:
            return []
        found = self.search.nearest(vector / np.float32(length), k)
        return [self._neighbour(int(row), float(near)) for row, near in zip(found.rows, found.similarity, strict=True)]

    def fits(self, max_questions: int) -> bool:
        """Whether an index of the same logs, built now, would hold as many questions and search them this way."""
        n_labelled = self.n_questions + self.n_left_out
        if n_labelled > max_questions and faiss_installed():
            return self.n_left_out == 0 and isinstance(self.search, Approximate)
        return self.n_questions == min(n_labelled, max_questions) and isinstance(self.search, Exact)

    @property
    def note(self) -> str | None:
        """What a reader of results should know of the questions that are not in the index."""
        if not self.n_left_out:
            return None
        return f"the {self.n_left_out:,} oldest labelled questions are left out: {EXTRA} indexes them too"

    def summary(self) -> dict[str, object]:
        """How much is searched, and how: the part that explanations print beside the neighbours."""
        return {
            "n_questions": self.n_questions,
            "n_left_out": self.n_left_out,
            "search": self.search.method,
            "recall_at_10": round(self.search.recall_at_10, 4),
            "note": self.note,
        }

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
    """Index the questions of a log that have outcomes.

    Up to `max_questions` are searched exactly. Where there are more, faiss indexes them all; without it, the newest
    `max_questions` are kept. `known` holds vectors of questions that were encoded before, by their keys.
    """
    cells = log.cells.sort_values(["question", "model"], kind="stable")
    asked, starts = np.unique(cells["question"].to_numpy(np.int64), return_index=True)
    by_faiss = len(asked) > max_questions and faiss_installed()
    kept = asked if by_faiss else asked[-max_questions:]
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
        search=approximate(vectors) if by_faiss else Exact(vectors),
        starts=ends.astype(np.int64),
        models=seen["model"].to_numpy(np.int32),
        labels=seen["label"].to_numpy(np.float32),
        counts=seen["n_observations"].to_numpy(np.int32),
    )


def save_evidence(evidence: Evidence, path: Path) -> None:
    """Keep an index in one file, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words: dict[str, object] = {
        "encoder_fingerprint": evidence.encoder_fingerprint,
        "watermark": evidence.watermark,
        "n_left_out": evidence.n_left_out,
        "model_names": evidence.model_names,
        "questions": evidence.questions,
    }
    arrays = {name: np.ascontiguousarray(getattr(evidence, name)) for name in ARRAYS}
    if isinstance(evidence.search, Exact):
        arrays["vectors"] = np.ascontiguousarray(evidence.search.vectors)
    else:
        words["recall_at_10"] = evidence.search.recall_at_10
        arrays["faiss"] = evidence.search.as_bytes()
    # not in the header, which may not be larger than 100 MB
    arrays["words"] = np.frombuffer(json.dumps(words).encode(), dtype=np.uint8)
    _clear_drafts(path)
    folder = path.with_name(f".{path.name}-{new_id()}")  # of its own: a process that is killed leaves more than a draft
    folder.mkdir()
    lock = hold(folder)
    try:
        save_file(arrays, folder / path.name, {"format_version": str(FORMAT_VERSION)})
        (folder / path.name).replace(path)
    finally:
        _remove(folder, lock)


def _clear_drafts(path: Path) -> None:
    """Remove what processes left that were killed while they saved."""
    for folder in path.parent.glob(f".{path.name}-*/"):
        if (lock := hold(folder)) is not None:
            _remove(folder, lock)


def _remove(folder: Path, lock: Connection | None) -> None:
    if lock is not None:
        lock.close()
    shutil.rmtree(folder, ignore_errors=True)


def load_evidence(path: Path, encoder_fingerprint: str) -> Evidence | None:
    """Bring back an index that was kept for this encoder, if there is one."""
    try:
        with safe_open(path, "np") as file:
            if file.metadata()["format_version"] != str(FORMAT_VERSION):
                return None
            words = json.loads(file.get_tensor("words").tobytes())
            if words["encoder_fingerprint"] != encoder_fingerprint:
                return None
            words["model_names"] = tuple(words["model_names"])
            words["questions"] = [tuple(question) for question in words["questions"]]
            search = _read_search(file, words.pop("recall_at_10", None))
            return Evidence(**words, search=search, **{name: file.get_tensor(name) for name in ARRAYS})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ImportError, RuntimeError):
        return None  # faiss, where it is there, raises RuntimeError for what it cannot read


def _read_search(file: Any, recall_at_10: float | None) -> Exact | Approximate:
    if recall_at_10 is None:
        return Exact(file.get_tensor("vectors"))
    index, at = file.get_slice("faiss"), 0

    def read(n_bytes: int) -> bytes:
        nonlocal at
        block: bytes = index[at : at + n_bytes].tobytes()
        at += len(block)
        return block

    return Approximate.read(read, recall_at_10)  # a block at a time: an index is large, and the one before still serves


def _excerpt(prompt: str) -> str:
    cut = prompt if len(prompt) <= EXCERPT_CHARS else f"{prompt[: EXCERPT_CHARS - 1]}…"
    return cut.encode("utf-8", "replace").decode()
