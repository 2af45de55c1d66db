"""The report's charts as plotly's own JSON. Colours are left to the page, which knows whether it is light or dark.

A trace names its colour by `meta`: a role such as "ours" or the number of a category. Names come from logs and are
escaped here, because plotly reads markup in every text.
"""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from training.model_map import ModelMap
from training.report.accuracies import Accuracies
from training.report.build import Report, SingleModels
from training.report.calibration_charts import error_chart, forecast_panels, promise_chart
from training.report.probe_charts import gain_chart
from training.report.reliability import Reliability
from training.report.words import METHOD_NAMES, plain

Floats = NDArray[np.float64]

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
N_COLOURS = 8  # of categories; after that symbols change
MAP_ASPECT = 1.7  # width by height
CHARACTER_WIDTH, LINE_HEIGHT, LABEL_LIFT, POINT_RADIUS = 0.0075, 0.02, 0.017, 0.005  # in widths of the map


def draw(report: Report) -> dict[str, go.Figure]:
    """Make the charts that there is something to draw of, by the id of their place on the page."""
    gains = None if report.probe is None else report.probe.gains
    charts: dict[str, go.Figure | None] = {
        "curve": _cost_quality(report.comparison, report.single_models),
        "reliability": None if report.reliability is None else _reliability(report.reliability),
        "promises": promise_chart(report.promises) if report.promises else None,
        "errors": error_chart(report.errors),
        **({} if report.accuracies is None else forecast_panels(report.accuracies)),
        "accuracy": None if report.accuracies is None else _accuracy(report.accuracies),
        "map": None if report.model_map is None else _model_map(report.model_map),
        "gains": None if gains is None else gain_chart(gains),
    }
    return {name: figure for name, figure in charts.items() if figure is not None}


def _cost_quality(comparison: dict[str, Any], single: SingleModels | None) -> go.Figure | None:
    """Routing accuracy against the mean cost of a request, one line a method and one point a model alone."""
    figure = go.Figure()
    default = comparison.get("default")
    methods = comparison.get("methods") or {}
    for name in sorted(methods, key=lambda one: one == default):  # ours on top
        curve = (methods[name].get("routing") or {}).get("curve")
        if not curve:
            continue
        cost, quality = np.array(curve["cost_usd"]), np.array(curve["quality"])
        order = np.lexsort((quality, cost))
        title = plain(METHOD_NAMES.get(name, name))
        figure.add_scatter(
            x=cost[order] * 1000,
            y=quality[order],
            name=title,
            mode="lines",
            line={"width": 3.5 if name == default else 2, "dash": "solid" if name == default else "dot"},
            hovertemplate="$%{x:.3f} per 1,000 requests: %{y:.1%}<extra>" + title + "</extra>",
            meta="ours" if name == default else name,
        )
    if not figure.data:
        return None
    if single is not None:
        figure.add_scatter(
            x=single.cost_usd * 1000,
            y=single.accuracy,
            customdata=[plain(name) for name in single.names],
            name="one model for everything",
            mode="markers",
            marker={"size": 8, "symbol": "circle-open", "line": {"width": 1.5}},
            hovertemplate="%{customdata}<br>$%{x:.3f} per 1,000 requests: %{y:.1%}<extra></extra>",
            meta="quiet",
        )
    figure.update_xaxes(title="USD per 1,000 requests, logarithmic", type="log", tickprefix="$", dtick="D2")
    figure.update_yaxes(title="answered correctly", tickformat=".0%")
    return figure


