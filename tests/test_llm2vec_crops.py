"""Crops of one text draw its vectors together; what a crop is follows from the text and the generator alone."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_llama import tiny_llama
from training.llm2vec.batches import pad_rows
from training.llm2vec.checkpoint_folders import make_bidirectional
from training.llm2vec.crops import SHORTEST, Crops

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = [1, *range(10, 110)]


@pytest.fixture(scope="module")
def model() -> Any:
    model = tiny_llama().eval()
    make_bidirectional(model)
    return model


def test_a_crop_is_a_span_of_the_drawn_length_after_what_stands_before_every_text() -> None:
    crops = Crops(pad=0, prefix=(1,), shortest=0.3, longest=0.7, max_tokens=64, left_out=0.0)
    generator = torch.Generator().manual_seed(0)
    drawn = [crops.crop(TEXT, generator) for _ in range(300)]
    assert all(crop[0] == 1 for crop in drawn)
    assert all(np.diff(crop[1:]).tolist() == [1] * (len(crop) - 2) for crop in drawn)
    lengths = [len(crop) - 1 for crop in drawn]
    assert (min(lengths), max(lengths)) == (30, 64)
    assert {crop[1] for crop in drawn} > {10, 11, 60}
    assert max(crop[-1] for crop in drawn) == 109
    assert crops.crop(TEXT[5:], generator)[0] == 1  # a window of a text, which begins elsewhere


def test_some_tokens_of_a_crop_are_left_out_but_never_all() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = Crops(pad=0, shortest=1.0, longest=1.0, max_tokens=200, left_out=0.1)
    kept = [len(crops.crop(TEXT, generator)) / len(TEXT) for _ in range(200)]
    assert np.mean(kept) == pytest.approx(0.9, abs=0.01)
    assert len(Crops(pad=0, left_out=1.0).crop(TEXT, generator)) > 0
    assert len(Crops(pad=0, left_out=0.0).crop([5, 6, 7, 8, 9], generator)) == SHORTEST
    assert Crops(pad=0, left_out=0.0).crop([5, 6], generator) == [5, 6]


def test_the_loss_tells_whether_crops_find_their_texts(model: Any) -> None:
    crops = Crops(pad=0, shortest=1.0, longest=1.0, left_out=0.0)
    same = pad_rows([[5, 6, 7, 8, 9]] * 4, 0)
    unlike = pad_rows([[at, at + 1, at + 2, at + 3] for at in (5, 60, 120, 180)], 0)
    with torch.no_grad():
        assert float(crops(model, same, torch.Generator())) == pytest.approx(np.log(4), abs=1e-4)
        assert float(crops(model, unlike, torch.Generator())) < 0.1
