"""How long a search of labelled questions takes: python -m tests.benchmarks.bench_evidence [logs/ ...]

Without logs, on random vectors in clusters. Of a log in the long format, on its own questions, encoded by LSA. The
search is exact; recall@10 beside a product in double precision says whether single precision changes that.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from data.importers.long import read_folder
from router.encoder.lsa import LsaEncoder
from router.evidence import Evidence, build_evidence

DIM = 192
K = 10
N_QUERIES = 200


def clustered(n_questions: int, seed: int = 0) -> Evidence:
    """An index of random vectors about a thousand centres, as questions of benchmarks are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1000, DIM))
    vectors = (centres[rng.integers(1000, size=n_questions)] + rng.normal(size=(n_questions, DIM))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Evidence(
        encoder_fingerprint="random",
        watermark=1,
        n_left_out=0,
        model_names=("model",),
        questions=[(str(i), "", "train", "") for i in range(n_questions)],
        vectors=vectors,
        starts=np.arange(n_questions + 1),
        models=np.zeros(n_questions, dtype=np.int32),
        labels=np.ones(n_questions, dtype=np.float32),
        counts=np.ones(n_questions, dtype=np.int32),
    )


def measure(name: str, evidence: Evidence, seed: int = 1) -> None:
    """Search for questions of the index, a little displaced, and print how long that took and what it found."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(evidence.n_questions, size=N_QUERIES)
    noise = rng.normal(size=(N_QUERIES, evidence.vectors.shape[1])) * 0.3 / np.sqrt(evidence.vectors.shape[1])
    queries = (evidence.vectors[rows] + noise).astype(np.float32)
    seconds, hits = [], 0
    double = evidence.vectors.astype(np.float64)
    for query in queries:
        started = time.perf_counter()
        found = evidence.nearest(query, K)
        seconds.append(time.perf_counter() - started)
        exact = np.argsort(-(double @ query), kind="stable")[:K]
        wanted = {evidence.questions[row][0] for row in exact}
        hits += len(wanted & {neighbour.question_id for neighbour in found})
    p50, p99 = statistics.median(seconds), float(np.quantile(seconds, 0.99))
    recall = hits / (N_QUERIES * min(K, evidence.n_questions))
    mebibytes = evidence.vectors.nbytes / 2**20
    print(
        f"{name:28}{evidence.n_questions:>9,} x {evidence.vectors.shape[1]:<4}{p50 * 1e3:9.2f}{p99 * 1e3:9.2f}"
        f"{recall:11.4f}{mebibytes:9.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="*", type=Path, help="folders in the long format")
    arguments = parser.parse_args()
    print(f"{'questions':28}{'index':>16}{'p50 ms':>9}{'p99 ms':>9}{'recall@10':>11}{'MiB':>9}")
    for folder in arguments.logs:
        log = read_folder(folder)
        measure(folder.name, build_evidence(log, LsaEncoder.fit(log.questions["prompt"].tolist())))
    for n_questions in (10_000, 50_000, 200_000):
        measure("random, clustered", clustered(n_questions))


if __name__ == "__main__":
    main()
