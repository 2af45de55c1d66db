"""What a search of labelled questions takes and finds: python -m tests.benchmarks.bench_evidence [logs/ ...]

Without logs on synthetic vectors, in clusters: of a thousand topics, few of them large, whose questions differ in a few
directions, as an encoder's do. Of a log in the long format on its own questions, encoded by LSA. What is searched for
are questions that are not in the index, one at a time; recall is recall@10 beside a product in double precision, and
what the index states of itself stands before it. Each row is a process of its own; its peak memory is that of building,
with the interpreter and the vectors, which are as large as the file. The extra `faiss` has to be installed.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.importers.long import read_folder
from router.encoder.base import Vectors
from router.encoder.lsa import LsaEncoder
from router.evidence import Evidence, load_evidence, save_evidence
from router.evidence_search import Approximate, Exact, approximate

DIM = 192
N_TOPICS, N_DIRECTIONS = 1_000, 48
K = 10
N_QUERIES = 200
BLOCK = 20_000
METHODS: dict[str, Callable[[Vectors], Exact | Approximate]] = {"exact": Exact, "faiss": approximate}


def clustered(n: int, seed: int = 0) -> Vectors:
    """Synthetic vectors of unit length, of shape (n, DIM), a topic's size falling as one over its rank."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((N_TOPICS, DIM), dtype=np.float32)
    directions = rng.standard_normal((N_DIRECTIONS, DIM), dtype=np.float32) / np.float32(N_DIRECTIONS**0.5)
    share = 1 / np.arange(1, N_TOPICS + 1)
    vectors = np.empty((n, DIM), dtype=np.float32)
    for start in range(0, n, BLOCK):
        block = vectors[start : start + BLOCK]
        block[:] = centres[rng.choice(N_TOPICS, size=len(block), p=share / share.sum())]
        block += rng.standard_normal((len(block), N_DIRECTIONS), dtype=np.float32) @ directions
        block += rng.standard_normal(block.shape, dtype=np.float32) / 4
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def encoded(folder: Path) -> Vectors:
    """The vectors of a log's questions that have any direction, in no order."""
    prompts = read_folder(folder).questions["prompt"].tolist()
    vectors = LsaEncoder.fit(prompts).encode(prompts)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    some = length[:, 0] > 0
    return np.random.default_rng(0).permutation((vectors[some] / length[some]).astype(np.float32))


def indexed(search: Exact | Approximate, n: int) -> Evidence:
    return Evidence(
        encoder_fingerprint="benchmark",
        watermark=1,
        n_left_out=0,
        model_names=("model",),
        questions=[(str(i), "", "train", "") for i in range(n)],
        search=search,
        starts=np.arange(n + 1),
        models=np.zeros(n, dtype=np.int32),
        labels=np.ones(n, dtype=np.float32),
        counts=np.ones(n, dtype=np.int32),
    )


def measure(name: str, source: int | Path, method: str) -> None:
    """Build, keep, load and search an index, and print what that took and found."""
    vectors = clustered(source + N_QUERIES) if isinstance(source, int) else encoded(source)
    queries, stored = vectors[:N_QUERIES], vectors[N_QUERIES:]
    started = time.perf_counter()
    search = METHODS[method](stored)
    build_s = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "evidence.safetensors"
        save_evidence(indexed(search, len(stored)), kept)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        del search
        started = time.perf_counter()
        evidence = load_evidence(kept, "benchmark")
        load_s = time.perf_counter() - started
        file = kept.stat().st_size / 2**20
    assert evidence is not None
    seconds, hits = [], 0
    for query in queries:
        started = time.perf_counter()
        found = evidence.nearest(query, K)
        seconds.append(time.perf_counter() - started)
        hits += len(_truly(stored, query) & {int(neighbour.question_id) for neighbour in found})
    searched = evidence.search
    read = f"{searched.index.nprobe}/{searched.index.nlist}" if isinstance(searched, Approximate) else "all"
    p50, p99 = statistics.median(seconds) * 1e3, float(np.quantile(seconds, 0.99)) * 1e3
    print(
        f"{name:14}{len(stored):>9,} x {stored.shape[1]:<5}{method:7}"
        f"{build_s:8.1f}{peak:10.0f}{file:10.0f}{load_s:8.2f}{1 / statistics.mean(seconds):11.0f}"
        f"{p50:9.2f}{p99:9.2f}{read:>10}{searched.recall_at_10:9.4f}{hits / (N_QUERIES * K):9.4f}",
        flush=True,
    )


def _truly(stored: Vectors, query: np.ndarray) -> set[int]:
    near = np.argpartition(-(stored @ query), 10 * K)[
        : 10 * K
    ]  # single precision cannot put one of ten below a hundred
    return set(near[np.argsort(-(stored[near].astype(np.float64) @ query), kind="stable")[:K]].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="*", type=Path, help="folders in the long format")
    parser.add_argument("--sizes", nargs="*", type=int, default=[300_000], help="of synthetic vectors")
    arguments = parser.parse_args()
    print(
        f"{'questions':14}{'index':>17}{'search':>9}{'build s':>8}{'peak MiB':>10}{'file MiB':>10}{'load s':>8}"
        f"{'queries/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'read':>10}{'stated':>9}{'recall':>9}"
    )
    spawn = multiprocessing.get_context("spawn")
    rows = [(folder.name, folder) for folder in arguments.logs] + [("synthetic", size) for size in arguments.sizes]
    for name, source in rows:
        for method in METHODS:
            process = spawn.Process(target=measure, args=(name, source, method))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
