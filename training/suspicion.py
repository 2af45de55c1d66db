"""Labels that do not look like what the logs knew: the reason to refuse a promotion that no score would give.

Two looks at the outcomes added since the champion was made:

- On pairs of a model and a question that were observed before, or are added more than once: do they contradict each
  other more often than the logs' own repeats do?
- On pairs that were never observed, where nothing can be contradicted: does the champion, on benchmarks that it
  forecasts better than a coin toss, do worse than a coin toss? Swapped labels and noise look so; a new benchmark, on
  which a good champion may well fail, is left out. Noise that keeps below a coin toss passes here, and has to show in
  the gate's comparison on held-out outcomes as they stood.

Each look is taken at every source, at all of them together, so that splitting a bad log does not hide it, and at
every model, so that one bad model in a large log does not drown.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sqlalchemy import Engine

from data.queries import RepeatRate
from router.artifact import Artifact
from training.dataset import Correctness
from training.held_out import mean_and_error
from training.metrics import Cells, nll_by_cell
from training.vectors import question_vectors

PRIOR_DISAGREEMENT = 0.04  # two independent runs of one model agree on about 96% of questions
PRIOR_PAIRS = 50  # how many repeated pairs that belief weighs against the logs' own
LEVEL = 0.01  # one-sided
MIN_PAIRS = 20
N_NAMED = 5
MAX_QUESTIONS = 2_000  # of the never observed ones, how many the champion is asked about
COIN_TOSS = float(np.log(2))
ALL_SOURCES = "all sources together"


@dataclass(frozen=True)
class Finding:
    """What became of one condition: passed or not, in a sentence (empty where there was nothing to say) and figures."""

    name: str
    passed: bool
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Count:
    """Contradictions among the labels that one source added, or of one model over all sources."""

    what: str
    n_pairs: int
    n_contradicting: int
    p_value: float
    n_models: int
    worst_models: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Look:
    """How likely the champion finds never observed labels of one source, or of one model over all sources."""

    what: str
    n_pairs: int
    n_groups: int
    nll: float
    error: float


def contradicting_labels(additions: pd.DataFrame, repeats: RepeatRate) -> Finding:
    """Test, for each source, for all together and for each model, whether added labels contradict too often.

    additions: as `data.queries.additions` gives them.
    """
    usual = (repeats.n_disagreeing + PRIOR_DISAGREEMENT * PRIOR_PAIRS) / (repeats.n_pairs + PRIOR_PAIRS)
    together = _over_all_sources(additions)
    sources = [_count(f"source {name}", rows, usual) for name, rows in additions.groupby("source")]
    pooled = _count(ALL_SOURCES, together, usual)
    models = [_count(f"model {name}", rows, usual) for name, rows in together.groupby("model_name")]
    figures = {
        "usual_rate": usual,
        "n_repeated_pairs": repeats.n_pairs,
        "n_pairs": pooled.n_pairs,
        "n_contradicting": pooled.n_contradicting,
        "sources": [
            {"source": one.what.removeprefix("source "), "n_pairs": one.n_pairs, "n_contradicting": one.n_contradicting}
            for one in sources
        ],
    }
    # the most telling of the three: whole sources, else what they add up to, else single models
    bad = [one for one in sources if _too_many(one, LEVEL)]
    bad = bad or [one for one in [pooled] if _too_many(one, LEVEL)]
    bad = bad or [one for one in models if _too_many(one, LEVEL / max(len(models), 1))]
    if bad:
        return Finding("contradictions", False, "; ".join(_accuse(one, usual, repeats) for one in bad), figures)
    if not pooled.n_pairs:
        sentence = "no label was added to a model and question that had one"
    else:
        sentence = (
            f"added labels contradict others of the same model and question in {pooled.n_contradicting:,} of "
            f"{pooled.n_pairs:,} comparisons, no more often than is usual ({usual:.1%})"
        )
    return Finding("contradictions", True, sentence, figures)


def unlikely_labels(
    engine: Engine, champion: Artifact, familiar: frozenset[str], added: Correctness, additions: pd.DataFrame
) -> Finding:
    """Test whether labels of pairs never observed before are less likely than a coin toss to a champion that knows.

    familiar: the benchmarks that the champion forecasts better than a coin toss; added: the added outcomes as a grid.
    """
    name = "unlikely_labels"
    new = additions[
        (additions["n_earlier"] == 0)
        & additions["model_name"].isin(champion.model_names)
        & additions["benchmark"].isin(familiar)
    ]
    keys = np.unique(new["question"].to_numpy(dtype=np.int64))
    if len(keys) > MAX_QUESTIONS:
        keys = np.sort(np.random.default_rng(0).choice(keys, MAX_QUESTIONS, replace=False))
        new = new[new["question"].isin(keys)]
    if new.empty:
        return Finding(name, True, "", {"n_pairs": 0})
    asked = added.rows(np.flatnonzero(np.isin(added.keys, keys)))
    p = champion.p_correct_of(
        question_vectors(engine, champion.encoder, asked), asked.prompts
    )  # (n_questions, n_models)
    row = np.searchsorted(asked.keys, new["question"].to_numpy(dtype=np.int64))
    column = [champion.model_names.index(model) for model in new["model_name"]]
    rate = (new["n_right"] / new["n"]).to_numpy(dtype=np.float64)
    loss = nll_by_cell(Cells(row, rate, p[row, column], asked.n_questions))
    groups = new["group"].to_numpy(dtype=np.int64)
    source, model = new["source"].to_numpy(), new["model_name"].to_numpy()
    sources = [_look(f"source {one}", loss, groups, source == one) for one in np.unique(source)]
    pooled = _look(ALL_SOURCES, loss, groups, np.ones(len(new), dtype=bool))
    models = [_look(f"model {one}", loss, groups, model == one) for one in np.unique(model)]
    bad = [one for one in sources if _too_unlikely(one, LEVEL)]
    bad = bad or [one for one in [pooled] if _too_unlikely(one, LEVEL)]
    bad = bad or [one for one in models if _too_unlikely(one, LEVEL / len(models))]
    figures = {
        "n_pairs": len(new),
        "champion_nll": pooled.nll,
        "suspects": [{"what": one.what, "n_pairs": one.n_pairs, "champion_nll": one.nll} for one in bad],
    }
    if bad:
        return Finding(name, False, "; ".join(_doubt(one) for one in bad), figures)
    sentence = f"labels on {len(new):,} pairs never observed before look like earlier ones to the champion"
    return Finding(name, True, f"{sentence} (NLL {pooled.nll:.4f})", figures)


def familiar_benchmarks(cells: Cells, benchmarks: NDArray[np.str_]) -> frozenset[str]:
    """Where the champion's held-out forecasts beat a coin toss; benchmarks: of shape (n_questions,)."""
    loss, benchmark = nll_by_cell(cells), benchmarks[cells.question]
    return frozenset(
        str(one)
        for one in np.unique(benchmark)
        if (here := benchmark == one).sum() >= MIN_PAIRS and loss[here].mean() < COIN_TOSS
    )


