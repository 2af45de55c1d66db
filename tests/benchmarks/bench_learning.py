"""The whole table of the learning core, on long-format folders with a split column; it reads the test questions.

    python -m tests.benchmarks.bench_learning PATH... [--only SECTION...] [--quick] [--output FILE]

Sections: comparison, calibration, costs, controls, curves, onboarding, forecasts, and speed, which needs no folder.
Each is a benchmark of its own that can be run alone. Choices are made elsewhere, by cross-validation on train and val
(`bench_forecasts`); this script is for reporting, and takes about an hour for two data sets on two idle cores.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.registry import fit_encoder
from tests.benchmarks import (
    bench_benchmark_forecasts,
    bench_calibration,
    bench_controls,
    bench_costs,
    bench_fit_speed,
    bench_learning_curves,
    bench_onboarding,
    forecast_figures,
    onboarding_table,
)
from training.baselines import embedllm_mf_tuned
from training.dataset import Correctness
from training.evaluate import ALL_BASELINES, DEFAULT, compare
from training.mf import biased_mf
from training.table import comparison_table

MEASURES = ("nll", "auc", "auc_within_question", "routing_accuracy")


def comparison(path: Path, quick: bool = False) -> dict[str, Any]:
    """Fit the default and everything it is compared with; quick: without the tuned reference."""
    data = Correctness.from_log(read_folder(path))
    encoder = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in data.learnable("train")])
    methods = {**ALL_BASELINES, "biased_mf": biased_mf}
    if not quick:
        methods["embedllm_mf_tuned"] = embedllm_mf_tuned
    protocol = {"path": str(path), "encoder": DEFAULT_ENCODER}
    return compare(data, encoder.encode(data.prompts), methods=methods, protocol=protocol).figures


def render_comparison(figures: Mapping[str, Any]) -> str:
    """Lay the comparison out as text, with the paired differences that claims are made of."""
    page = StringIO()
    Console(width=120, file=page).print(comparison_table(dict(figures)))
    lines = [page.getvalue(), f"{DEFAULT} less each, 95% paired"]
    for name, method in figures["methods"].items():
        if name != DEFAULT:
            difference = method["default_minus_this_ci95"]
            shown = (f"{m} {difference[m][0]:+.4f} to {difference[m][1]:+.4f}" for m in MEASURES if difference.get(m))
            lines.append(f"{name:<20}" + "   ".join(shown))
    return "\n".join(lines)


Section = tuple[Callable[..., dict[str, Any]], Callable[..., str]]
SECTIONS: Mapping[str, Section] = {
    "comparison": (comparison, render_comparison),
    "calibration": (bench_calibration.run, bench_calibration.render),
    "costs": (bench_costs.run, bench_costs.render),
    "controls": (bench_controls.run, bench_controls.render),
    "curves": (bench_learning_curves.run, bench_learning_curves.render),
    "onboarding": (bench_onboarding.run, onboarding_table.render),
    "forecasts": (bench_benchmark_forecasts.run, forecast_figures.render),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*", help="long-format folders")
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS, "speed"], help="these sections")
    parser.add_argument("--quick", action="store_true", help="a part of each section")
    parser.add_argument("--output", type=Path, help="keep all figures in this file, as JSON")
    arguments = parser.parse_args()
    chosen = arguments.only or [*SECTIONS, "speed"]
    found: dict[str, Any] = {}
    for path in arguments.paths:
        for name in (name for name in SECTIONS if name in chosen):
            run, render = SECTIONS[name]
            _show(f"{path.name}: {name}", found, partial(run, path, quick=arguments.quick), render)
    if "speed" in chosen:
        _show("speed", found, partial(bench_fit_speed.run, quick=arguments.quick), bench_fit_speed.render)
    if arguments.output:
        arguments.output.write_text(json.dumps(found), encoding="utf-8")


def _show(title: str, found: dict[str, Any], run: Callable[[], dict[str, Any]], render: Callable[..., str]) -> None:
    started = time.perf_counter()
    found[title] = run()
    print(f"\n== {title} ({time.perf_counter() - started:.0f} s)\n{render(found[title])}", flush=True)


if __name__ == "__main__":
    main()
