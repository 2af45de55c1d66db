"""A prompt's surface is counted rightly, and no prompt is too odd to count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.surface import N_SURFACE, NAMES, describe


def look(prompt: str) -> dict[str, float]:
    return dict(zip(NAMES, describe([prompt])[0].tolist(), strict=True))


def test_lengths_digits_and_marks_are_counted() -> None:
    seen = look("Is 12.5 + 3 = 15? No,\nnot (quite).")
    assert seen["log characters"] == pytest.approx(np.log(34 + 1), abs=1e-5)
    assert seen["log words"] == pytest.approx(np.log1p(9))
    assert seen["log lines"] == pytest.approx(np.log1p(1))
    assert seen["log digits"] == pytest.approx(np.log1p(6))
    assert seen["log numbers"] == pytest.approx(np.log1p(3))
    assert seen["longest number"] == 4
    assert seen["log operators"] == pytest.approx(np.log1p(2))
    assert seen["log negations"] == pytest.approx(np.log1p(2))
    assert seen["share of capitals"] == pytest.approx(2 / 35)


def test_options_are_found_and_measured() -> None:
    seen = look("Pick one:\n(A) 12\n(B) a long one\n(C) 7")
    assert seen["options"] == 3
    assert seen["share of numeric options"] == pytest.approx(2 / 4)
    assert seen["spread of option lengths"] > 0
    assert look("no options here")["options"] == 0


def test_code_and_blanks_are_seen() -> None:
    assert look("def f(x):\n    return x")["code"] == 1
    assert look("The capital is ____.")["blank to fill"] == 1
    assert look("plain")["code"] == 0


def test_an_empty_list_has_an_empty_surface() -> None:
    assert describe([]).shape == (0, N_SURFACE)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_any_text_has_a_finite_surface(text: str) -> None:
    assert np.isfinite(describe([text])).all()


def test_a_huge_prompt_is_cut_and_a_lone_surrogate_counted() -> None:
    assert np.isfinite(describe(["1 + " * 2_000_000, "\ud800", "\0"])).all()
