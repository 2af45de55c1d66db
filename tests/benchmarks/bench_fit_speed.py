"""How fast the default fits and scores on a grid of EmbedLLM's size, beside EmbedLLM's procedure and its loader.

    python -m tests.benchmarks.bench_fit_speed [--quick]

The grid is synthetic: 112 models x 29,673 questions with vectors of 768 dimensions, outcomes drawn from a planted
low-rank model. Every measurement runs in a process of its own, whose peak memory is the kernel's high-water mark. The
machine's load is printed: other work inflates wall time, less so CPU time, and of repeated measurements the least is
taken. Both slow competitors are timed in part and extrapolated, which the table says.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from router.encoder.base import Vectors
from router.scorer import Scorer
from router.surface import describe
from training.baselines import embedllm_mf
from training.dataset import Correctness
from training.fit import fit_scorer, refit

N_MODELS, N_QUESTIONS, DIM_VECTOR = 112, 29_673, 768
RANK = 6
N_CORES = 2
PUBLISHED_EPOCHS, PUBLISHED_BATCH = 50, 2048
T = TypeVar("T")

WORDS = tuple(f"{a}{b}{c}" for a in "bdfglmprst" for b in "aeiou" for c in ("", "n", "rk", "st"))


@dataclass(frozen=True)
class Grid:
    """Synthetic logs, all train and val, with their question vectors of shape (n_questions, DIM_VECTOR)."""

    data: Correctness
    vectors: Vectors


@dataclass(frozen=True)
class Timed:
    """Seconds on the clock, seconds of CPU over all threads, and the process's peak memory in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def planted_grid(n_models: int, n_questions: int, seed: int = 0) -> Grid:
    """Draw a grid whose logits have rank RANK, half explained by the vectors, and prompts of 10 to 60 words."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(n_questions, RANK)).astype(np.float32)
    hidden = rng.normal(size=(n_questions, RANK)).astype(np.float32)
    skill = rng.normal(0, 0.7, size=(n_models, RANK))
    skill[:, 0] = 1.0  # a difficulty that all models share
    p = 1 / (1 + np.exp(-((seen + hidden) @ skill.T + rng.normal(0, 0.5, n_models))))
    label = (rng.random(p.shape) < p).astype(np.float32)
    vectors = seen @ rng.normal(size=(RANK, DIM_VECTOR)).astype(np.float32)
    vectors += rng.standard_normal((n_questions, DIM_VECTOR), dtype=np.float32)
    prompts = [" ".join(rng.choice(WORDS, size=n)) + "?" for n in rng.integers(10, 60, size=n_questions)]
    return Grid(
        Correctness(
            label=label,
            output_tokens=np.full_like(label, np.nan),
            prompts=tuple(prompts),
            benchmarks=np.full(n_questions, "synthetic"),
            keys=np.arange(n_questions),
            groups=np.arange(n_questions),
            split=np.where(np.arange(n_questions) % 10 == 0, "val", "train"),
            model_names=tuple(f"model-{m}" for m in range(n_models)),
            prices=np.full((n_models, 2), np.nan),
        ),
        vectors,
    )


def run(path: Path | None = None, quick: bool = False) -> dict[str, Any]:
    """Measure everything, each in its own process; `path` is not read. quick: a sixteenth of the questions."""
    del path
    n_questions = N_QUESTIONS // 16 if quick else N_QUESTIONS
    fit = _alone(_measure_fit, n_questions, 1 if quick else 3)
    ours = _alone(_measure_embedllm, n_questions, quick)
    published = _alone(_measure_published, n_questions, 20 if quick else 200)
    return {
        "grid": {"n_models": N_MODELS, "n_questions": n_questions, "dim_vector": DIM_VECTOR},
        "n_cores": min(N_CORES, os.cpu_count() or 1),
        "load": os.getloadavg(),
        **fit,
        "embedllm_mf": ours,
        "published_loader": published,
        "times_faster_than_embedllm_mf": _ratio(ours, fit["complete"]),
        "times_faster_than_published_loader": _ratio(published, fit["complete"]),
    }


def _ratio(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """How many times faster ours is, by the clock and by CPU time: the two agree on a machine that is idle."""
    return {kind: theirs[kind] / ours[kind] for kind in ("wall_s", "cpu_s")}


def _alone(measure: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Run a measurement in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _measure_fit(n_questions: int, n_repeats: int) -> dict[str, Any]:
    """The default's complete fit, one fit of it and of its process alone, and what the fitted scorer takes to score."""
    grid = planted_grid(N_MODELS, n_questions)
    before = peak_mb()
    with threadpool_limits(N_CORES):
        fitted, complete = timed(lambda: fit_scorer(grid.data, grid.vectors))
        process = replace(fitted, scorer=replace(fitted.scorer, forest_share=0.0))
        fits = [partial(refit, grid.data, grid.vectors, one) for one in (process, fitted)]
        process_alone, single = _least(fits, n_repeats)
    return {
        "complete": vars(complete) | {"before_mb": before},
        "single": vars(single),
        "process": vars(process_alone),
        "noise": fitted.noise,
        "scoring": measure_scoring(fitted.scorer, grid),
    }


