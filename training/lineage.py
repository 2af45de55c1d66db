"""Families and sizes of models, as far as names tell them, and whether models' predictions go with either.

Permutation tests: which model has which name is shuffled, so a p-value is the share of shuffles that look as strong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.family import family_of

Floats = NDArray[np.float64]

N_PERMUTATIONS = 5000
MIN_MODELS = 6  # with a size in their names: fewer shuffle into too few orders
RIDGE = 1.0  # in mean squared lengths of a direction

_BILLIONS = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])")


@dataclass(frozen=True)
class Family:
    """One family's mean distance between members over that between any two models: below 1 they are nearer."""

    name: str
    n_models: int
    ratio: float
    p_value: float


@dataclass(frozen=True)
class Families:
    """Whether models of a family lie nearer than chance.

    ratio: the mean distance of pairs within a family over that of all pairs; expected: its mean under shuffled names;
    families: those of two models or more, the nearest first.
    """

    ratio: float
    expected: float
    p_value: float
    n_models: int
    n_pairs: int
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Sizes:
    """Whether the number of parameters goes with what models predict, on the models whose names state it.

    level_correlation: of log parameters with models' mean logits; explained: the share of log parameters' variance that
    a ridge regression on the other directions forecasts of models left out, negative where it is worse than their mean.
    """

    n_models: int
    level_correlation: float
    level_p_value: float
    explained: float
    explained_p_value: float


def parameters_of(name: str) -> float | None:
    """Read a model's parameters, in billions, from its name: 70 of 70B, 56 of 8x7B; the largest where several stand."""
    found = _BILLIONS.findall(name.lower().replace("_", "-"))
    return max((int(experts or 1) * float(size) for experts, size in found), default=None)


def judge_families(names: Sequence[str], distance: Floats, seed: int = 0) -> Families | None:
    """Test on distances between models, (M, M); None without a family of two, or where all models are one family."""
    distinct, family = np.unique([family_of(name) for name in names], return_inverse=True)
    counts = np.bincount(family)
    if counts.max(initial=0) < 2 or len(distinct) < 2:
        return None
    first, second = np.triu_indices(len(names), k=1)
    apart = distance[first, second]
    everyone = float(apart.mean())
    if everyone <= 0:
        return None
    order = np.argsort(np.random.default_rng(seed).random((N_PERMUTATIONS, len(names))), axis=1)
    shuffles = np.vstack([np.arange(len(names)), order])  # the first is as it is
    total = np.zeros((len(shuffles), len(distinct)))
    for row, shuffle in enumerate(shuffles):
        member = family[shuffle]
        same = np.flatnonzero(member[first] == member[second])
        total[row] = np.bincount(member[first[same]], weights=apart[same], minlength=len(distinct))
    n_pairs = counts * (counts - 1) // 2
    ratio = total.sum(axis=1) / n_pairs.sum() / everyone  # (1 + n_permutations,)
    several = np.flatnonzero(counts >= 2)
    by_family = total[:, several] / n_pairs[several] / everyone
    families = [
        Family(str(distinct[f]), int(counts[f]), float(by_family[0, i]), _share_as_low(by_family[:, i]))
        for i, f in enumerate(several)
    ]
    return Families(
        ratio=float(ratio[0]),
        expected=float(ratio[1:].mean()),
        p_value=_share_as_low(ratio),
        n_models=len(names),
        n_pairs=int(n_pairs.sum()),
        families=tuple(sorted(families, key=lambda one: one.ratio)),
    )


def judge_sizes(names: Sequence[str], position: Floats, level: Floats, seed: int = 0) -> Sizes | None:
    """Test on models' positions (M, K), level set aside, and levels (M,); None where too few names state a size."""
    sizes = [parameters_of(name) for name in names]
    stated = np.array([size is not None and size > 0 for size in sizes])
    if stated.sum() < MIN_MODELS:
        return None
    y = np.log([size for size in sizes if size])
    if np.ptp(y) == 0:
        return None
    n = len(y)
    order = np.argsort(np.random.default_rng(seed).random((N_PERMUTATIONS, n)), axis=1)
    shuffled = y[np.vstack([np.arange(n), order])]  # (1 + n_permutations, n), the first as it is
    correlation = _correlations(shuffled, level[stated])
    explained = _explained(position[stated], shuffled)
    return Sizes(
        n_models=n,
        level_correlation=float(correlation[0]),
        level_p_value=_share_as_low(-np.abs(correlation)),
        explained=float(explained[0]),
        explained_p_value=_share_as_low(-explained),
    )


def state_p_value(value: float) -> str:
    """A p-value as text; the number of permutations bounds how small it can be."""
    return f"p = {value:.4f}" if value < 0.01 else f"p = {value:.2f}"


def _explained(position: Floats, y: Floats) -> Floats:
    """1 less the squared error of leave-one-out ridge forecasts over that of leave-one-out means, for rows of y."""
    x = position - position.mean(axis=0)
    penalty = RIDGE * float(np.square(x).sum()) / max(x.shape[1], 1) + 1e-12
    design = x.T @ x + penalty * np.eye(x.shape[1])
    hat = x @ np.linalg.solve(design, x.T) + 1 / len(x)  # (n, n), the mean included
    residual = (y - y @ hat) / (1 - np.diag(hat))
    about_mean = (y - y.mean(axis=1, keepdims=True)) / (1 - 1 / len(x))
    share: Floats = 1 - np.square(residual).sum(axis=1) / np.square(about_mean).sum(axis=1)
    return share


def _correlations(y: Floats, x: Floats) -> Floats:
    """Pearson's correlation of every row of y with x, 0 where x is constant."""
    x = x - x.mean()
    y = y - y.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(y, axis=1) * np.linalg.norm(x)
    correlation: Floats = np.divide(y @ x, scale, out=np.zeros(len(y)), where=scale > 0)
    return correlation


def _share_as_low(statistic: Floats) -> float:
    """The p-value of the first entry among all (Phipson and Smyth 2010: never 0); ties count against it."""
    return float(np.mean(statistic <= statistic[0] + 1e-12))