def _accuracy(accuracies: Accuracies) -> go.Figure:
    """Forecast against actual accuracy, one point a model and benchmark."""
    figure = go.Figure()
    _add_diagonal(figure)
    benchmarks = sorted(set(accuracies.benchmark))
    largest = float(accuracies.n.max())
    full_size = 16 if len(accuracies.n) <= 250 else 12
    for number, benchmark in enumerate(benchmarks):
        here = np.flatnonzero([one == benchmark for one in accuracies.benchmark])
        title = plain(benchmark or "(no benchmark)")
        figure.add_scatter(
            x=accuracies.forecast[here],
            y=accuracies.actual[here],
            customdata=[[plain(accuracies.model[i]), int(accuracies.n[i])] for i in here],
            name=title,
            mode="markers",
            marker={
                "size": 4 + (full_size - 4) * np.sqrt(accuracies.n[here] / largest),
                "symbol": SYMBOLS[number // N_COLOURS % len(SYMBOLS)],
                "opacity": 0.75,
                "line": {"width": 0.7},
            },
            hovertemplate="%{customdata[0]}<br>forecast %{x:.1%}, actual %{y:.1%}, n = %{customdata[1]:,}"
            "<extra>" + title + "</extra>",
            meta=number % N_COLOURS,
        )
    figure.update_xaxes(title="forecast accuracy", tickformat=".0%", range=[-0.03, 1.03])
    figure.update_yaxes(title="actual accuracy", tickformat=".0%", range=[-0.03, 1.03])
    return figure


def _reliability(reliability: Reliability) -> go.Figure:
    """Share of right answers against P(correct), with 95% intervals."""
    figure = go.Figure()
    _add_diagonal(figure)
    figure.add_scatter(
        x=reliability.forecast,
        y=reliability.actual,
        error_y={"array": 1.96 * np.nan_to_num(reliability.error), "thickness": 1.5, "width": 4},
        customdata=reliability.n,
        name="outcomes",
        mode="lines+markers",
        line={"width": 2},
        marker={"size": 8},
        hovertemplate="P(correct) %{x:.1%}: right %{y:.1%}, n = %{customdata:,}<extra></extra>",
        meta="ours",
        showlegend=False,
    )
    figure.update_xaxes(title="P(correct), forecast", tickformat=".0%", range=[-0.03, 1.03])
    figure.update_yaxes(title="share that was right", tickformat=".0%", range=[-0.03, 1.03])
    return figure


def _model_map(model_map: ModelMap) -> go.Figure:
    """The models in two dimensions, coloured by forecast accuracy."""
    names = [plain(name) for name in model_map.names]
    labelled = _place_labels(model_map.position, [len(name) for name in model_map.names])
    figure = go.Figure()
    figure.add_scatter(
        x=model_map.position[:, 0],
        y=model_map.position[:, 1],
        text=[name if shown else "" for name, shown in zip(names, labelled, strict=True)],
        customdata=names,
        mode="markers+text",
        textposition="top center",
        textfont={"size": 10.5},
        cliponaxis=False,
        marker={
            "size": 11,
            "color": model_map.forecast,
            "line": {"width": 0.7},
            "colorbar": {"title": {"text": "forecast<br>accuracy"}, "tickformat": ".0%", "thickness": 12, "len": 0.8},
        },
        hovertemplate="%{customdata}<br>forecast accuracy %{marker.color:.1%}<extra></extra>",
        meta="scale",
        showlegend=False,
    )
    shares = model_map.shares
    figure.update_xaxes(title=f"first component, {shares[0]:.0%} of the differences", zeroline=False)
    figure.update_yaxes(title=f"second component, {shares[1]:.0%}", zeroline=False, scaleanchor="x")
    return figure


def _add_diagonal(figure: go.Figure) -> None:
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        meta="quiet",
        showlegend=False,
    )


def _place_labels(position: Floats, lengths: list[int]) -> list[bool]:
    """Choose the names that fit above their points without covering each other or a point, outlying models first."""
    across, up = np.ptp(position, axis=0)
    unit = position / (max(across, up * MAP_ASPECT) or 1)  # (M, 2), in widths of the chart
    middle = unit + np.array([0, LABEL_LIFT])  # (M, 2), where a name stands
    half = CHARACTER_WIDTH / 2 * np.array(lengths)
    shown = np.zeros(len(unit), dtype=bool)
    for i in np.argsort(-np.linalg.norm(unit - unit.mean(axis=0), axis=1)):
        apart = np.abs(middle - middle[i])  # (M, 2)
        names = shown & (apart[:, 0] < half + half[i]) & (apart[:, 1] < LINE_HEIGHT)
        from_points = np.abs(unit - middle[i])
        points = (from_points[:, 0] < half[i] + POINT_RADIUS) & (from_points[:, 1] < LINE_HEIGHT / 2 + POINT_RADIUS)
        points[i] = False
        shown[i] = not (names.any() or points.any())
    return shown.tolist()
