"""The report's charts of promises kept: intervals beside the truth, chosen models, calibration errors."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from training.promises import Ece, Promise
from training.report.accuracies import Accuracies
from training.report.words import plain

N_PANELS = 6  # of benchmarks, those with most outcomes
MIN_MODELS = 3  # in a panel
N_ERRORS = 16  # calibration errors by name, beside that of all outcomes


def forecast_panels(accuracies: Accuracies) -> dict[str, go.Figure]:
    """One chart for each of the largest benchmarks: models by forecast, with intervals, and what was counted."""
    benchmarks = np.array(accuracies.benchmark)
    size = {str(name): int(accuracies.n[benchmarks == name].sum()) for name in np.unique(benchmarks)}
    panels: dict[str, go.Figure] = {}
    for name in sorted(size, key=lambda one: (-size[one], one)):
        here = np.flatnonzero((benchmarks == name) & accuracies.counted & ~np.isnan(accuracies.low))
        if len(here) >= MIN_MODELS and len(panels) < N_PANELS:
            panels[f"forecast-{len(panels)}"] = _panel(accuracies, here, name)
    return panels


def _panel(accuracies: Accuracies, here: np.ndarray[tuple[int], np.dtype[np.int64]], benchmark: str) -> go.Figure:
    here = here[np.argsort(accuracies.forecast[here], kind="stable")]
    rank = np.arange(1, len(here) + 1)
    low, high, actual = accuracies.low[here], accuracies.high[here], accuracies.actual[here]
    names = np.array([plain(accuracies.model[i]) for i in here])
    figure = go.Figure()
    figure.add_scatter(x=rank, y=low, mode="lines", line={"width": 0}, hoverinfo="skip", meta="band", showlegend=False)
    figure.add_scatter(
        x=rank, y=high, mode="lines", line={"width": 0}, fill="tonexty", hoverinfo="skip", meta="band", showlegend=False
    )
    figure.add_scatter(
        x=rank,
        y=accuracies.forecast[here],
        mode="lines",
        line={"width": 2},
        hoverinfo="skip",
        meta="ours",
        showlegend=False,
    )
    outside = (actual < low) | (actual > high)
    for chosen, role in ((~outside, "truth"), (outside, "outside")):
        if chosen.any():
            custom = [
                [names[i], accuracies.forecast[here[i]], low[i], high[i], int(accuracies.n[here[i]])]
                for i in np.flatnonzero(chosen)
            ]
            figure.add_scatter(
                x=rank[chosen],
                y=actual[chosen],
                customdata=custom,
                mode="markers",
                marker={"size": 6, "line": {"width": 0.5}},
                hovertemplate="%{customdata[0]}<br>forecast %{customdata[1]:.1%}, 90% from %{customdata[2]:.1%} to "
                "%{customdata[3]:.1%}<br>counted %{y:.1%}, n = %{customdata[4]:,}<extra></extra>",
                meta=role,
                showlegend=False,
            )
    title = plain(benchmark or "(no benchmark)")
    inside = f"{int((~outside).sum())} of {len(here)} inside"
    figure.update_layout(title={"text": f"<b>{title}</b>  {inside}", "font": {"size": 13}, "x": 0, "xref": "paper"})
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, range=[0, len(here) + 1])
    bottom = max(0.0, min(float(low.min()), float(actual.min())) - 0.05)
    figure.update_yaxes(tickformat=".0%", range=[bottom, 1.03], nticks=6)
    return figure


def promise_chart(promises: Sequence[Promise]) -> go.Figure:
    """What was promised of the chosen models beside the share that was right, with 95% intervals."""
    labels = ["most<br>likely" if one.threshold is None else f"≥ {one.threshold:g}" for one in promises]
    right = np.array([one.right for one in promises])
    bounds = np.array([one.ci95 for one in promises])
    n = [one.n for one in promises]
    figure = go.Figure()
    figure.add_scatter(
        x=labels,
        y=right,
        error_y={
            "array": np.nan_to_num(bounds[:, 1] - right),
            "arrayminus": np.nan_to_num(right - bounds[:, 0]),
            "thickness": 1.5,
            "width": 4,
        },
        customdata=n,
        name="share right",
        mode="markers",
        marker={"size": 9},
        hovertemplate="%{x}: right %{y:.1%} of %{customdata:,} questions<extra></extra>",
        meta="ours",
    )
    figure.add_scatter(
        x=labels,
        y=[one.promised for one in promises],
        customdata=n,
        name="promised",
        mode="markers",
        marker={"size": 13, "symbol": "diamond-open", "line": {"width": 2}},
        hovertemplate="%{x}: promised %{y:.1%}, on %{customdata:,} questions<extra></extra>",
        meta="outside",
    )
    title = {"text": "chosen: the most likely, or the cheapest above min_p_correct", "standoff": 14}
    figure.update_xaxes(title=title, type="category")
    figure.update_yaxes(tickformat=".0%", title="answered correctly")
    return figure


def error_chart(errors: Sequence[Ece]) -> go.Figure | None:
    """Calibration errors overall and by benchmark, beside what a perfectly calibrated forecaster shows."""
    by_benchmark = sorted((one for one in errors if one.name.startswith("benchmark ")), key=lambda one: -one.n)
    shown = [one for one in errors if one.name == "all"] + by_benchmark[:N_ERRORS]
    if not shown:
        return None
    shown.reverse()  # the first on top
    names = [plain(one.name.removeprefix("benchmark ") or "(no benchmark)") for one in shown]
    figure = go.Figure()
    figure.add_bar(
        x=[one.perfect_95 for one in shown],
        y=names,
        orientation="h",
        name="perfect calibration, 95% of the time below",
        width=0.6,
        customdata=[one.perfect for one in shown],
        hovertemplate="%{y}: a perfect forecaster shows %{customdata:.4f}, 95% below %{x:.4f}<extra></extra>",
        meta="shade",
    )
    figure.add_scatter(
        x=[one.ece for one in shown],
        y=names,
        name="EmbedRouter",
        mode="markers",
        marker={"size": 9},
        customdata=[one.n for one in shown],
        hovertemplate="%{y}: ECE %{x:.4f}, n = %{customdata:,}<extra></extra>",
        meta="ours",
    )
    figure.update_xaxes(title="expected calibration error", rangemode="tozero")
    figure.update_yaxes(type="category", showgrid=False)
    return figure