def _least(actions: Sequence[Callable[[], object]], n_repeats: int) -> list[Timed]:
    """What each took at its best, in turns."""
    rounds = [[timed(action)[1] for action in actions] for _ in range(n_repeats)]
    return [min(times, key=lambda one: one.cpu_s) for times in zip(*rounds, strict=True)]


def measure_scoring(scorer: Scorer, grid: Grid) -> dict[str, float]:
    """Time the forward pass that ships: single prompts on one thread, then batches on one and on all cores."""
    prompts = grid.data.prompts[:1024]
    surface, vectors = describe(prompts), grid.vectors[: len(prompts)]
    embedding = scorer.embed(vectors, surface)
    with threadpool_limits(1):
        single = _median_us(lambda i: scorer.p_correct(vectors[i : i + 1], surface[i : i + 1]), 1000)
        head = _median_us(lambda i: scorer.logits(embedding[i : i + 1]), 1000)
        surface_us = _median_us(lambda i: describe(prompts[i : i + 1]), 1000)
        batch = _per_second(lambda: scorer.p_correct(vectors, surface), len(prompts))
        head_batch = _per_second(lambda: scorer.logits(embedding), len(prompts))
    with threadpool_limits(N_CORES):
        batch_all = _per_second(lambda: scorer.p_correct(vectors, surface), len(prompts))
    return {
        "p50_us": single,
        "surface_p50_us": surface_us,
        "head_p50_us": head,
        "prompts_per_s": batch,
        "prompts_per_s_all_cores": batch_all,
        "head_prompts_per_s": head_batch,
    }


