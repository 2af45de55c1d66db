"""The report as one HTML file that needs nothing else: no network, no fonts, plotly's script inlined once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from training.report.accuracies import Accuracies
from training.report.build import Report, SingleModels
from training.report.charts import draw
from training.report.measured import KINDS, sum_up_measured
from training.report.probe_charts import gain_height
from training.report.words import (
    METHOD_NAMES,
    METHOD_NOTES,
    describe_data,
    signed,
    sum_up_errors,
    sum_up_probe,
    sum_up_promises,
    summarize,
)

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = (
    ("accuracy", "accuracy", max),
    ("auc", "AUC", max),
    ("auc_within_question", "AUC within question", max),
    ("nll", "NLL", min),
    ("brier", "Brier", min),
    ("ece", "ECE", min),
    ("routing_accuracy", "routing accuracy", max),
)
REFERENCE_NAMES = {"best_single": "best single model", "oracle": "oracle", "random": "random model"}


@dataclass(frozen=True)
class Cell:
    """One figure of the comparison, as shown."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One row of the comparison: a method, or a reference that no forecast changes."""

    name: str
    note: str
    cells: tuple[Cell, ...]
    is_default: bool = False
    is_reference: bool = False


@dataclass(frozen=True)
class Tile:
    """One figure in large type, and what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class AccuracyRow:
    """One model on one benchmark."""

    model: str
    benchmark: str
    forecast: float
    actual: float
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class QualityRow:
    """One method's cost-quality curve in figures, as shown."""

    name: str
    aiq: str
    beyond_single: str
    cost_at_best_single: str
    is_default: bool


@dataclass(frozen=True)
class Choice:
    """One candidate that cross-validation judged, as shown."""

    name: str
    nll: str
    is_chosen: bool


def write_page(report: Report, output: Path) -> None:
    """Write the report, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.draft")
    draft.write_text(render(report), encoding="utf-8")
    draft.replace(output)


def render(report: Report) -> str:
    """Lay the report out as HTML; every name in it is text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    charts = draw(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        dataset=report.comparison.get("dataset") or {},
        tiles=tiles(report.comparison),
        data=describe_data(report.comparison),
        summary=summarize(report.comparison),
        columns=[title for _, title, _ in COLUMNS],
        lines=comparison_lines(report.comparison),
        has_intervals=any(method.get("ci95") for method in (report.comparison.get("methods") or {}).values()),
        routing=_routing(report.comparison),
        accuracy_rows=[] if report.accuracies is None else accuracy_rows(report.accuracies),
        quality_rows=quality_rows(report.comparison, report.single_models),
        promises_text=sum_up_promises(report.promises) if report.promises else "",
        errors_text=sum_up_errors(report.errors) if report.errors else "",
        findings=[] if report.probe is None else sum_up_probe(report.probe),
        gain_height=0 if report.probe is None or report.probe.gains is None else gain_height(report.probe.gains),
        choices=choices(report.comparison),
        measured=[(one, sum_up_measured(one)) for one in report.measured],
        not_measured=[kind for kind in KINDS if kind.name not in {one.kind.name for one in report.measured}],
        panels=[name for name in charts if name.startswith("forecast-")],
        charts=charts,
        figures=as_script(charts),
        plotly=Markup(get_plotlyjs()),
    )


def tiles(comparison: dict[str, Any]) -> list[Tile]:
    """The few figures that a reader takes away."""
    methods = comparison.get("methods") or {}
    ours = methods.get(comparison.get("default")) or {}
    references = comparison.get("references") or {}
    shown: list[Tile] = []
    if ours.get("nll") is not None:
        shown.append(Tile(f"{ours['nll']:.3f}", "NLL of P(correct), lower is better"))
    if ours.get("auc") is not None:
        shown.append(Tile(f"{ours['auc']:.3f}", "AUC, right before wrong"))
    if ours.get("routing_accuracy") is not None:
        single = references.get("best_single")
        beside = "" if single is None else f", {single:.1%} by the best single model"
        shown.append(Tile(f"{ours['routing_accuracy']:.1%}", f"answered correctly when routed{beside}"))
    gap = (ours.get("routing") or {}).get("gap_closed")
    if gap is not None:
        shown.append(Tile(f"{gap:.0%}".replace("-", "\N{MINUS SIGN}"), "of the gap from best single to oracle closed"))
    return shown


