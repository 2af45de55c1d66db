"""The comparison as a table for people, 80 columns wide; the same figures as `--json`."""

from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

COLUMNS = (
    ("accuracy", "acc", max),
    ("auc", "AUC", max),
    ("auc_within_question", "AUC/q", max),
    ("nll", "NLL", min),
    ("brier", "Brier", min),
    ("ece", "ECE", min),
    ("routing_accuracy", "routing", max),
)
NAMES = {
    "model_mean": "model mean",
    "benchmark_mean": "model × benchmark¹",
    "knn": "kNN",
    "embedllm_mf": "EmbedLLM's procedure",
    "best_single": "best single model",
    "oracle": "oracle",
    "random": "random model",
}


def comparison_table(figures: dict[str, Any]) -> Group:
    """Lay out methods and references, the best of each column in bold, and say what the figures mean."""
    dataset, methods = figures["dataset"], figures["methods"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column(f"{dataset['n_test_questions']:,} test questions", no_wrap=True)
    for _, title, _ in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    best = {
        measure: better([m[measure] for m in methods.values() if m[measure] is not None], default=None)
        for measure, _, better in COLUMNS
    }
    for name, method in methods.items():
        title = NAMES.get(name, name)
        cells = [_cell(method[measure], best[measure]) for measure, _, _ in COLUMNS]
        table.add_row(f"[bold]{title}[/bold]" if name == figures["default"] else title, *cells)
    table.add_section()
    for name, value in figures["references"].items():
        table.add_row(NAMES[name], *[""] * (len(COLUMNS) - 1), _cell(value, None))
    return Group(table, Text(), *(Text(line, style="dim") for line in _notes(figures)))


def _notes(figures: dict[str, Any]) -> list[str]:
    """What stands below the table: intervals, differences, and how routing was counted."""
    methods, default = figures["methods"], figures["default"]
    ours = methods[default]
    titles = {measure: title for measure, title, _ in COLUMNS}
    notes = [f"95% of {default}: " + ", ".join(f"{titles[m]} {_between(bounds)}" for m, bounds in ours["ci95"].items())]
    notes += [
        f"NLL less that of {NAMES.get(name, name).rstrip('¹')}: {ours['nll'] - method['nll']:+.4f} "
        f"({_between(method['default_minus_this_ci95']['nll'], '+.4f')})"
        for name, method in methods.items()
        if name != default
    ]
    notes.append("¹ is told the question's benchmark; the others see its prompt alone")
    if n := figures["protocol"].get("n_left_out"):
        notes.append(f"{n:,} questions were left out of the fit: the encoder has learned from their outcomes")
    if n := figures["protocol"].get("n_near_test"):
        notes.append(
            f"{n:,} train and val questions were left out of every fit: they are near-duplicates of test questions, "
            "though the log states another split for them"
        )
    routing = ours.get("routing")
    if routing is None:
        notes.append("routing: not counted, too few models answered 95% of the train questions")
    else:
        notes.append(
            f"routing: how often the chosen model was right, {routing['n_questions']:,} questions, "
            f"{routing['n_models']} of {figures['dataset']['n_models']} models (seen on 95% of train)"
        )
        notes.append(f"best single model: {figures['best_single_model']}, chosen on train")
    return notes + _cost_notes(figures.get("cost_forecast"))


def _cost_notes(error: dict[str, Any] | None) -> list[str]:
    """How wrong the expected lengths and costs of answers are, beside models' means."""
    if error is None:
        return ["cost: not judged, no test answer's length is in the log"]
    notes = []
    for name, n_models in (("tokens", error["n_models"]), ("cost", error["n_priced_models"])):
        ours = error[name]
        if ours is None:
            notes.append("cost of answers: not judged, no model with logged lengths has a price")
            continue
        mean = ours["model_mean"]
        low, high = ours["minus_model_mean_ci95"]["relative_error"]
        within, mean_within = (np.exp(m["median_absolute_log_error"]) for m in (ours, mean))
        notes.append(
            f"{name} of answers, {n_models} models: half within a factor of {within:.2f}, absolute error "
            f"{ours['relative_error']:.1%} of the total (model mean {mean_within:.2f}, {mean['relative_error']:.1%}; "
            f"difference {low:+.1%} to {high:+.1%})"
        )
    if n_estimated := error["n_models_estimated_from_characters"]:
        notes.append(f"answers' tokens of {n_estimated} models are estimated: their characters / 4")
    return notes


def _cell(value: float | None, best: float | None) -> str:
    if value is None:
        return "–"
    shown = f"{value:.4f}"
    return f"[bold]{shown}[/bold]" if value == best else shown


def _between(bounds: tuple[float, float], shape: str = ".3f") -> str:
    return f"{bounds[0]:{shape}} to {bounds[1]:{shape}}"
