"""SentenceTransformer folders as encoders: tiny random ones, written to disk and loaded as any other."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from router.encoder.registry import fit_encoder, open_encoder
from router.encoder.sentence import SentenceEncoder
from router.errors import EncoderError

PROMPTS = ["What is 7 times 8?", "Is 91 prime?", "Name the capital of France, please, and of Spain."]
HIDDEN = 32


def write(folder: Path, architecture: str, pooling: str) -> Path:
    """Write a tiny random model: `bert` reads both ways, `qwen3` is causal and pools its last token."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]"]
    words.train_from_iterator(PROMPTS, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")  # type: ignore[no-untyped-call]
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2}
    if architecture == "bert":
        bert = BertConfig(**sizes, num_attention_heads=4)
        BertModel(bert).save_pretrained(folder / "model")
    else:
        qwen = Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
        Qwen3Model(qwen).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    body = Transformer(str(folder / "model"), max_seq_length=64)
    whole = SentenceTransformer(modules=[body, Pooling(HIDDEN, pooling_mode=pooling), Normalize()], device="cpu")
    whole.save(str(folder / "whole"))
    return folder / "whole"


@pytest.fixture(params=[("bert", "mean"), ("qwen3", "lasttoken")], ids=lambda param: param[0])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path, *request.param)


def test_it_gives_what_sentence_transformers_gives(folder: Path) -> None:
    encoder = fit_encoder(f"sentence:{folder}", [])
    vectors = encoder.encode(PROMPTS)
    expected = SentenceTransformer(str(folder), device="cpu").encode(PROMPTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.shape == (3, encoder.dim) == (3, HIDDEN)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_a_batch_equals_its_prompts_alone(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    alone = np.vstack([encoder.encode([prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(encoder.encode(PROMPTS), alone, atol=1e-5)


def test_nothing_and_white_space_have_vectors(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    assert encoder.encode([]).shape == (0, HIDDEN)
    vectors = encoder.encode(["", "\ud800", PROMPTS[0]])
    assert not vectors[0].any()
    assert np.isfinite(vectors).all()


def test_a_long_prompt_keeps_its_head_and_tail(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    head, tail = "What is 7 times 8? ", " Is 91 prime?"
    long, longer = (head + "France " * n + tail for n in (200, 300))
    assert np.abs(encoder.encode([long]) - encoder.encode([longer])).max() < 1e-5


def test_a_saved_one_comes_back_until_its_model_changes(folder: Path, tmp_path: Path) -> None:
    encoder, artifact = SentenceEncoder.load(folder), tmp_path / "artifact"
    artifact.mkdir()
    encoder.save(artifact)
    again = open_encoder(artifact)
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode(PROMPTS), encoder.encode(PROMPTS))
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert SentenceEncoder.load(moved).fingerprint == encoder.fingerprint
    (folder / "README.md").write_text("another card", encoding="utf-8")
    assert open_encoder(artifact).fingerprint == encoder.fingerprint
    pooling = next(folder.glob("*Pooling/config.json"))
    said = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps(said | {"include_prompt": False}), encoding="utf-8")
    with pytest.raises(EncoderError, match="has changed since the artifact was trained"):
        open_encoder(artifact)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="say `sentence:PATH`"):
        fit_encoder("sentence:", [])
    with pytest.raises(EncoderError, match=f"no folder at {tmp_path / 'absent'}"):
        fit_encoder(f"sentence:{tmp_path / 'absent'}", [])
    with pytest.raises(EncoderError, match=r"no modules\.json"):
        fit_encoder(f"sentence:{tmp_path}", [])
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    with pytest.raises(EncoderError, match=f"cannot load {tmp_path}"):
        fit_encoder(f"sentence:{tmp_path}", [])


def test_a_folder_opens_no_connection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _refuse_network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert fit_encoder(f"sentence:{folder}", []).dim == HIDDEN


def _refuse_network(*args: object) -> None:
    raise AssertionError(f"a connection was opened: {args}")


@pytest.mark.parametrize("name", ["", "mpnet", "a/b/c", "/mpnet"])
def test_the_hub_is_asked_for_a_whole_name_alone(name: str) -> None:
    with pytest.raises(EncoderError, match="say `hub:ORGANIZATION/NAME`"):
        fit_encoder(f"hub:{name}", [])


def test_a_model_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _refuse_network)
    with pytest.raises(EncoderError, match="org/absent cannot be fetched from the hub"):
        fit_encoder("hub:org/absent", [])
