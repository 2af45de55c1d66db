"""What encoding costs while serving, and LSA by array look-up beside scikit-learn's own transform.

    python -m tests.benchmarks.bench_encoder PATH [--encoder bundled]

PATH: a long-format folder. First an encoder as the router runs it, on the folder's prompts, none twice: forecast one at
a time, and by 64 clients that each send the next when they have the last. Then LSA and scikit-learn's are fitted on the
training questions, and timed on single prompts and a batch.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from router.artifact import Artifact
from router.encoder.base import Encoder
from router.encoder.lsa import MAX_FEATURES, LsaEncoder
from router.encoder.registry import fit_encoder
from router.forecasting import Forecasting
from tests.serving import planted_artifact

N_WORDS = 60
N_SINGLE = 1_000
N_BATCH = 10_000
N_CLIENTS = 64
N_FORECAST = 640

Encode = Callable[[Sequence[str]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a long-format folder with questions.csv")
    parser.add_argument("--encoder", default="bundled", help="which to serve, as `embedrouter train` takes it")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.path / "questions.csv")
    prompts = table["prompt"].astype(str).tolist()
    train = table.loc[table["split"] == "train", "prompt"].astype(str).tolist() if "split" in table else prompts
    serve(fit_encoder(arguments.encoder, train), prompts)
    compare(train, prompts)


def serve(encoder: Encoder, prompts: Sequence[str]) -> None:
    """Print an encoder's throughput and latencies one at a time and together, and how far the vectors differ."""
    asked = list(dict.fromkeys(prompts))
    asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[: 2 * N_FORECAST]]
    half = len(asked) // 2
    with tempfile.TemporaryDirectory() as folder:
        artifact = planted_artifact(Path(folder), {"a": (0.9, 0.3), "b": (0.4, 0.8)}, encoder=encoder)
    asyncio.run(_ask(artifact, ["warm"], 1))
    print(f"{half:,} forecasts with {encoder.dim} dimensions{'prompts/s':>20}{'p50, ms':>10}{'p99, ms':>10}")
    for n_clients, some in ((1, asked[:half]), (N_CLIENTS, asked[half:])):
        started = time.perf_counter()
        latencies = asyncio.run(_ask(artifact, some, n_clients))
        p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
        name = "one at a time" if n_clients == 1 else f"{n_clients} concurrent"
        print(f"{name:40}{len(some) / _since(started):>13.0f}{p50:>10.1f}{p99:>10.1f}")
    some = asked[: N_CLIENTS + 1]  # more than are kept
    together, singly = encoder.encode(some), np.vstack([encoder.encode([prompt]) for prompt in some])
    apart, length = np.abs(together - singly).max(), np.linalg.norm(singly, axis=1).mean()
    print(f"batch and single differ by at most {apart:.1e}, in vectors of mean length {length:.1f}\n")


async def _ask(artifact: Artifact, prompts: Sequence[str], n_clients: int) -> list[float]:
    """Forecast prompts by so many clients, and say how long each took, in seconds."""
    forecasting, waiting = Forecasting(deadline_s=600), iter(prompts)
    latencies = []

    async def client() -> None:
        for prompt in waiting:
            started = time.perf_counter()
            seen = await forecasting.forecast(artifact, prompt)
            assert seen.doubt is None or not prompt.strip()
            latencies.append(_since(started))

    await asyncio.gather(*(client() for _ in range(n_clients)))
    forecasting.close()
    return latencies


def compare(train: Sequence[str], prompts: Sequence[str]) -> None:
    """Print what LSA and scikit-learn's transform take for a prompt and for a batch."""
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
