"""When to abstain: below which P(correct) of the chosen model an answer would break a limit on errors.

Arrays and their lookup only; `training.abstention` calibrates them and says what the limit means.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Abstention:
    """How wrong the chosen models' answers were on held-out questions, by how sure the choice had to be.

    Each of shape (n_steps,), from sure to unsure. p_correct: the least that the chosen model's had to be; share: of
    the questions that were then answered; error: the share of these that was wrong; bound: an upper bound of the error
    on further questions, which never falls.
    """

    p_correct: Floats
    share: Floats
    error: Floats
    bound: Floats

    def step(self, max_error: float) -> int | None:
        """The last step whose bound is within a limit; none where there is none."""
        n_within = int(np.searchsorted(self.bound, max_error, side="right"))
        return n_within - 1 if n_within else None

    def threshold(self, max_error: float) -> float | None:
        """The least P(correct) to answer with; none where no answer keeps the limit."""
        if max_error >= 1:
            return 0.0
        step = self.step(max_error)
        return None if step is None else float(self.p_correct[step])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        return {"p_correct": self.p_correct, "share": self.share, "error": self.error, "bound": self.bound}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        """Bring it back from its arrays."""
        return cls(**tensors)
