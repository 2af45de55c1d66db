"""What an answer will take: the expected length of every model's answer to a prompt, and how long that lasts.

Lengths are forecast in logarithms: log tokens[n, m] = level[m] + slope[m] . demand(x[n]), where a question's demand is
a few numbers that its text tells, shared by all models, and a model's level and slopes are how it responds. The mean
of an exponential is not the exponential of a mean, so each model's forecast is stretched by its smearing factor (Duan
1983). Arrays only: prices, requests and limits are not known here. NaN is unknown, and stays so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router.scorer import Features, Floats, Singles

DEMAND_LIMIT = 4.0  # standard deviations beyond which a prompt is as demanding as any that was logged


@dataclass(frozen=True)
class TokenForecaster:
    """Forecasts how many tokens models answer with.

    demand: of shape (n_features, R), with demand_offset of shape (R,): a question's demand, of unit variance over the
    training questions, is features @ demand + demand_offset; R = 0 knows each model's mean alone.
    level: of shape (n_models,), NaN where no answer's length is known; slope: of shape (n_models, R);
    smearing: of shape (n_models,); estimated: of shape (n_models,), 1 where lengths were taken from characters.
    """

    features: Features
    demand: Singles
    demand_offset: Singles
    level: Singles
    slope: Singles
    smearing: Singles
    estimated: NDArray[np.uint8]

    @property
    def n_models(self) -> int:
        return int(self.level.shape[0])

    def demands(self, vectors: Singles, surface: Singles) -> Singles:
        """How long an answer prompts ask for, of shape (N, R)."""
        if not self.demand.size:
            return np.zeros((len(vectors), 0), dtype=np.float32)
        return self._demands_at(self.features(vectors, surface))

    def _demands_at(self, points: Singles) -> Singles:
        demand: Singles = points @ self.demand + self.demand_offset
        return np.minimum(np.maximum(demand, -DEMAND_LIMIT), DEMAND_LIMIT)

    def tokens(self, vectors: Singles, surface: Singles) -> Floats:
        """Expect every model's answer in tokens, of shape (N, n_models); NaN where a model's lengths are unknown.

        vectors: (N, dim_vector), surface: (N, n_surface), as the scorer takes them.
        """
        return self._tokens_of(self.demands(vectors, surface))

    def tokens_at(self, points: Singles) -> Floats:
        """The same from points of shape (N, n_features) that `features` made."""
        none = np.zeros((len(points), 0), dtype=np.float32)
        return self._tokens_of(self._demands_at(points) if self.demand.size else none)

    def _tokens_of(self, demands: Singles) -> Floats:
        log_tokens = self.level + demands @ self.slope.T  # (N, M)
        return self.smearing.astype(np.float64) * np.exp(log_tokens.astype(np.float64))


@dataclass(frozen=True)
class Pace:
    """How fast models answer: first_token_s and s_per_token, both of shape (n_models,), NaN where unobserved."""

    first_token_s: Floats
    s_per_token: Floats

    @classmethod
    def unknown(cls, n_models: int) -> Self:
        return cls(np.full(n_models, np.nan), np.full(n_models, np.nan))

    def latency_s(self, tokens: Floats) -> Floats:
        """Expect how long answers of that many tokens take, (..., n_models) to the same shape, in seconds."""
        latency: Floats = self.first_token_s + self.s_per_token * tokens
        return latency


@dataclass(frozen=True)
class Costs:
    """What an artifact knows of its models' answers besides whether they are right."""

    lengths: TokenForecaster
    pace: Pace

    @classmethod
    def from_means(cls, mean_tokens: Sequence[float | None]) -> Self:
        """Know every model's mean length alone; none is unknown."""
        mean = np.array([np.nan if tokens is None else tokens for tokens in mean_tokens], dtype=np.float32)
        n_models, nothing = len(mean), np.zeros(0, dtype=np.float32)
        lengths = TokenForecaster(
            features=Features(nothing, nothing, nothing),
            demand=np.zeros((0, 0), dtype=np.float32),
            demand_offset=nothing,
            level=np.zeros(n_models, dtype=np.float32),
            slope=np.zeros((n_models, 0), dtype=np.float32),
            smearing=mean,
            estimated=np.zeros(n_models, dtype=np.uint8),
        )
        return cls(lengths, Pace.unknown(n_models))

    @property
    def n_models(self) -> int:
        return self.lengths.n_models

    def with_unknown_model(self) -> "Costs":
        """The same with one more model, the last, of which nothing is known."""
        lengths = self.lengths
        return Costs(
            replace(
                lengths,
                level=np.append(lengths.level, np.float32(np.nan)),
                slope=np.vstack([lengths.slope, np.zeros((1, lengths.slope.shape[1]), dtype=np.float32)]),
                smearing=np.append(lengths.smearing, np.float32(1)),
                estimated=np.append(lengths.estimated, np.uint8(0)),
            ),
            Pace(np.append(self.pace.first_token_s, np.nan), np.append(self.pace.s_per_token, np.nan)),
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        lengths = {f.name: getattr(self.lengths, f.name) for f in fields(TokenForecaster) if f.name != "features"}
        joint = {f"features.{f.name}": getattr(self.lengths.features, f.name) for f in fields(Features)}
        pace = {f"pace.{f.name}": getattr(self.pace, f.name) for f in fields(Pace)}
        return {name: np.ascontiguousarray(array) for name, array in (lengths | joint | pace).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        """Bring costs back from their arrays."""
        own = dict(tensors)
        pace = Pace(**{f.name: own.pop(f"pace.{f.name}") for f in fields(Pace)})
        features = Features(**{f.name: own.pop(f"features.{f.name}") for f in fields(Features)})
        return cls(TokenForecaster(features=features, **own), pace)
