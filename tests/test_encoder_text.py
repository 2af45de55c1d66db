"""What encoders do to a prompt before they read it, and what they keep of those they read."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.encoder.base import Vectors
from router.encoder.latest import FEW, LatestVectors
from router.encoder.text import surplus, windows


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 8))
def test_windows_are_few_alike_and_hold_all_or_head_and_tail(n_tokens: int, width: int, most: int) -> None:
    tokens = list(range(n_tokens))
    parts = windows(tokens, width, most)
    lengths = [len(part) for part in parts]
    assert len(parts) == min(-(-n_tokens // width), most)
    assert all(0 < length <= width for length in lengths)
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    del tokens[surplus(n_tokens, width * most)]
    assert list(chain(*parts)) == tokens


class Counted:
    """One dimension: a prompt's length; `asked` says what was computed."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def compute(self, prompts: Sequence[str]) -> Vectors:
        self.asked.append(list(prompts))
        return np.array([[len(prompt)] for prompt in prompts], dtype=np.float32).reshape(len(prompts), 1)


def test_only_new_prompts_are_computed_and_the_oldest_are_forgotten() -> None:
    counted = Counted()
    latest = LatestVectors(counted.compute, n_kept=3)
    assert latest.encode(["a", "bb", "a"]).tolist() == [[1], [2], [1]]
    assert latest.encode(["ccc", "a", "\ud800\ud800"]).tolist() == [[3], [1], [2]]  # bb is the oldest now
    assert latest.encode(["a", "bb"]).tolist() == [[1], [2]]
    assert counted.asked == [["a", "bb"], ["ccc", "\ud800\ud800"], ["bb"]]


@pytest.mark.parametrize("n", [0, FEW + 1])
def test_many_prompts_at_once_are_not_kept(n: int) -> None:
    counted = Counted()
    latest = LatestVectors(counted.compute)
    many = [str(i) for i in range(n)]
    assert latest.encode(many).shape == (n, 1)
    latest.encode(many)
    assert counted.asked == [many, many]
