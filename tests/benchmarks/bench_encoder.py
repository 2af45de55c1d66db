"""LSA by array look-up beside scikit-learn's own transform, in one run on the same questions.

Run as `python -m tests.benchmarks.bench_encoder PATH`, PATH a long-format folder; it fits both on its training
questions and prints the time of a single prompt and the throughput of a batch.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from router.encoder.lsa import MAX_FEATURES, LsaEncoder

N_WORDS = 60
N_SINGLE = 1_000
N_BATCH = 10_000

Encode = Callable[[Sequence[str]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a long-format folder with questions.csv")
    table = pd.read_csv(parser.parse_args().path / "questions.csv")
    prompts = table["prompt"].astype(str).tolist()
    train = table.loc[table["split"] == "train", "prompt"].astype(str).tolist() if "split" in table else prompts

    started = time.perf_counter()
    ours = LsaEncoder.fit(train)
    fitted = time.perf_counter()
    theirs = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=MAX_FEATURES),
        TruncatedSVD(min(ours.dim, len(train) - 1), n_iter=4, random_state=0),
    ).fit(train)
    print(f"fit on {len(train):,} questions: ours {fitted - started:.1f} s, scikit-learn {_since(fitted):.1f} s")

    words = " ".join(prompts).split()
    singles = [" ".join(words[i * N_WORDS : (i + 1) * N_WORDS]) for i in range(min(N_SINGLE, len(words) // N_WORDS))]
    batch = [prompts[i % len(prompts)] for i in range(N_BATCH)]
    with threadpool_limits(1):
        singly = _median_ms(ours.encode, singles), _median_ms(theirs.transform, singles)
        together = _throughput(ours.encode, batch), _throughput(theirs.transform, batch)
    print(f"{'':34}{'ours':>10}{'scikit-learn':>14}{'times faster':>14}")
    p50 = f"one prompt of {N_WORDS} words, p50, ms"
    print(f"{p50:34}{singly[0]:>10.3f}{singly[1]:>14.3f}{singly[1] / singly[0]:>14.1f}")
    throughput = f"batch of {N_BATCH:,}, prompts/s"
    print(f"{throughput:34}{together[0]:>10,.0f}{together[1]:>14,.0f}{together[0] / together[1]:>14.1f}")


def _median_ms(encode: Encode, prompts: Sequence[str]) -> float:
    encode(prompts[:1])  # warm
    elapsed = []
    for prompt in prompts:
        started = time.perf_counter()
        encode([prompt])
        elapsed.append(_since(started))
    return float(np.median(elapsed)) * 1e3


def _throughput(encode: Encode, prompts: Sequence[str]) -> float:
    started = time.perf_counter()
    encode(prompts)
    return len(prompts) / _since(started)


def _since(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
