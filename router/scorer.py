"""The forward pass: what is known of a prompt in, P(correct) of every model out. The trainer imports it too.

EmbedLLM's matrix factorization (arXiv 2410.02223) as a latent-variable model. Every question has an embedding t, every
model an embedding u and a bias b, and P(model is correct) = sigmoid(b + u . t). A prompt's text tells its embedding up
to an error: t = f(x) + e, e ~ N(0, s(x) R), with f a Gaussian process on the prompt's features and s how much more or
less than usual such texts leave open. The forecast for an unseen prompt integrates that error out; a calibration closes
it. Arrays only: no SQL, no files, no text.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from router.forest import Forest

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

PEAK = 1.5  # the kernel of a point with itself
Z90 = 1.6449  # standard normal deviations that hold 90%
POOLED: Singles = np.zeros((0, 2), dtype=np.float32)
UNNOTED: Singles = np.zeros((0, 1), dtype=np.float32)
AS_USUAL: Singles = np.ones((1, 1), dtype=np.float32)  # a spread: the residual's own
SURFACE_LIMIT = 4.0  # standard deviations beyond which a surface feature says no more


@dataclass(frozen=True)
class Features:
    """Turns a prompt's vector and surface into one point whose distances are comparable.

    vector_mean: of shape (dim_vector,); surface_mean, surface_scale: of shape (n_surface,), of the training questions.
    """

    vector_mean: Singles
    surface_mean: Singles
    surface_scale: Singles

    def __call__(self, vectors: Singles, surface: Singles) -> Singles:
        """Join the direction of the centred vector and the standardized surface, (N, dim_vector + n_surface)."""
        joined = np.zeros((len(vectors), vectors.shape[1] + surface.shape[1]), dtype=np.float32)
        direction, standard = joined[:, : vectors.shape[1]], joined[:, vectors.shape[1] :]
        centred = vectors - self.vector_mean
        norm = np.sqrt(np.square(centred).sum(axis=1, keepdims=True))
        np.divide(centred, norm, out=direction, where=norm > 0)
        limited = np.minimum((surface - self.surface_mean) / self.surface_scale, SURFACE_LIMIT)
        np.maximum(limited, -SURFACE_LIMIT, out=limited)
        np.divide(limited, np.sqrt(np.float32(max(surface.shape[1], 1))), out=standard)
        return joined


class Columns(NamedTuple):
    """Points as others are compared with them: words (D_words, J) and surfaces (D_surface, J), both times -2, with
    squared lengths, (2, J).

    A few points against a thousand take half the time where each point is a column.
    """

    words: Singles
    surface: Singles
    norms: Singles


def in_columns(points: Singles, n_surface: int) -> Columns:
    """Lay out points (J, D) whose last `n_surface` columns are surface."""
    parts = np.split(points, [points.shape[1] - n_surface], axis=1)
    words, surface = (np.ascontiguousarray(-2 * part.T) for part in parts)
    return Columns(words, surface, np.stack([np.square(part).sum(axis=1) for part in parts]))


def kernel(a: Singles, b: Singles, n_surface: int, columns_of_b: Columns | None = None) -> Singles:
    """Compare points of shape (N, D) and (J, D) whose last `n_surface` columns are surface; of shape (N, J).

    A radial kernel on words and surface together, exp(-|a - b|^2 / 2), plus half a narrower one on words alone,
    exp(-|a - b|^2): a prompt that reads like logged ones but looks unlike them is not wholly unknown.
    columns_of_b: what `in_columns` makes of b, where that was done already.
    """
    n_words = a.shape[1] - n_surface
    words, surface, norms = in_columns(b, n_surface) if columns_of_b is None else columns_of_b
    by_words = _squared_distance(a[:, :n_words], words, norms[0])
    similarity = _squared_distance(a[:, n_words:], surface, norms[1])
    # in place: these are the largest arrays of a fit
    similarity += by_words
    similarity *= -0.5
    np.exp(similarity, out=similarity)
    np.negative(by_words, out=by_words)
    np.exp(by_words, out=by_words)
    by_words *= 0.5
    similarity += by_words
    return similarity


def _squared_distance(a: Singles, columns: Singles, norms: Singles) -> Singles:
    distance: Singles = a @ columns
    distance += norms
    distance += np.square(a).sum(axis=1)[:, None]
    np.maximum(distance, 0, out=distance)
    return distance


@dataclass(frozen=True)
class _Variances:
    """What does not depend on the prompt in the variances of logits.

    by_prompt: (M,); pairs: (2, P), the places of (embedding, 1) that are multiplied with one another; by_pair: (P, M),
    what each product brings: quadratic forms of symmetric matrices, each pair counted once.
    """

    by_prompt: Singles
    pairs: NDArray[np.intp]
    by_pair: Singles

    @classmethod
    def of(cls, scorer: "Scorer") -> "_Variances":
        u, covariance, residual = scorer.model_embedding, scorer.model_covariance, scorer.residual
        dim = len(residual)
        pairs = np.array(np.triu_indices(dim + 1))  # (2, P), the last of which is 1 * 1
        by_pair = covariance[:, pairs[0], pairs[1]].T * np.where(pairs[0] == pairs[1], 1, 2)[:, None]
        by_prompt = np.einsum("mk,kl,ml->m", u, residual, u) + np.einsum(
            "mkl,kl->m", covariance[:, :dim, :dim], residual
        )
        return cls(by_prompt, pairs, np.ascontiguousarray(by_pair, dtype=np.float32))


@dataclass(frozen=True)
class Forecast:
    """P(correct) of prompts by model with a 90% interval of that probability, each (N, M), and prompts' novelty, (N,).

    The interval says how exactly the share of right answers among prompts like this one is known. It is not about
    a single answer, which is right or wrong.
    """

    p_correct: Floats
    low: Floats
    high: Floats
    novelty: Floats


@dataclass(frozen=True)
class Scorer:
    """Scores prompts against models.

    landmarks: of shape (n_landmarks, n_features), places among training questions where the process stands;
    weights: of shape (n_landmarks, K), with prior_mean of shape (K,): f(x) = prior_mean + kernel(x, landmarks) weights;
    forest, forest_share: trees that read the same points: this share of an embedding's forecast is theirs, the rest
    the process's; two views of text that err differently are better than either. Beside the embedding their values
    may hold a spread, by what R is multiplied at such points: some kinds of text tell less than others;
    residual: of shape (K, K), the usual covariance R of an embedding about f(x);
    known: of shape (n_landmarks, n_directions), with signal of shape (K, K): f(x) itself is known up to a covariance
    of novelty(x) * signal, where novelty is 1 less the share of the prior variance that kernel(x, landmarks) known
    explains;
    model_embedding: of shape (n_models, K); model_bias: of shape (n_models,);
    model_covariance: of shape (n_models, K+1, K+1), how unsure each model's (embedding, bias) is: little after
    thousands of outcomes, much after fifty;
    slope, offset: P(correct) = sigmoid(slope * logit + offset), fitted on held-out questions (Platt 1999);
    interval_scale: by what factor intervals are wider or narrower than the process has them, also fitted on those, of
    which one in a hundred was more novel than familiar;
    prompts: of shape (n_prompts, K), f(x) of some training questions, as prompts usually are; without rows, as in
    earlier artifacts, it is their mean;
    own_calibration: of shape (n_models, 2), each model's own slope and offset of what that gives, before the sigmoid;
    without rows, as in earlier artifacts, there is none.
    """

    features: Features
    landmarks: Singles
    weights: Singles
    prior_mean: Singles
    forest: Forest
    forest_share: float
    residual: Singles
    known: Singles
    signal: Singles
    model_embedding: Singles
    model_bias: Singles
    model_covariance: Singles
    slope: float = 1.0
    offset: float = 0.0
    own_calibration: Singles = field(default_factory=lambda: POOLED)
    prompts: Singles = field(default_factory=lambda: UNNOTED)
    interval_scale: float = 1.0
    familiar: float = 1.0

    @property
    def n_models(self) -> int:
        return int(self.model_embedding.shape[0])

    def embed(self, vectors: Singles, surface: Singles) -> Singles:
        """Expect the question embeddings of prompts, of shape (N, K)."""
        points = self.features(vectors, surface)
        return self.embed_points(points, self.similarity(points))[0]

    def similarity(self, points: Singles) -> Singles:
        """Compare points with the landmarks, of shape (N, n_landmarks)."""
        return kernel(points, self.landmarks, len(self.features.surface_mean), self._columns)

    @cached_property
    def _columns(self) -> Columns:
        return in_columns(self.landmarks, len(self.features.surface_mean))

    def embed_points(self, points: Singles, similarity: Singles) -> tuple[Singles, Singles]:
        """Expect points, given their similarity to the landmarks: question embeddings (N, K) and spread (N, 1).

        A spread of shape (1, 1), that of earlier artifacts and without a forest, is of all points.
        """
        by_process: Singles = similarity @ self.weights + self.prior_mean
        if not self.forest_share:
            return by_process, AS_USUAL
        share, dim = np.float32(self.forest_share), by_process.shape[1]
        told = self.forest(points)
        mixed: Singles = (1 - share) * by_process + share * told[:, :dim]
        return mixed, told[:, dim:] if self.has_spread else AS_USUAL

    @property
    def has_spread(self) -> bool:
        """Whether the forest tells how far text is off."""
        return bool(self.forest.value.shape[1] > len(self.residual))

    def without_spread(self) -> "Scorer":
        """The same with R as it is at every point."""
        forest = self.forest
        return replace(self, forest=replace(forest, value=forest.value[:, : len(self.residual)]))

    def novelty(self, similarity: Singles) -> Singles:
        """How far prompts lie outside what the training questions cover, (N,): near 0 among many, 1 out of sight."""
        explained = np.square(similarity @ self.known).sum(axis=1) / PEAK
        novelty: Singles = np.clip(1 - explained, 0, 1)
        return novelty

    def logits(self, embedding: Singles, spread: Singles = AS_USUAL) -> Singles:
        """Score expected embeddings (N, K) of a spread (N, 1), all errors integrated out; uncalibrated, (N, M).

        E[sigmoid(z)] for z ~ N(m, v) is about sigmoid(m / sqrt(1 + pi v / 8)) (MacKay 1992).
        """
        variance = spread * self.variance_by_prompt() + self.variance_by_model(embedding)
        scaled: Singles = self._mean_logits(embedding) / np.sqrt(1 + np.float32(np.pi / 8) * variance)
        return scaled

    def _mean_logits(self, embedding: Singles) -> Singles:
        mean: Singles = embedding @ self.model_embedding.T + self.model_bias  # (N, M)
        return mean

    def variance_by_prompt(self) -> Singles:
        """The variance that logits have since a question's embedding is not its text's forecast, of shape (M,).

        Times a question's spread it is that question's.
        """
        return self._variances.by_prompt

    def variance_by_model(self, embedding: Singles) -> Singles:
        """The variance of logits that models not known exactly bring at the forecast; embedding (N, K) to (N, M)."""
        joined = np.ones((len(embedding), embedding.shape[1] + 1), dtype=np.float32)  # (N, K+1)
        joined[:, :-1] = embedding
        first, second = self._variances.pairs
        variance: Singles = (joined[:, first] * joined[:, second]) @ self._variances.by_pair
        return variance

    @cached_property
    def _variances(self) -> "_Variances":
        return _Variances.of(self)

    def p_correct(self, vectors: Singles, surface: Singles) -> Floats:
        """Forecast from raw vectors (N, dim_vector) and surfaces (N, n_surface): probabilities of shape (N, M)."""
        points = self.features(vectors, surface)
        return self.p_correct_at(points, self.similarity(points))

    def p_correct_at(self, points: Singles, similarity: Singles) -> Floats:
        """Forecast from points and their similarity to the landmarks: probabilities of shape (N, M)."""
        return self._calibrate(self.logits(*self.embed_points(points, similarity)))

    @cached_property
    def usual(self) -> Floats:
        """P(correct) of every model on a prompt of which nothing is known, of shape (M,): its mean over prompts."""
        seen = self.prompts if len(self.prompts) else self.prior_mean[None]
        usual: Floats = self._calibrate(self.logits(seen)).mean(axis=0)
        return usual

    def forecast(self, vectors: Singles, surface: Singles) -> "Forecast":
        """Forecast with intervals, from raw vectors (N, dim_vector) and surfaces (N, n_surface)."""
        points = self.features(vectors, surface)
        similarity = self.similarity(points)
        (embedding, spread), novelty = self.embed_points(points, similarity), self.novelty(similarity)
        by_model = self.variance_by_model(embedding)
        signal = np.einsum("mk,kl,ml->m", self.model_embedding, self.signal, self.model_embedding)  # (M,)
        strange = np.clip((novelty - self.familiar) / max(1 - self.familiar, 1e-6), 0, 1)
        wider = self.interval_scale + strange * max(1 - self.interval_scale, 0)  # where nothing was measured, as it was
        error = Z90 * wider[:, None].astype(np.float32) * np.sqrt(np.maximum(by_model + novelty[:, None] * signal, 0))
        scale = np.sqrt(1 + np.float32(np.pi / 8) * (spread * self.variance_by_prompt() + by_model))
        mean = self._mean_logits(embedding)
        low, p, high = (self._calibrate((mean + side * error) / scale) for side in (-1, 0, 1))
        return Forecast(p, low, high, novelty.astype(np.float64))

    def _calibrate(self, logits: Singles) -> Floats:
        calibrated = self.slope * logits.astype(np.float64) + self.offset
        if len(self.own_calibration):
            calibrated = calibrated * self.own_calibration[:, 0] + self.own_calibration[:, 1]
        p: Floats = 1 / (1 + np.exp(-np.clip(calibrated, -30, 30)))
        return p

    @property
    def _scalars(self) -> tuple[float, ...]:
        return self.forest_share, self.slope, self.offset, self.interval_scale, self.familiar

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.type is Singles}
        features = {f"features.{f.name}": getattr(self.features, f.name) for f in fields(Features)}
        forest = {f"forest.{name}": array for name, array in self.forest.tensors().items()}
        scalars = {"scalars": np.array(self._scalars, dtype=np.float64)}
        joint = own | features | forest | scalars
        return {name: np.ascontiguousarray(array) for name, array in joint.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        """Bring a scorer back from its arrays."""
        forest_share, slope, offset, *later = tensors["scalars"].tolist()
        interval_scale, familiar = later or (1.0, 1.0)  # earlier artifacts have none
        part = {name: _beginning(tensors, f"{name}.") for name in ("features", "forest")}
        own = {name: array for name, array in tensors.items() if name != "scalars" and "." not in name}
        return cls(
            features=Features(**part["features"]),
            forest=Forest.from_tensors(part["forest"]),
            **own,
            forest_share=forest_share,
            slope=slope,
            offset=offset,
            interval_scale=interval_scale,
            familiar=familiar,
        )


def _beginning(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