def _over_all_sources(additions: pd.DataFrame) -> pd.DataFrame:
    """Add sources up: one row a question and model."""
    return additions.groupby(["question", "model_name"], as_index=False).agg(
        n=("n", "sum"),
        n_right=("n_right", "sum"),
        n_earlier=("n_earlier", "first"),
        n_earlier_right=("n_earlier_right", "first"),
    )


def _count(what: str, rows: pd.DataFrame, usual: float) -> _Count:
    """Compare added with earlier observations, and repeated additions with each other.

    A pair counts by the share of its comparisons that disagree, so that many repeats weigh no more than one.
    """
    n, right = rows["n"].to_numpy(np.float64), rows["n_right"].to_numpy(np.float64)
    n_earlier, earlier_right = (rows[name].to_numpy(np.float64) for name in ("n_earlier", "n_earlier_right"))
    has_earlier, repeats = n_earlier > 0, n > 1
    rate, earlier_rate = right / n, earlier_right / np.where(has_earlier, n_earlier, 1)
    across = np.where(has_earlier, rate * (1 - earlier_rate) + earlier_rate * (1 - rate), 0)
    within = np.where(repeats, 2 * right * (n - right) / np.where(repeats, n * (n - 1), 1), 0)
    n_pairs = int(has_earlier.sum() + repeats.sum())
    n_contradicting = round(float((across + within).sum()))
    by_model = pd.Series(across + within).groupby(rows["model_name"].to_numpy()).sum().sort_values(ascending=False)
    worst = tuple((str(name), round(count)) for name, count in by_model.head(N_NAMED).items() if round(count))
    p_value = float(binomtest(n_contradicting, n_pairs, usual, alternative="greater").pvalue) if n_pairs else 1.0
    return _Count(what, n_pairs, n_contradicting, p_value, int((by_model >= 0.5).sum()), worst)


def _too_many(count: _Count, level: float) -> bool:
    return count.n_pairs >= MIN_PAIRS and count.p_value < level


def _look(what: str, loss: NDArray[np.float64], groups: NDArray[np.int64], here: NDArray[np.bool_]) -> _Look:
    nll, error = mean_and_error(loss[here], groups[here])
    return _Look(what, int(here.sum()), len(np.unique(groups[here])), nll, error)


def _too_unlikely(look: _Look, level: float) -> bool:
    return bool(look.n_groups >= MIN_PAIRS and look.nll - norm.isf(level) * look.error > COIN_TOSS)


def _doubt(look: _Look) -> str:
    return (
        f"labels of {look.what} on {look.n_pairs:,} pairs never observed before, in benchmarks that the champion "
        f"knows, are less likely to it than a coin toss: NLL {look.nll:.4f} (standard error {look.error:.4f}) "
        f"against {COIN_TOSS:.4f}"
    )


def _accuse(count: _Count, usual: float, repeats: RepeatRate) -> str:
    known = (
        f"{usual:.1%} is usual between repeats in the logs before"
        if repeats.n_pairs
        else f"{usual:.1%} is taken as usual, the logs before hold no repeats"
    )
    models = ", ".join(f"{name} {n:,}" for name, n in count.worst_models)
    more = count.n_models - len(count.worst_models)
    return (
        f"labels of {count.what} contradict others of the same model and question in {count.n_contradicting:,} of "
        f"{count.n_pairs:,} comparisons ({count.n_contradicting / count.n_pairs:.1%}; {known}): "
        f"{models}{f' and {more} more models' if more > 0 else ''}"
    )
