"""The linear step after pooling: what it computes, that every reader of a folder agrees on it, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.demo.generate import generate
from router.encoder.bundled import BundledEncoder
from router.encoder.checkpoint import Checkpoint
from router.encoder.dense import Dense, read_dense
from router.encoder.llm2vec import Llm2VecEncoder
from router.errors import EncoderError
from tests.tiny_llama import N_TOKENS, tiny_llama
from training.llm2vec.checkpoint_folders import export, make_bidirectional
from training.llm2vec.tokenizer import train_tokenizer
from training.llm2vec.whitening import whiten

PROMPTS = [question.prompt for question in generate(40, 0)]
RNG = np.random.default_rng(0)
DENSE = Dense(RNG.normal(size=(32, 6)).astype(np.float32), RNG.normal(size=6).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dense"), DENSE)


def write(folder: Path, dense: Dense | None) -> Path:
    model = tiny_llama()
    make_bidirectional(model)
    tokenizer = train_tokenizer(PROMPTS, N_TOKENS)
    export(model, tokenizer, folder, pooling="mean", max_tokens=64, dtype=torch.float32, dense=dense)
    return folder


def test_vectors_are_mapped_and_those_that_know_nothing_stay_zeros() -> None:
    dense = Dense(np.array([[1, 0], [0, 2]], np.float32), np.array([1, -1], np.float32))
    assert dense(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [[4, 7], [0, 0]]
    twice = dense.then(dense)
    assert twice(np.array([[3, 4]], np.float32)).tolist() == dense(np.array([[4, 7]], np.float32)).tolist()


def test_modules_are_read_as_they_were_saved_one_after_another(tmp_path: Path) -> None:
    DENSE.save(tmp_path / "2_Dense")
    other = Dense(RNG.normal(size=(6, 3)).astype(np.float32), np.zeros(3, np.float32))
    other.save(tmp_path / "3_Dense")
    read = read_dense([tmp_path / "2_Dense", tmp_path / "3_Dense"])
    assert read is not None
    vectors = RNG.normal(size=(5, 32)).astype(np.float32)
    assert np.allclose(read(vectors), other(DENSE(vectors)), atol=1e-4)
    assert read.dim == 3
    assert read_dense([]) is None


@pytest.mark.parametrize("says", [{"activation_function": "torch.nn.modules.activation.Tanh"}, {"use_residual": True}])
def test_what_is_not_linear_is_refused(says: dict[str, object], tmp_path: Path) -> None:
    DENSE.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8")) | says
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(EncoderError, match="is not linear: say `sentence:PATH`"):
        read_dense([tmp_path])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="cannot be read"):
        read_dense([tmp_path])


def test_every_reader_of_a_folder_gives_the_mapped_vectors(folder: Path, tmp_path: Path) -> None:
    plain = Llm2VecEncoder.load(write(tmp_path, None), max_tokens=64).encode(PROMPTS)
    ours = Llm2VecEncoder.load(folder, max_tokens=64)
    assert ours.dim == 6
    assert np.allclose(ours.encode(PROMPTS), DENSE(plain), atol=1e-4)
    of_arrays = BundledEncoder(folder, 64)
    assert of_arrays.dim == 6
    assert np.allclose(of_arrays.encode([*PROMPTS, ""]), np.vstack([DENSE(plain), np.zeros((1, 6))]), atol=1e-4)


def test_sentence_transformers_gives_the_mapped_vectors(folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    short = [prompt for prompt in PROMPTS if len(prompt) < 60]  # of longer ones it reads the head alone
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(short)
    assert len(short) > 3
    assert np.allclose(theirs, Llm2VecEncoder.load(folder, max_tokens=64).encode(short), atol=1e-4)


def test_a_folder_is_named_by_its_linear_step_too(folder: Path, tmp_path: Path) -> None:
    plain = write(tmp_path, None)
    names = [Checkpoint.find(plain).fingerprint(), Checkpoint.find(folder).fingerprint()]
    Dense(DENSE.weight, DENSE.bias + 1).save(plain / "2_Dense")
    assert Checkpoint.find(plain).fingerprint() == names[0]  # modules.json does not name it
    (plain / "modules.json").write_bytes((folder / "modules.json").read_bytes())
    assert len({*names, Checkpoint.find(plain).fingerprint()}) == 3


def test_whitening_evens_out_directions_by_its_power() -> None:
    spread = np.array([8.0, 4.0, 1.0])
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    vectors = 5 + (RNG.normal(size=(20_000, 3)) * spread) @ turn
    length = np.square(vectors - vectors.mean(axis=0)).sum(axis=1).mean()
    for power, ratios in ((0.0, [8, 4]), (0.5, [8**0.5, 2]), (1.0, [1, 1])):
        even = whiten(vectors, power)(vectors.astype(np.float32)).astype(np.float64)
        assert np.abs(even.mean(axis=0)).max() < 1e-2
        assert np.square(even).sum(axis=1).mean() == pytest.approx(length, rel=1e-3)
        deviation = np.sqrt(np.linalg.eigvalsh(np.cov(even.T)))[::-1]
        assert deviation[:2] / deviation[2] == pytest.approx(ratios, rel=0.03)
    assert np.isfinite(whiten(np.ones((5, 3)), 0.7)(np.ones((5, 3), np.float32))).all()
