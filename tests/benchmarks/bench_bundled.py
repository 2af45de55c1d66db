"""The bundled encoder beside LSA and with it: cross-fitted forecasts, and what a prompt costs.

    python -m tests.benchmarks.bench_bundled PATH ... [--shares 0.3 0.5 0.6] [--test]

PATH: long-format folders. Folds are dealt from the train and val questions by near-duplicate group, and the test
questions are not read; with --test what ships is fitted on train and val as `train` does, and test is read. LSA is
fitted, and the bundled encoder was trained, on texts of the train split, not on labels. Differences to LSA alone are
paired, with 95% intervals by bootstrap over the groups.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from data.importers.long import read_folder
from router.encoder.bundled import BundledEncoder
from router.encoder.joined import BUNDLED_SHARE
from router.encoder.lsa import LsaEncoder
from router.encoder.registry import fit_encoder
from router.surface import describe
from tests.benchmarks.cross_fitted import Forecasts, beside, cross_fit
from training.dataset import Correctness
from training.evaluate import hide_test
from training.fit import fit_scorer

N_TOKENS = 32
N_TIMED = 300
SENTENCE = "A train leaves the station at 7 and another one at 9 : when do they meet ?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="long-format folders")
    parser.add_argument(
        "--shares", nargs="*", type=float, default=[BUNDLED_SHARE], help="of the bundled encoder beside LSA"
    )
    parser.add_argument("--test", action="store_true", help="read the test questions, for reporting")
    arguments = parser.parse_args()
    bundled = BundledEncoder()
    for path in arguments.paths:
        if arguments.test:
            report(path)
        else:
            compare(path, bundled, arguments.shares)
    with threadpool_limits(1):
        latency(bundled)


def compare(path: Path, bundled: BundledEncoder, shares: Sequence[float]) -> None:
    """Print each encoder's cross-fitted losses on a log."""
    data = Correctness.from_log(read_folder(path))
    data = data.rows(np.flatnonzero(data.split != "test"))
    lsa = LsaEncoder.fit([data.prompts[row] for row in data.part("train")])
    of_words = lsa.encode(data.prompts)
    started = time.perf_counter()
    of_model = bundled.encode(data.prompts)
    seconds = time.perf_counter() - started
    vectors = {"lsa": of_words, "bundled": of_model}
    vectors |= {f"both, {share:g} bundled": beside(of_words, of_model, share) for share in shares}
    print(f"\n{path.name}: {data.n_questions:,} questions, {data.n_models} models; bundled: {seconds:.0f} s to encode")
    print(Forecasts(data, {name: cross_fit(data, of) for name, of in vectors.items()}).table("lsa"), flush=True)


def report(path: Path) -> None:
    """Print each encoder's losses on a log's test questions, its forecasts being what `train` would ship."""
    data = Correctness.from_log(read_folder(path))
    test = data.part("test")
    forecasts = {}
    for spec in ("lsa", "bundled", "lsa+bundled"):
        vectors = fit_encoder(spec, [data.prompts[row] for row in data.learnable("train")]).encode(data.prompts)
        scorer = fit_scorer(hide_test(data), vectors).scorer
        forecasts[spec] = scorer.p_correct(vectors[test], describe([data.prompts[row] for row in test]))
    print(f"\n{path.name}: {len(test):,} test questions")
    print(Forecasts(data.rows(test), forecasts).table("lsa"), flush=True)


def latency(bundled: BundledEncoder) -> None:
    """Print what one prompt of N_TOKENS tokens takes on one core, never seen before and seen."""
    words = SENTENCE.split()
    prompts = [" ".join((words[i:] + words) * 2) for i in range(10)]
    while any(_n_tokens(bundled, prompt) > N_TOKENS for prompt in prompts):
        prompts = [p if _n_tokens(bundled, p) <= N_TOKENS else p[:-1] for p in prompts]
    n_tokens = _n_tokens(bundled, prompts[0])
    print(f"\none prompt of {n_tokens} tokens, one core, ms: p50, best, p90 (wall), and CPU")
    ways: dict[str, Callable[[list[str]], object]] = {"new": bundled.compute, "seen": bundled.encode}
    for name, encode in ways.items():
        wall = []
        cpu = time.thread_time()
        for i in range(N_TIMED):
            started = time.perf_counter()
            encode([prompts[i % 10]])
            wall.append(time.perf_counter() - started)
        cpu = (time.thread_time() - cpu) / N_TIMED
        best, p50, p90 = np.quantile(wall, [0.0, 0.5, 0.9]) * 1e3
        print(f"{name:<6}{p50:8.3f}{best:8.3f}{p90:8.3f}{cpu * 1e3:8.3f}")


def _n_tokens(bundled: BundledEncoder, prompt: str) -> int:
    return sum(map(len, bundled.tokenize(prompt)))


if __name__ == "__main__":
    main()
