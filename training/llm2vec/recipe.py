"""The small encoder's size and settings, and the stages that they make: what is learned, from what, how fast.

The defaults were chosen by cross-validated forecasts on the train and val questions of two logs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.llm2vec.batches import Batches, Size
from training.llm2vec.crops import Crops
from training.llm2vec.loop import Schedule
from training.llm2vec.objectives import Mntp, SimCse, causal
from training.llm2vec.outcomes import Answered, outcome_stage
from training.llm2vec.stages import Stage
from training.llm2vec.tokenizer import VOCABULARY, mask_token_of, pad_token_of, prefix_of
from training.llm2vec.topics import Topics

SERVED_TOKENS = 256  # of a longer prompt, its head and tail


@dataclass(frozen=True)
class Shape:
    """How large the encoder is."""

    n_tokens: int = VOCABULARY
    hidden: int = 256
    layers: int = 2
    heads: int = 8
    feed_forward: int = 512
    max_positions: int = 1_024


@dataclass(frozen=True)
class Settings:
    """How it learns; chosen on training questions by the loss on masked tokens and by cross-validated forecasts."""

    shape: Shape = Shape()
    n_generated: int = 3_000
    n_documentation: int = 4_000_000  # characters
    n_tokens: int = 128  # of a text, a window drawn anew each time
    batch_tokens: int = 2_048
    learning_rate: float = 5e-4
    masked: float = 0.2
    simcse_rate: float = 1e-4
    simcse_rows: int = 32
    simcse_tokens: int = 64
    simcse_dropout: float = 0.3
    crop_rate: float = 5e-4
    crop_rows: int = 128
    crop_tokens: int = 48  # of a crop
    topic_rate: float = 1e-3
    topic_rows: int = 32
    outcome_rate: float = 5e-4
    outcome_rows: int = 32
    outcome_tokens: int = 64
    whitening: float = 0.0  # power of the last linear step, if any
    seed: int = 0


@dataclass(frozen=True)
class Steps:
    """How many steps each stage takes."""

    causal: int
    mntp: int
    simcse: int
    crops: int
    topics: int
    outcomes: int = 0


@dataclass(frozen=True)
class Recipe:
    """The stages, for any number of steps."""

    tokenizer: Any
    sequences: list[list[int]]
    questions: list[list[int]]
    directions: NDArray[np.float32]  # of tokens, (V, D)
    settings: Settings
    answered: Answered | None = None

    def __call__(self, steps: Steps) -> list[Stage]:
        s = self.settings
        reading = self._batches(self.sequences, Size(s.batch_tokens, s.batch_tokens), s.n_tokens, 0)
        masked = self._batches(self.sequences, Size(s.batch_tokens, s.batch_tokens), s.n_tokens, 1)
        paired = self._batches(self.sequences, Size(s.simcse_rows * s.simcse_tokens, s.simcse_rows), s.simcse_tokens, 2)
        cropped = self._batches(self.questions, Size(s.crop_rows * SERVED_TOKENS, s.crop_rows), SERVED_TOKENS, 4)
        topical = self._batches(self.questions, Size(s.topic_rows * SERVED_TOKENS, s.topic_rows), SERVED_TOKENS, 5)
        masking = Mntp(mask_token_of(self.tokenizer), s.masked)
        stages = [
            Stage("random", causal, reading, _schedule(0, s.learning_rate), bidirectional=False),
            Stage("causal", causal, reading, _schedule(steps.causal, s.learning_rate), bidirectional=False),
            Stage("bidirectional", causal, reading, _schedule(0, s.learning_rate)),
            Stage("mntp", masking, masked, _schedule(steps.mntp, s.learning_rate)),
            Stage(
                "simcse",
                SimCse(),
                paired,
                Schedule(steps.simcse, s.simcse_rate, n_warmup=min(10, steps.simcse)),
                attention_dropout=s.simcse_dropout,
            ),
            Stage(
                "crops",
                Crops(pad_token_of(self.tokenizer), prefix_of(self.tokenizer), max_tokens=s.crop_tokens),
                cropped,
                _schedule(steps.crops, s.crop_rate, 20),
            ),
            Stage(
                "topics",
                Topics(self.directions),
                topical,
                _schedule(steps.topics, s.topic_rate, 20),
            ),
        ]
        if self.answered:
            schedule = Schedule(steps.outcomes, s.outcome_rate, n_warmup=min(10, steps.outcomes))
            size = Size(s.outcome_rows * s.outcome_tokens, s.outcome_rows)
            seed = s.seed * 10 + 3
            of = outcome_stage(self.answered, self.tokenizer, schedule, size, max_tokens=s.outcome_tokens, seed=seed)
            stages.append(of)
        return stages

    def _batches(self, sequences: list[list[int]], size: Size, n_tokens: int, stage: int) -> Batches:
        s = self.settings
        pad = pad_token_of(self.tokenizer)
        return Batches(sequences, max_tokens=n_tokens, size=size, seed=s.seed * 10 + stage, pad=pad)


def _schedule(n_steps: int, rate: float, most_warmup: int = 50) -> Schedule:
    return Schedule(n_steps, rate, min(most_warmup, n_steps // 10), 0.01, (0.9, 0.98))
