"""How often logs disagree with themselves where one model was observed on one question more than once.

A repeat tells something only if it was observed anew. Two things look like repeats and are none: a row of a later
import of the same source is a correction, and a source that says the same as an earlier one nearly everywhere is that
log again under another name, perhaps edited.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_SHARED_PAIRS = 50  # fewer tell little of a source, and weigh little in the rate
COPY_DISAGREEMENT = 0.01  # independent runs of a model that samples its answers disagree more often


@dataclass(frozen=True)
class RepeatRate:
    """How often the logs disagree with themselves.

    n_pairs counts the models and questions that were observed more than once; n_disagreeing adds up, over these, the
    share of pairs of observations with different labels, which more repeats do not raise.
    """

    n_pairs: int
    n_disagreeing: float


def rate_repeats(rows: pd.DataFrame) -> RepeatRate:
    """Rate the repeats among counts of observations.

    rows: one a question, model, source and import: `question`, `model`, `source`, `import_id`, `first` (the id of
    its first outcome), `n` and `n_right`.
    """
    if rows.empty:
        return RepeatRate(0, 0.0)
    pair = rows["question"] * (rows["model"].max() + 1) + rows["model"]  # one number for both
    counts = rows.assign(pair=pair).astype({"n": np.float64, "n_right": np.float64}).sort_values("first")
    kept = _without_copies(counts.drop_duplicates(["pair", "source"]))  # what each source said at first
    pairs = kept.groupby("pair")[["n", "n_right"]].sum()
    pairs = pairs[pairs["n"] > 1]
    n, n_right = pairs["n"], pairs["n_right"]
    disagreeing = 2 * n_right * (n - n_right) / (n * (n - 1))  # of two of its observations, drawn at random
    return RepeatRate(len(pairs), float(disagreeing.sum()))


def _without_copies(counts: pd.DataFrame) -> pd.DataFrame:
    """Leave out what a source repeats of an earlier one that it is a copy of; counts in order of their age."""
    by_source = {str(source): rows.set_index("pair") for source, rows in counts.groupby("source")}
    kept: dict[str, pd.DataFrame] = {}
    for source in counts["source"].unique():
        rows = by_source[source]
        for earlier in kept.values():
            shared = rows.index.intersection(earlier.index)
            if len(shared) >= MIN_SHARED_PAIRS and _disagreement(rows, earlier, shared) <= COPY_DISAGREEMENT:
                rows = rows[~rows.index.isin(shared)]
        kept[source] = rows
    return pd.concat(kept.values()).reset_index()


def _disagreement(one: pd.DataFrame, other: pd.DataFrame, shared: pd.Index) -> float:
    """How often an observation of one source differs from one of the other, over the pairs that both have."""
    p, q = (rows.loc[shared, "n_right"] / rows.loc[shared, "n"] for rows in (one, other))
    return float((p * (1 - q) + q * (1 - p)).mean())