def accuracy_rows(accuracies: Accuracies) -> list[AccuracyRow]:
    """Every model on every benchmark, by model."""
    rows = [
        AccuracyRow(
            model,
            accuracies.benchmark[i],
            float(accuracies.forecast[i]),
            float(accuracies.actual[i]),
            int(accuracies.n[i]),
            None if np.isnan(accuracies.low[i]) else float(accuracies.low[i]),
            None if np.isnan(accuracies.high[i]) else float(accuracies.high[i]),
        )
        for i, model in enumerate(accuracies.model)
    ]
    return sorted(rows, key=lambda row: (row.model, row.benchmark))


def quality_rows(comparison: dict[str, Any], single: SingleModels | None) -> list[QualityRow]:
    """Every method's area under the cost-quality curve, and by how much it lies above mixing single models."""
    rows = []
    for name, method in (comparison.get("methods") or {}).items():
        routing = method.get("routing") or {}
        aiq, cost = routing.get("aiq"), routing.get("cost_at_best_single")
        if aiq is not None:
            beyond = "–" if single is None else signed(100 * (aiq - single.aiq), ".1f")
            reached = "never" if cost is None else f"{cost:.0%}"
            title = METHOD_NAMES.get(name, name)
            rows.append(QualityRow(title, f"{aiq:.4f}", beyond, reached, name == comparison.get("default")))
    return rows


def choices(comparison: dict[str, Any]) -> dict[str, list[Choice]]:
    """What cross-validation chose among, by what is chosen: the noise of text's forecasts, the share of trees."""
    fit = comparison.get("fit") or {}
    noises = [
        Choice(f"{one['noise']:,g}", f"{one['nll']:.4f}", one["noise"] == fit.get("noise"))
        for one in fit.get("by_noise") or []
    ]
    shares = [
        Choice(f"{one['share']:.0%}", f"{one['nll']:.4f}", one["share"] == fit.get("forest_share"))
        for one in fit.get("by_forest_share") or []
    ]
    return {title: found for title, found in (("noise level", noises), ("share of trees", shares)) if found}


def comparison_lines(comparison: dict[str, Any]) -> list[Line]:
    """The comparison's rows: every method, the best of each column marked, then the references."""
    methods = comparison.get("methods") or {}
    best = {
        measure: better((m[measure] for m in methods.values() if m.get(measure) is not None), default=None)
        for measure, _, better in COLUMNS
    }
    lines = [
        Line(
            name=METHOD_NAMES.get(name, name),
            note=METHOD_NOTES.get(name, ""),
            cells=tuple(
                _cell(method.get(measure), (method.get("ci95") or {}).get(measure), best[measure])
                for measure, _, _ in COLUMNS
            ),
            is_default=name == comparison.get("default"),
        )
        for name, method in methods.items()
    ]
    bounds = comparison.get("reference_ci95") or {}
    for name, value in (comparison.get("references") or {}).items():
        if value is not None:
            note = comparison.get("best_single_model") or "" if name == "best_single" else ""
            blank = (Cell(""),) * (len(COLUMNS) - 1)
            cells = (*blank, _cell(value, bounds.get(name), None))
            lines.append(Line(REFERENCE_NAMES.get(name, name), note, cells, is_reference=True))
    return lines


def as_script(charts: dict[str, go.Figure]) -> Markup:
    """The charts as JSON that can stand inside a script element: no `<` is left to end it."""
    figures = {name: json.loads(figure.to_json()) for name, figure in charts.items()}
    for figure in figures.values():
        figure["layout"].pop("template", None)  # the page brings its own colours
    text = json.dumps(figures, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _routing(comparison: dict[str, Any]) -> dict[str, Any]:
    methods = comparison.get("methods") or {}
    return (methods.get(comparison.get("default")) or {}).get("routing") or {}


def _cell(value: float | None, bounds: tuple[float, float] | None, best: float | None) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(f"{value:.4f}", f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds else "", value == best)
