"""Learn how fast models answer, from answers that were timed: first-token time and seconds a token."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import theilslopes

from router.costs import Pace

FEWEST_TIMINGS = 20  # timed answers below which a pace stays unknown
NEWEST_TIMINGS = 500  # of a model, that its pace is taken from


def fit_pace(timings: pd.DataFrame, model_names: Sequence[str]) -> Pace:
    """Learn first-token time and seconds a token from timed answers; NaN for a model with fewer than twenty.

    timings: one row an answer, the newest last: `model_name`, `latency_s`, `output_tokens`, and `first_token_s` where
    it was seen (else NaN). With it, a pace is medians; without, the line of latency over tokens (Theil 1950, Sen
    1968), which a few stuck answers do not move; where lengths hardly differ no line can be drawn.
    """
    pace = Pace.unknown(len(model_names))
    by_model = {name: rows.tail(NEWEST_TIMINGS) for name, rows in timings.groupby("model_name")}
    for m, name in enumerate(model_names):
        rows = by_model.get(name)
        if rows is not None:
            pace.first_token_s[m], pace.s_per_token[m] = _pace_of(rows)
    return pace


def _pace_of(rows: pd.DataFrame) -> tuple[float, float]:
    seen = rows[rows["first_token_s"].notna() & (rows["output_tokens"] > 0)]
    if len(seen) >= FEWEST_TIMINGS:
        s_per_token = (seen["latency_s"] - seen["first_token_s"]).clip(lower=0) / seen["output_tokens"]
        return float(seen["first_token_s"].median()), float(s_per_token.median())
    tokens, latency = rows["output_tokens"].to_numpy(np.float64), rows["latency_s"].to_numpy(np.float64)
    if len(rows) < FEWEST_TIMINGS or np.quantile(tokens, 0.75) <= np.quantile(tokens, 0.25):
        return np.nan, np.nan
    slope = max(float(theilslopes(latency, tokens).slope), 0.0)  # a longer answer takes no less time
    first_token_s = float(np.median(latency - slope * tokens))
    if first_token_s < 0:  # longer answers are faster a token, so the line would begin before the request
        return 0.0, float(np.median(latency) / np.median(tokens))
    return first_token_s, slope