def _measure_embedllm(n_questions: int, quick: bool) -> dict[str, Any]:
    """One epoch of our `embedllm_mf` on a part of the questions, scaled to all and to the published epochs."""
    grid = planted_grid(N_MODELS, n_questions)
    part = np.arange(n_questions // (2 if quick else 8))
    data, vectors = grid.data.rows(part), grid.vectors[part]
    (one,) = _least([partial(embedllm_mf, data, vectors, n_epochs=1)], 2)
    scale = n_questions / len(part) * PUBLISHED_EPOCHS
    return {
        "wall_s": one.wall_s * scale,
        "cpu_s": one.cpu_s * scale,
        "extrapolated": f"from one epoch on {len(part):,} questions to {PUBLISHED_EPOCHS} epochs on {n_questions:,}",
    }


class _Rows(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """One row a cell, as the published code reads them."""

    def __init__(self, label: NDArray[np.float32]) -> None:
        question, model = np.nonzero(~np.isnan(label))
        self.models, self.questions = torch.as_tensor(model), torch.as_tensor(question)
        self.labels = torch.as_tensor(label[question, model]).long()

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.models[index], self.questions[index], self.labels[index]


def _measure_published(n_questions: int, n_batches: int) -> dict[str, Any]:
    """Some batches of the published training loop: rows loaded one by one in their order, all threads."""
    grid = planted_grid(N_MODELS, n_questions)
    rows = _Rows(grid.data.label)
    x = torch.as_tensor(grid.vectors)
    dim = 232
    models, project, classify = nn.Embedding(N_MODELS, dim), nn.Linear(DIM_VECTOR, dim), nn.Linear(dim, 2)
    network = nn.ModuleList([models, project, classify])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-5)
    torch.set_num_threads(N_CORES)
    n_done = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for model, question, label in DataLoader(rows, PUBLISHED_BATCH, shuffle=False):
        vector = x[question]
        vector += torch.randn_like(vector) * 0.05
        loss = nn.functional.cross_entropy(classify(models(model) * project(vector)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        n_done += 1
        if n_done == n_batches:
            break
    scale = PUBLISHED_EPOCHS * np.ceil(len(rows) / PUBLISHED_BATCH) / n_done
    return {
        "wall_s": (time.perf_counter() - wall) * scale,
        "cpu_s": (time.process_time() - cpu) * scale,
        "extrapolated": f"from {n_done} batches of {PUBLISHED_BATCH:,} to {PUBLISHED_EPOCHS} epochs, "
        "without its evaluation after each",
    }


def timed(action: Callable[[], T]) -> tuple[T, Timed]:
    """Do it, and say what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, Timed(time.perf_counter() - wall, time.process_time() - cpu, peak_mb())


def peak_mb() -> float:
    """This process's peak resident memory so far, in MB.

    Linux keeps the figure of the program that started this one in `getrusage`, so its own status comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _median_us(action: Callable[[int], object], n: int) -> float:
    """The median over single calls, in microseconds; the least of three rounds, against other work on the machine."""
    medians = []
    for _ in range(3):
        elapsed = []
        for i in range(n):
            started = time.perf_counter()
            action(i % 1024)
            elapsed.append(time.perf_counter() - started)
        medians.append(float(np.median(elapsed)) * 1e6)
    return min(medians)


def _per_second(action: Callable[[], object], n: int) -> float:
    """The most prompts a second over five batches."""
    return n / min(timed(action)[1].wall_s for _ in range(5))


def render(figures: Mapping[str, Any]) -> str:
    """Lay the figures out as text, with what is aimed at."""
    grid, scoring, complete, single = (figures[name] for name in ("grid", "scoring", "complete", "single"))
    load = ", ".join(f"{one:.1f}" for one in figures["load"])
    lines = [
        f"{grid['n_models']} models x {grid['n_questions']:,} questions, {grid['dim_vector']} dimensions, "
        f"{figures['n_cores']} cores, load {load}",
        f"{'':<44}{'wall':>10}{'CPU':>10}   aimed at",
    ]
    for name, one, aim in (
        ("complete fit: path and calibration, s", complete, "<= 60"),
        ("one fit, nothing chosen, s", single, "<= 5"),
        ("  of the process alone, s", figures["process"], "<= 5"),
        (f"embedllm_mf, {PUBLISHED_EPOCHS} epochs, s, extrapolated", figures["embedllm_mf"], ""),
        ("published row-by-row loop, s, extrapolated", figures["published_loader"], ""),
    ):
        lines.append(f"{name:<44}{one['wall_s']:>10,.1f}{one['cpu_s']:>10,.1f}   {aim}")
    for name, value, aim in (
        ("peak memory, MB", complete["peak_mb"], f"< 1,500 ({complete['before_mb']:,.0f} before fitting)"),
        ("one prompt, all models, p50, us", scoring["p50_us"], "<= 1,000, one thread"),
        ("  its surface, p50, us", scoring["surface_p50_us"], ""),
        ("  low-rank head alone, p50, us", scoring["head_p50_us"], "<= 50"),
        ("prompts/s in batches, one thread", scoring["prompts_per_s"], ">= 5,000"),
        ("prompts/s in batches, all cores", scoring["prompts_per_s_all_cores"], ">= 5,000"),
        ("  low-rank head alone, prompts/s", scoring["head_prompts_per_s"], ">= 100,000"),
    ):
        lines.append(f"{name:<44}{value:>10,.1f}{'':>10}   {aim}")
    for name, ratio in (
        ("times faster than embedllm_mf", figures["times_faster_than_embedllm_mf"]),
        ("times faster than the published loop", figures["times_faster_than_published_loader"]),
    ):
        lines.append(f"{name:<44}{ratio['wall_s']:>10,.1f}{ratio['cpu_s']:>10,.1f}")
    lines += [f"{name}: {figures[name]['extrapolated']}" for name in ("embedllm_mf", "published_loader")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the questions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = run(quick=arguments.quick)
    print(json.dumps(figures) if arguments.json else render(figures))


if __name__ == "__main__":
    main()
