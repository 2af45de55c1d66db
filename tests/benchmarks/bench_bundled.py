"""The bundled encoder beside LSA and with it: cross-fitted forecasts, and what a prompt costs.

    python -m tests.benchmarks.bench_bundled PATH ... [--shares 0.2 0.3 0.5]

PATH: long-format folders. Folds are dealt from the train and val questions by near-duplicate group, and the test
questions are not read. LSA is fitted, and the bundled encoder was trained, on texts of the train split, not on labels.
The process's noise and the forest's share are those that cross-validation chooses for LSA, the same for all.
Differences to LSA alone are paired, with 95% intervals by bootstrap over the groups.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from threadpoolctl import threadpool_limits

from data.importers.long import read_folder
from router.encoder.base import Vectors
from router.encoder.bundled import BundledEncoder
from router.encoder.joined import Part
from router.encoder.lsa import LsaEncoder
from training.alternation import FitSettings, Log, fit_path
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.folds import deal_folds
from training.metrics import Cells, auc, bootstrap_weights, interval, nll_by_cell

NOISES = (4.0, 2.0, 1.0)  # a path: its last is the one
FOREST_SHARE = 0.3
N_TOKENS = 32
N_TIMED = 300
SENTENCE = "A train leaves the station at 7 and another one at 9 : when do they meet ?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="long-format folders")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.3], help="of the bundled encoder beside LSA")
    arguments = parser.parse_args()
    bundled = BundledEncoder()
    for path in arguments.paths:
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
    for share in shares:
        sides = ((lsa, of_words, 1 - share), (bundled, of_model, share))
        joined = [Part(encoder, raw.mean(axis=0), weight).direction(raw) for encoder, raw, weight in sides]
        vectors[f"both, {share:g} bundled"] = np.hstack(joined)
    weights = bootstrap_weights(data.groups, 1000, seed=0)
    cells = {name: Cells.from_grid(data.label, cross_fit(data, of)) for name, of in vectors.items()}
    samples = {name: c.mean_by_weights(nll_by_cell(c), weights) for name, c in cells.items()}
    print(f"\n{path.name}: {data.n_questions:,} questions, {data.n_models} models; bundled: {seconds:.0f} s to encode")
    print(f"{'':<20}{'NLL':>8}{'AUC':>8}   NLL less LSA's, and 95%")
    for name, c in cells.items():
        low, high = interval(samples[name] - samples["lsa"])
        loss = nll_by_cell(c).mean()
        difference = loss - nll_by_cell(cells["lsa"]).mean()
        area = float(auc(c, np.ones(data.n_questions)))
        print(f"{name:<20}{loss:>8.4f}{area:>8.4f}   {difference:+.4f} ({low:+.4f} to {high:+.4f})", flush=True)


def cross_fit(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """Forecast every question by a scorer fitted without its fold, calibrated together; (n_questions, n_models)."""
    settings = FitSettings()
    folds = deal_folds(data.groups, settings.n_folds, seed)
    log = Log.of(data, vectors, np.arange(data.n_questions))
    p = np.zeros(data.label.shape)
    with threadpool_limits(1):
        for k in np.unique(folds):
            step = fit_path(log.rows(folds != k), NOISES, seed, settings)[-1]
            grown = step.knowing().with_forest(log.rows(folds != k), seed)
            held_out = log.rows(folds == k)
            scorer = replace(grown.scorer, forest_share=FOREST_SHARE)
            p[folds == k] = scorer.p_correct(held_out.vectors, held_out.surface)
    z = logit(np.clip(p, 1e-6, 1 - 1e-6)).astype(np.float32)
    platt = fit_platt(z, data.label)
    calibrated: NDArray[np.float64] = 1 / (1 + np.exp(-(platt.slope * z.astype(np.float64) + platt.offset)))
    return calibrated


def latency(bundled: BundledEncoder) -> None:
    """Print what one prompt of N_TOKENS tokens takes on one core, never seen before and seen."""
    words = SENTENCE.split()
    prompts = [" ".join((words[i:] + words) * 2) for i in range(10)]
    while any(len(bundled.tokenize(prompt)) > N_TOKENS for prompt in prompts):
        prompts = [p if len(bundled.tokenize(p)) <= N_TOKENS else p[:-1] for p in prompts]
    n_tokens = len(bundled.tokenize(prompts[0]))
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


if __name__ == "__main__":
    main()
