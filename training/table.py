"""The comparison as a table for people; the same figures as `--json`."""

from typing import Any

from rich.table import Table

COLUMNS = (
    ("accuracy", "accuracy", max),
    ("auc", "AUC", max),
    ("auc_within_question", "AUC within question", max),
    ("nll", "NLL", min),
    ("brier", "Brier", min),
    ("ece", "ECE", min),
    ("routing_accuracy", "routing accuracy", max),
)
NAMES = {
    "model_mean": "model mean",
    "benchmark_mean": "model × benchmark mean (told the benchmark)",
    "knn": "kNN",
    "embedllm_mf": "EmbedLLM's procedure",
    "best_single": "best single model",
    "oracle": "oracle",
    "random": "random",
}


def comparison_table(figures: dict[str, Any]) -> Table:
    """Lay out methods and references, the best of each column in bold, 95% intervals where there are some."""
    dataset, methods = figures["dataset"], figures["methods"]
    table = Table(
        title=f"{dataset['n_test_questions']:,} test questions, {dataset['n_models']} models",
        caption=_caption(figures),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for _, title, _ in COLUMNS:
        table.add_column(title, justify="right")
    best = {
        measure: better([m[measure] for m in methods.values() if m[measure] is not None], default=None)
        for measure, _, better in COLUMNS
    }
    for name, method in methods.items():
        cells = [_cell(method[measure], best[measure]) for measure, _, _ in COLUMNS]
        title = NAMES.get(name, name)
        table.add_row(f"[bold]{title}[/bold]" if name == figures["default"] else title, *cells)
        if name == figures["default"]:
            table.add_row("  95% interval", *(_interval(method["ci95"].get(m)) for m, _, _ in COLUMNS), style="dim")
    table.add_section()
    for name, value in figures["references"].items():
        title = NAMES[name] + (f" ({figures['best_single_model']})" if name == "best_single" else "")
        table.add_row(title, *[""] * (len(COLUMNS) - 1), _cell(value, None))
    return table


def _caption(figures: dict[str, Any]) -> str:
    routing = figures["methods"][figures["default"]].get("routing")
    if routing is None:
        return "Too few models answered every train question for routing accuracy to be counted."
    return (
        f"Routing accuracy over the {routing['n_models']} models seen on ≥ 95% of the train questions, "
        f"on the {routing['n_questions']:,} test questions that all of them answered."
    )


def _cell(value: float | None, best: float | None) -> str:
    if value is None:
        return "–"
    shown = f"{value:.4f}"
    return f"[bold]{shown}[/bold]" if value == best else shown


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"
