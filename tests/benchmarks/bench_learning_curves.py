"""How much each estimator makes of few questions and of few cells, on the test questions of a long-format folder.

    python -m tests.benchmarks.bench_learning_curves PATH [--quick] [--seed N]

The first curve takes 250 to 2,000 of the train and val questions with all their cells, the second 1% to 100% of the
cells of all questions. Larger parts hold the smaller; questions are drawn by near-duplicate group. What has no outcome
in a part is not in it, and the encoder's LSA half is fitted on the part's train questions alone; the bundled half is
not fitted anew and has read, without outcomes, all train questions of both public logs, at every point of their curves.
Every estimator has the same vectors and the same part, chooses by its val questions, and is judged on the same test
questions; differences are paired, with intervals by bootstrap over near-duplicate groups. `benchmark_mean` is told the
benchmark's name and stands for orientation only.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.registry import fit_encoder
from tests.benchmarks.paired import TestLosses
from training.dataset import Correctness
from training.estimators import ESTIMATORS
from training.evaluate import DEFAULT, hide_test

QUESTIONS = (250, 500, 1000, 2000)
SHARES = (0.01, 0.05, 0.2, 1.0)
RIVALS = ("embedllm_mf_tuned", "knn", "model_mean")
METHODS = (DEFAULT, *RIVALS, "benchmark_mean")


@dataclass(frozen=True)
class Point:
    """A part of the train and val data, with all test questions."""

    curve: str
    size: float
    data: Correctness


def points(data: Correctness, questions: tuple[int, ...], shares: tuple[float, ...], seed: int) -> Iterator[Point]:
    """Yield nested parts of the data, the smaller first; the test questions are in every one."""
    rng = np.random.default_rng(seed)
    learned = np.flatnonzero(data.split != "test")
    distinct, group = np.unique(data.groups[learned], return_inverse=True)
    place = rng.permutation(len(distinct))[group]  # groups in a random order
    in_order = learned[np.argsort(place, kind="stable")]
    draw = rng.random(data.label.shape)
    test = data.part("test")
    for n in questions:
        if n <= len(learned):
            yield Point("questions", n, data.rows(np.sort(np.concatenate([in_order[:n], test]))))
    for share in shares:
        kept = (draw < share) | (data.split == "test")[:, None]
        part = replace(data, label=np.where(kept, data.label, np.float32(np.nan)))
        answered = part.observed.any(axis=1) | (data.split == "test")
        yield Point("cells", share, part.rows(np.flatnonzero(answered)))


def run(path: Path, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Fit every method at every point; NLL on test, and the default's difference to the best of the others."""
    data = Correctness.from_log(read_folder(path))
    losses = TestLosses.of(data)
    found: list[dict[str, Any]] = []
    for point in points(data, QUESTIONS[:2] if quick else QUESTIONS, SHARES[:2] if quick else SHARES, seed):
        visible = hide_test(point.data)
        test = visible.part("test")
        encoder = fit_encoder(DEFAULT_ENCODER, [visible.prompts[row] for row in visible.learnable("train")])
        vectors = encoder.encode(visible.prompts)
        loss, seconds = {}, {}
        for name in METHODS:
            started = time.perf_counter()
            loss[name] = losses.by_question(ESTIMATORS[name](visible, vectors, seed)[test])
            seconds[name] = round(time.perf_counter() - started, 2)
        nll = {name: losses.mean(one) for name, one in loss.items()}
        best = min(RIVALS, key=lambda name: nll[name])
        found.append(
            {
                "curve": point.curve,
                "size": point.size,
                "n_questions": int((visible.split != "test").sum()),
                "n_cells": int(visible.observed.sum()),
                "nll": nll,
                "seconds": seconds,
                "best_other": best,
                "default_minus_best_other": losses.difference(loss[DEFAULT], loss[best]).figures(),
            }
        )
        print(_line(found[-1]), flush=True)
    return {
        "path": str(path),
        "seed": seed,
        "n_test_questions": len(losses.rows),
        "points": found,
        "saving": saving([point for point in found if point["curve"] == "questions"]),
    }


def saving(curve: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many times fewer questions the default needs for the NLL of the best other at the last point of a curve.

    Between points the NLL is interpolated on the logarithm of the number of questions. Where the default's first point
    is better already, the factor is only known to be larger; where its last is worse, it is below 1 and not known.
    """
    if not curve:
        return None
    last = curve[-1]
    target = last["nll"][last["best_other"]]
    size = np.log([point["size"] for point in curve])
    nll = np.minimum.accumulate([point["nll"][DEFAULT] for point in curve])  # more data never count as a loss
    if nll[-1] > target:
        return {"target_nll": target, "of": last["best_other"], "questions_needed": None, "factor": None}
    needed = float(np.exp(np.interp(-target, -nll, size)))
    return {
        "target_nll": target,
        "of": last["best_other"],
        "questions_needed": needed,
        "factor": last["size"] / needed,
        "at_least": bool(nll[0] <= target),
    }


def render(figures: Mapping[str, Any]) -> str:
    """Lay the curves out as text."""
    lines = [
        f"{figures['path']}: NLL on {figures['n_test_questions']:,} test questions, seed {figures['seed']}",
        f"{'':<18}" + "".join(f"{name:>19}" for name in METHODS) + "   default less the best other",
        *(_line(point) for point in figures["points"]),
        "encoder: the LSA half is fitted on each part's train questions; the bundled half, which is not fitted anew, "
        "has read all train questions of both public logs, without outcomes",
    ]
    saved = figures["saving"]
    if saved is None:
        return "\n".join(lines)
    target = f"the NLL of {saved['of']} at the largest number of questions ({saved['target_nll']:.4f})"
    if saved["factor"] is None:
        lines.append(f"the default does not reach {target}")
    else:
        more = "at least " if saved["at_least"] else ""
        lines.append(
            f"{more}{saved['factor']:.1f} times fewer questions: the default reaches {target} with "
            f"{saved['questions_needed']:,.0f}" + (" or fewer" if saved["at_least"] else "")
        )
    return "\n".join(lines)


def _line(point: Mapping[str, Any]) -> str:
    size = f"{point['size']:,} questions" if point["curve"] == "questions" else f"{point['size']:.0%} of the cells"
    d = point["default_minus_best_other"]
    return (
        f"{size:<18}"
        + "".join(f"{point['nll'][name]:>19.4f}" for name in METHODS)
        + f"   {d['estimate']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}) {point['best_other']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--quick", action="store_true", help="the two smallest points of each curve")
    parser.add_argument("--seed", type=int, default=0, help="of the parts and the fits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = run(arguments.path, arguments.quick, arguments.seed)
    print(json.dumps(figures) if arguments.json else "\n" + render(figures))


if __name__ == "__main__":
    main()
