"""The report's chart of what embeddings know of benchmarks: a heat map of models' gains."""

import numpy as np
import plotly.graph_objects as go

from training.gains import Gains
from training.report.words import plain

N_MODELS, N_BENCHMARKS = 40, 24  # shown: those that gain or lose most
ROW_HEIGHT, MARGIN = 17, 130  # pixels


def gain_chart(gains: Gains) -> go.Figure:
    """Models by benchmarks, alike models and alike benchmarks next to each other."""
    rows = np.sort(np.argsort(-np.abs(gains.gain).max(axis=1), kind="stable")[:N_MODELS])
    columns = np.sort(np.argsort(-np.abs(gains.gain).max(axis=0), kind="stable")[:N_BENCHMARKS])
    shown = gains.gain[np.ix_(rows, columns)]
    left, _, right = np.linalg.svd(shown, full_matrices=False)
    rows, columns = rows[np.argsort(left[:, 0], kind="stable")], columns[np.argsort(right[0], kind="stable")]
    gain, counted = gains.gain[np.ix_(rows, columns)], gains.counted[np.ix_(rows, columns)]
    most = float(np.quantile(np.abs(gain), 0.98)) or 1.0
    told = [["not counted" if np.isnan(value) else f"counted {value:+.2f}" for value in row] for row in counted]
    figure = go.Figure()
    figure.add_heatmap(
        z=gain,
        x=[plain(gains.benchmarks[column] or "(none)") for column in columns],
        y=[plain(gains.models[row]) for row in rows],
        customdata=told,
        zmin=-most,
        zmax=most,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "logits"}, "thickness": 12, "len": 0.5, "y": 1, "yanchor": "top"},
        hovertemplate="%{y} on %{x}: %{z:+.2f}, %{customdata}<extra></extra>",
        meta="diverging",
    )
    figure.update_xaxes(type="category", side="top", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, dtick=1)
    return figure


def gain_height(gains: Gains) -> int:
    """Pixels that the heat map needs for every name to be read."""
    return MARGIN + ROW_HEIGHT * min(len(gains.models), N_MODELS)
