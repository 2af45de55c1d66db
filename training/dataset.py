"""A correctness log as validated arrays: checked once, then trusted.

The index map between models and columns is made here, once, from the log; everything downstream carries it along.
Missing cells are NaN in `label` and never count as wrong.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.log import CorrectnessLog
from data.tables import SPLITS
from training.errors import TrainingError


@dataclass(frozen=True)
class Correctness:
    """The models x questions grid and what describes its two sides.

    label: of shape (n_questions, n_models), the mean of a cell's observations in [0, 1]; NaN is unobserved.
    output_tokens: of shape (n_questions, n_models), mean tokens of the answers; NaN is unknown.
    n_observations: of shape (n_questions, n_models), how many the mean is of, 0 where unobserved; none: one each.
    prompts, benchmarks, keys, groups, split: of length n_questions; groups are near-duplicate groups.
    model_names: of length n_models; prices: of shape (n_models, 2), USD per million input and output tokens.
    estimated_tokens: the models some of whose answers' tokens were not counted but taken from characters.
    """

    label: NDArray[np.float32]
    output_tokens: NDArray[np.float32]
    prompts: tuple[str, ...]
    benchmarks: NDArray[np.str_]
    keys: NDArray[np.int64]
    groups: NDArray[np.int64]
    split: NDArray[np.str_]
    model_names: tuple[str, ...]
    prices: NDArray[np.float64]
    watermark: int = 0
    estimated_tokens: frozenset[str] = frozenset()
    n_observations: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n_questions, n_models = self.label.shape
        for name in ("prompts", "benchmarks", "keys", "groups", "split"):
            if len(getattr(self, name)) != n_questions:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {n_questions} questions")
        if self.n_observations is not None and self.n_observations.shape != self.label.shape:
            raise ValueError(f"n_observations of shape {self.n_observations.shape} for labels of {self.label.shape}")
        if len(self.model_names) != n_models or self.prices.shape != (n_models, 2):
            raise ValueError(f"{len(self.model_names)} names, prices {self.prices.shape} for {n_models} models")
        if len(set(self.model_names)) != n_models:
            raise ValueError("model names repeat")
        observed = self.label[~np.isnan(self.label)]
        if observed.size and (observed.min() < 0 or observed.max() > 1):
            raise ValueError(f"labels lie in [0, 1], found {observed.min()} to {observed.max()}")
        unknown = sorted(set(self.split.tolist()) - set(SPLITS))
        if unknown:
            raise ValueError(f"split is train, val or test, found {', '.join(unknown)}")

    @classmethod
    def from_log(cls, log: CorrectnessLog) -> "Correctness":
        """Lay a log out as a grid: only questions and models with an outcome, models by name."""
        cells = log.cells
        question_rows = np.unique(cells["question"].to_numpy(dtype=np.int64))
        model_rows = np.unique(cells["model"].to_numpy(dtype=np.int64))
        models = log.models.iloc[model_rows].sort_values("model_name")
        questions = log.questions.iloc[question_rows].sort_values("key")
        row_of = pd.Series(np.arange(len(questions)), index=questions.index.map(_positions(log.questions)))
        column_of = pd.Series(np.arange(len(models)), index=models.index.map(_positions(log.models)))
        row = row_of.loc[cells["question"]].to_numpy()
        column = column_of.loc[cells["model"]].to_numpy()
        label = np.full((len(questions), len(models)), np.nan, dtype=np.float32)
        label[row, column] = cells["label"].to_numpy(dtype=np.float32)
        output_tokens = np.full_like(label, np.nan)
        output_tokens[row, column] = cells["output_tokens"].to_numpy(dtype=np.float32)
        n_observations = np.zeros_like(label)
        n_observations[row, column] = cells["n_observations"].to_numpy(dtype=np.float32)
        names = tuple(models["model_name"].astype(str))
        stated = cells.get("tokens_estimated", pd.Series(0, index=cells.index))
        estimated = np.unique(column[stated.to_numpy() > 0])
        return cls(
            label=label,
            output_tokens=output_tokens,
            prompts=tuple(questions["prompt"].astype(str)),
            benchmarks=questions["benchmark"].to_numpy(dtype=np.str_),
            keys=questions["key"].to_numpy(dtype=np.int64),
            groups=questions["group"].to_numpy(dtype=np.int64),
            split=questions["split"].to_numpy(dtype=np.str_),
            model_names=names,
            prices=models[["usd_per_1m_input", "usd_per_1m_output"]].to_numpy(dtype=np.float64),
            watermark=log.watermark,
            estimated_tokens=frozenset(names[m] for m in estimated),
            n_observations=n_observations if (n_observations > 1).any() else None,
        )

    @property
    def n_questions(self) -> int:
        return int(self.label.shape[0])

    @property
    def n_models(self) -> int:
        return int(self.label.shape[1])

    @property
    def observed(self) -> NDArray[np.bool_]:
        """The mask of the grid, of shape (n_questions, n_models)."""
        return ~np.isnan(self.label)

    def part(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split."""
        return np.flatnonzero(self.split == split)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which questions no fit may learn from, of shape (n_questions,): test, and near-duplicates of test questions.

        Logs that state their splits may state another for a near-duplicate, or even for an equal prompt.
        """
        return np.isin(self.groups, self.groups[self.split == "test"])

    def learnable(self, split: str) -> NDArray[np.int64]:
        """Row numbers of the questions of train or val that a fit may learn from."""
        return np.flatnonzero((self.split == split) & ~self.held_out)

    def near_test(self) -> NDArray[np.int64]:
        """Row numbers of the answered train and val questions that are near-duplicates of test questions."""
        return np.flatnonzero(self.held_out & (self.split != "test") & self.observed.any(axis=1))

    def rows(self, rows: NDArray[np.int64]) -> "Correctness":
        """The same models on some of the questions."""
        return Correctness(
            label=self.label[rows],
            output_tokens=self.output_tokens[rows],
            prompts=tuple(self.prompts[i] for i in rows),
            benchmarks=self.benchmarks[rows],
            keys=self.keys[rows],
            groups=self.groups[rows],
            split=self.split[rows],
            model_names=self.model_names,
            prices=self.prices,
            watermark=self.watermark,
            estimated_tokens=self.estimated_tokens,
            n_observations=None if self.n_observations is None else self.n_observations[rows],
        )

    def columns(self, columns: NDArray[np.int64]) -> "Correctness":
        """The same questions by some of the models, in this order."""
        return replace(
            self,
            label=self.label[:, columns],
            output_tokens=self.output_tokens[:, columns],
            model_names=tuple(self.model_names[column] for column in columns),
            prices=self.prices[columns],
            n_observations=None if self.n_observations is None else self.n_observations[:, columns],
        )

    def fingerprint(self) -> str:
        """Name the data by its content: 16 hexadecimal digits over prompts, splits, models, labels and repeats."""
        digest = hashlib.sha256()
        for texts in (self.prompts, self.model_names, self.split.tolist(), self.benchmarks.tolist()):
            _feed(digest, texts)
        digest.update(np.ascontiguousarray(self.label).tobytes())
        if self.n_observations is not None:
            digest.update(np.ascontiguousarray(self.n_observations).tobytes())
        return digest.hexdigest()[:16]


def require_every_split(data: Correctness) -> None:
    """Refuse data that has no answered question in one of the splits, saying what there is: TrainingError.

    Near-duplicates of test questions, which no fit may learn from, do not count.
    """
    rows = {split: data.part(split) if split == "test" else data.learnable(split) for split in SPLITS}
    counts = {split: int(data.observed[rows[split]].any(axis=1).sum()) for split in SPLITS}
    empty = [split for split, n in counts.items() if n == 0]
    if empty:
        found = ", ".join(f"{n:,} {split}" for split, n in counts.items())
        if n := len(data.near_test()):
            found += f", and {n:,} near-duplicates of test questions, which no fit may learn from"
        raise TrainingError(
            f"no answered question in {' and '.join(empty)} (found {found}): "
            "training needs some in each of train, val and test; import more questions"
        )


def _feed(digest: "hashlib._Hash", texts: Sequence[str]) -> None:
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)


def _positions(table: pd.DataFrame) -> dict[object, int]:
    return {index: position for position, index in enumerate(table.index)}
