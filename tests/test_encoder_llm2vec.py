"""The llm2vec encoder on tiny random checkpoints, written to disk and loaded as any other checkpoint."""

import json
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from router.encoder.llm2vec import Llm2VecEncoder, _batches
from router.encoder.machine import BACKEND_VARIABLE, best_dtype
from router.encoder.openvino_model import OpenVinoModel
from router.encoder.registry import fit_encoder, open_encoder
from router.errors import EncoderError

PROMPTS = [
    "How many eggs does Janet sell at the market every day, if her ducks lay 16 and she eats three for breakfast?",
    "What is 7 times 8?",
    "Name the capital of France, please; then say in which year the tower was built, who built it, and from what.",
    "Is 91 prime?",
]
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "smollm3", "olmo2", "phi3", "granite")
ARCHITECTURES = [
    *((name, attention) for name in DECODERS for attention in ("eager", "sdpa")),
    ("gemma2", "eager"),  # transformers has no sdpa for its soft-capped attention
]
HIDDEN = 32

Checkpoints = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    bpe.train_from_iterator(
        PROMPTS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special_tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special_tokens)  # type: ignore[no-untyped-call]


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Checkpoints:
    """Write a tiny random checkpoint of an architecture, with settings added to its config.json."""

    def write(architecture: str = "llama", name: str = "checkpoint", **settings: object) -> Path:
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            architecture,
            vocab_size=320,
            hidden_size=HIDDEN,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        folder = tmp_path / name
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(folder)
        edit_config(folder, **{"is_causal": False, **settings})
        return folder

    return write


def edit_config(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | settings
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def furthest(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    cosine: NDArray[np.float32] = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosine


def singly(encoder: Llm2VecEncoder, prompts: Sequence[str]) -> NDArray[np.float32]:
    return np.vstack([encoder.encode([prompt]) for prompt in prompts])


@pytest.mark.parametrize(("architecture", "attention"), ARCHITECTURES)
def test_padding_does_not_move_a_vector(architecture: str, attention: str, checkpoint: Checkpoints) -> None:
    folder = checkpoint(architecture)
    right = Llm2VecEncoder.load(folder, attention=attention)
    left = Llm2VecEncoder.load(folder, attention=attention, padding_side="left")
    batch = right.encode(PROMPTS)
    assert batch.shape == (4, HIDDEN)
    assert batch.dtype == np.float32
    assert furthest(batch, left.encode(PROMPTS)) < 1e-5
    assert furthest(batch, singly(right, PROMPTS)) < 1e-5
    assert furthest(batch[:1], batch[1:]) > 0.01  # the prompts are told apart


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_sliding_window_shorter_than_the_prompt_keeps_padding_out(attention: str, checkpoint: Checkpoints) -> None:
    folder = checkpoint("mistral", sliding_window=6)
    right = Llm2VecEncoder.load(folder, attention=attention)
    left = Llm2VecEncoder.load(folder, attention=attention, padding_side="left")
    assert np.isfinite(left.encode(PROMPTS)).all()
    assert furthest(right.encode(PROMPTS), left.encode(PROMPTS)) < 1e-5
    assert furthest(right.encode(PROMPTS), singly(right, PROMPTS)) < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padded_side_is_where_it_says(side: str, checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint())
    mask, _ = encoder._states([[5, 6], [5, 6, 7, 8]], "left" if side == "left" else "right")
    assert mask[0].tolist() == ([False, False, True, True] if side == "left" else [True, True, False, False])


def test_the_mean_is_over_the_prompt_and_not_its_padding(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint())
    (tokens,) = encoder._tokenize(PROMPTS[1])
    with torch.inference_mode():
        states = encoder._model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    assert furthest(encoder.encode(PROMPTS)[1], states.mean(dim=0).numpy()) < 1e-5


@pytest.mark.parametrize("is_causal", [None, True, "false"])
def test_a_causal_checkpoint_is_refused_with_the_remedy(is_causal: object, checkpoint: Checkpoints) -> None:
    folder = checkpoint(is_causal=is_causal)
    with pytest.raises(EncoderError, match=r'causal checkpoint.*"is_causal": false in its config\.json'):
        Llm2VecEncoder.load(folder)


def test_gemma_2_with_its_own_bidirectional_setting_alone_is_refused(checkpoint: Checkpoints) -> None:
    folder = checkpoint("gemma2", is_causal=None, use_bidirectional_attention=True)
    with pytest.raises(EncoderError, match="is a causal checkpoint"):
        Llm2VecEncoder.load(folder)


def test_an_architecture_that_ignores_the_setting_is_refused(checkpoint: Checkpoints) -> None:
    folder = checkpoint("openai-gpt")
    with pytest.raises(EncoderError, match=r"stayed causal in batches padded on the right.*OpenAIGPTModel"):
        Llm2VecEncoder.load(folder)


def test_a_model_that_is_causal_in_unpadded_batches_only_is_refused(checkpoint: Checkpoints) -> None:
    folder = checkpoint("stablelm")
    with pytest.raises(EncoderError, match=r"stayed causal in unpadded batches.*StableLmModel.*sdpa"):
        Llm2VecEncoder.load(folder, attention="sdpa")


def test_a_model_that_is_causal_in_padded_batches_only_is_refused(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint(), attention="sdpa")
    encoder._model.config.is_causal = True  # as where the setting stands on the attention modules alone
    for layer in encoder._model.layers:
        layer.self_attn.forward = _never_causal(layer.self_attn.forward)
    with pytest.raises(EncoderError, match="stayed causal in batches padded on the right"):
        encoder.refuse_causal()


def _never_causal(forward: Callable[..., object]) -> Callable[..., object]:
    return lambda *args, **kwargs: forward(*args, **{**kwargs, "is_causal": False})


def test_a_bare_adapter_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    with pytest.raises(EncoderError, match=r"PEFT adapter.*merge it"):
        Llm2VecEncoder.load(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        Llm2VecEncoder.load(tmp_path)


def test_a_path_that_is_no_folder_is_refused_and_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _refuse_network)
    with pytest.raises(EncoderError, match="no checkpoint folder at"):
        fit_encoder("llm2vec:meta-llama/Llama-3.2-1B", PROMPTS)


def test_loading_opens_no_connection(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoints) -> None:
    folder = checkpoint("mistral")
    monkeypatch.setattr(socket.socket, "connect", _refuse_network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert Llm2VecEncoder.load(folder).dim == HIDDEN


def _refuse_network(*args: object) -> None:
    raise AssertionError(f"a connection was opened: {args}")


def test_loading_draws_no_bars_and_leaves_those_of_others_alone(
    capfd: pytest.CaptureFixture[str], checkpoint: Checkpoints
) -> None:
    folder = checkpoint()
    capfd.readouterr()
    Llm2VecEncoder.load(folder)
    broken = checkpoint(name="broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError):
        Llm2VecEncoder.load(broken)
    assert "Loading weights" not in capfd.readouterr().err
    AutoModel.from_pretrained(folder)
    assert "Loading weights" in capfd.readouterr().err


def test_missing_weights_are_not_made_up(checkpoint: Checkpoints) -> None:
    folder = checkpoint()
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj\.weight"):
        Llm2VecEncoder.load(folder)


@pytest.mark.parametrize("change", ["truncated", "absent", "of another size"])
def test_broken_weights_are_an_encoder_error(change: str, checkpoint: Checkpoints) -> None:
    folder = checkpoint()
    path = folder / "model.safetensors"
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif change == "absent":
        path.unlink()
    else:
        edit_config(folder, hidden_size=64)
    with pytest.raises(EncoderError, match="transformers cannot load"):
        Llm2VecEncoder.load(folder)


def test_an_unknown_architecture_is_an_encoder_error(checkpoint: Checkpoints) -> None:
    folder = checkpoint(model_type="no-such-thing")
    with pytest.raises(EncoderError, match="transformers cannot load"):
        Llm2VecEncoder.load(folder)


def test_a_sentence_transformer_folder_is_stepped_into(tmp_path: Path, checkpoint: Checkpoints) -> None:
    plain = checkpoint()
    folder = tmp_path / "sentence_transformer"
    shutil.copytree(plain, folder / "0_Transformer")
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    encoder = Llm2VecEncoder.load(folder)
    assert encoder.fingerprint == Llm2VecEncoder.load(plain).fingerprint
    assert furthest(encoder.encode(PROMPTS), Llm2VecEncoder.load(plain).encode(PROMPTS)) < 1e-5


def as_sentence_transformer(folder: Path, pooling: Mapping[str, object], **settings: object) -> Path:
    (folder / "1_Pooling").mkdir()
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean_tokens", "weightedmean_tokens", "lasttoken"])
def test_the_pooling_is_the_folders(pooling: str, side: str, tmp_path: Path, checkpoint: Checkpoints) -> None:
    modes = {"pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    folder = as_sentence_transformer(checkpoint(), modes)
    encoder = Llm2VecEncoder.load(folder, padding_side="left" if side == "left" else "right")
    with torch.inference_mode():
        states = encoder._model(input_ids=torch.tensor(encoder._tokenize(PROMPTS[1]))).last_hidden_state[0].numpy()
    position = np.arange(1, len(states) + 1)[:, None]
    wanted = {
        "mean_tokens": states.mean(axis=0),
        "weightedmean_tokens": (states * position).sum(axis=0) / position.sum(),
        "lasttoken": states[-1],
    }[pooling]
    assert furthest(encoder.encode(PROMPTS)[1], wanted) < 1e-5
    saved = tmp_path / "saved"
    saved.mkdir()
    encoder.save(saved)
    assert furthest(Llm2VecEncoder.open(saved).encode(PROMPTS[1:2])[0], wanted) < 1e-5
    (folder / "modules.json").unlink()
    plain = Llm2VecEncoder.load(folder)
    assert (plain.fingerprint == encoder.fingerprint) is (pooling == "mean_tokens")


def test_pooling_that_decoders_do_not_take_is_refused(checkpoint: Checkpoints) -> None:
    folder = as_sentence_transformer(checkpoint(), {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    with pytest.raises(EncoderError, match="pooling other than mean_tokens, weightedmean_tokens, lasttoken"):
        Llm2VecEncoder.load(folder)


def test_an_instruction_is_read_and_left_out_of_the_pooling(checkpoint: Checkpoints) -> None:
    folder = as_sentence_transformer(
        checkpoint(),
        {"pooling_mode_mean_tokens": True},
        prompts={"query": "Name the year: "},
        default_prompt_name="query",
    )
    encoder = Llm2VecEncoder.load(folder)
    n_skipped = len(encoder._tokenizer("Name the year: ")["input_ids"])
    with torch.inference_mode():
        ids = torch.tensor([encoder._tokenizer("Name the year: " + PROMPTS[1])["input_ids"]])
        states = encoder._model(input_ids=ids).last_hidden_state[0, n_skipped:]
    assert furthest(encoder.encode(PROMPTS)[1], states.mean(dim=0).numpy()) < 1e-5
    with pytest.raises(EncoderError, match="more than half of 8 tokens"):
        Llm2VecEncoder.load(folder, max_tokens=8)


def test_a_long_prompt_keeps_its_head_and_tail(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint(), max_tokens=16)
    middle = " and so on" * 10
    assert encoder.max_tokens == 16
    (tokens,) = encoder._tokenize(PROMPTS[0] + middle + PROMPTS[2])
    assert len(tokens) == 16
    assert tokens[0] == 1  # <s> stays
    ends = encoder.encode([PROMPTS[0] + middle + PROMPTS[2], PROMPTS[0] + middle * 2 + PROMPTS[2]])
    assert furthest(ends[0], ends[1]) < 1e-6
    assert furthest(ends[0], encoder.encode([PROMPTS[0] + middle + PROMPTS[1]])[0]) > 1e-3


def test_windows_of_a_long_prompt_each_begin_as_a_prompt_does(checkpoint: Checkpoints, tmp_path: Path) -> None:
    folder = as_sentence_transformer(
        checkpoint(),
        {"pooling_mode_mean_tokens": True},
        prompts={"query": "Name: "},
        default_prompt_name="query",
    )
    head = Llm2VecEncoder.load(folder, max_tokens=16)
    encoder = Llm2VecEncoder.load(folder, max_tokens=16, n_windows=3)
    assert furthest(encoder.encode(["What is 7?"]), head.encode(["What is 7?"])) == 0
    start = encoder._tokenizer("Name: ")["input_ids"]
    text = f"{PROMPTS[1]} {PROMPTS[3]}"
    parts = encoder._tokenize(text)
    assert len(parts) == 2
    assert all(part[: len(start)] == start and len(part) <= 16 for part in parts)
    body = list(chain(*(part[len(start) :] for part in parts)))
    assert start + body == encoder._tokenizer("Name: " + text)["input_ids"]
    with torch.inference_mode():
        means = [encoder._model(input_ids=torch.tensor([p])).last_hidden_state[0, len(start) :].mean(0) for p in parts]
    weights = np.array([len(part) for part in parts]) / sum(map(len, parts))
    assert furthest(encoder.encode([text])[0], weights @ torch.stack(means).numpy()) < 1e-5
    assert len(encoder._tokenize(PROMPTS[0] * 9)) == 3
    saved = tmp_path / "saved"
    saved.mkdir()
    encoder.save(saved)
    opened = open_encoder(saved)
    assert opened.fingerprint == encoder.fingerprint != head.fingerprint
    assert furthest(opened.encode(PROMPTS), encoder.encode(PROMPTS)) < 1e-5
    before = json.loads((saved / "encoder.json").read_text("utf-8")) | {"fingerprint": head.fingerprint}
    del before["n_windows"], before["dtype"]
    (saved / "encoder.json").write_text(json.dumps(before), encoding="utf-8")
    assert furthest(open_encoder(saved).encode(PROMPTS), head.encode(PROMPTS)) < 1e-5  # as it was saved once


@given(st.lists(st.integers(1, 512), max_size=64))
def test_no_batch_pads_the_short_to_the_long(lengths: list[int]) -> None:
    batches = list(_batches(lengths))
    assert sorted(chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        longest, shortest = max(lengths[row] for row in batch), min(lengths[row] for row in batch)
        assert longest <= max(2 * shortest, 32)
        assert longest * len(batch) <= 8_192


def test_the_latest_prompts_are_kept(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint())
    first = encoder.encode(PROMPTS)
    torch.nn.init.zeros_(encoder._model.embed_tokens.weight)
    assert furthest(encoder.encode(PROMPTS[1:3]), first[1:3]) == 0
    assert not encoder.encode(["A new one."]).any()


def test_the_token_limit_is_at_most_the_models(checkpoint: Checkpoints) -> None:
    assert Llm2VecEncoder.load(checkpoint(max_position_embeddings=64)).max_tokens == 64


def test_batches_of_many_lengths_equal_single_prompts(checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.encoder.llm2vec.TOKENS_PER_BATCH", 64)
    encoder = Llm2VecEncoder.load(checkpoint())
    prompts = [PROMPTS[0][:length] for length in (70, 3, 0, 55, 1, 90, 12, 30)]
    assert furthest(encoder.encode(prompts), singly(encoder, prompts)) < 1e-5


def test_threads_do_not_disturb_each_other(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint())
    alone = encoder.encode(PROMPTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(furthest(vectors, alone) < 1e-5 for vectors in pool.map(encoder.encode, [PROMPTS] * 20))


def test_memory_that_is_not_there_is_an_encoder_error(checkpoint: Checkpoints) -> None:
    encoder = Llm2VecEncoder.load(checkpoint())
    failing = encoder._model.register_forward_pre_hook(lambda *_: torch.empty(2**50) and None)
    with pytest.raises(EncoderError, match="could not encode"):
        encoder.encode(["a prompt"])
    failing.remove()
    assert encoder.encode(["a prompt"]).any()


def test_no_prompts_give_no_rows(checkpoint: Checkpoints) -> None:
    assert Llm2VecEncoder.load(checkpoint()).encode([]).shape == (0, HIDDEN)


def test_a_prompt_without_a_token_is_all_zeros(checkpoint: Checkpoints) -> None:
    folder = checkpoint()
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"post_processor": None}), encoding="utf-8")
    vectors = Llm2VecEncoder.load(folder).encode(["", PROMPTS[1]])
    assert not vectors[0].any()
    assert vectors[1].any()


@pytest.mark.parametrize("prompt", ["\ud800 lone", "nul \0 byte", "🙂" * 50, "مرحبا", "x" * 1_000_000])
def test_odd_text_is_encoded(prompt: str, checkpoint: Checkpoints) -> None:
    assert np.isfinite(Llm2VecEncoder.load(checkpoint(), max_tokens=64).encode([prompt])).all()


def test_a_tokenizer_without_a_pad_token_pads_with_another(checkpoint: Checkpoints) -> None:
    folder = checkpoint()
    padded = Llm2VecEncoder.load(folder).encode(PROMPTS)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["pad_token"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    encoder = Llm2VecEncoder.load(folder)
    assert encoder._tokenizer.pad_token is None
    assert furthest(encoder.encode(PROMPTS), padded) < 1e-6


def test_a_saved_encoder_comes_back_the_same(tmp_path: Path, checkpoint: Checkpoints) -> None:
    encoder = fit_encoder(f"llm2vec:{checkpoint()}", PROMPTS)
    saved = tmp_path / "encoder"
    saved.mkdir()
    encoder.save(saved)
    opened = open_encoder(saved)
    assert [path.name for path in saved.iterdir()] == ["encoder.json"]
    assert opened.fingerprint == encoder.fingerprint
    assert opened.depends_on_logs is False
    assert furthest(opened.encode(PROMPTS), encoder.encode(PROMPTS)) < 1e-5


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_checkpoint_that_changed_after_training_is_refused(
    file: str, tmp_path: Path, checkpoint: Checkpoints
) -> None:
    folder = checkpoint()
    saved = tmp_path / "encoder"
    saved.mkdir()
    Llm2VecEncoder.load(folder).save(saved)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1] + b" " if file == "model.safetensors" else content + b"\n")
    with pytest.raises(EncoderError, match="has changed since the artifact was trained"):
        open_encoder(saved)


def test_the_fingerprint_is_of_the_content_and_the_limit_not_of_the_path(checkpoint: Checkpoints) -> None:
    a, b, other = checkpoint(name="a"), checkpoint(name="b"), checkpoint("qwen3", name="c")
    (b / "README.md").write_text("a model card", encoding="utf-8")
    fingerprint = Llm2VecEncoder.load(a).fingerprint
    assert len(fingerprint) == 16
    assert Llm2VecEncoder.load(b).fingerprint == fingerprint
    assert Llm2VecEncoder.load(other).fingerprint != fingerprint
    assert Llm2VecEncoder.load(a, max_tokens=100).fingerprint != fingerprint


# slow: OpenVINO brings threads of its own into the process, and compiles every architecture
@pytest.mark.slow
@pytest.mark.parametrize("architecture", DECODERS)
def test_openvino_computes_the_same_vectors(architecture: str, checkpoint: Checkpoints) -> None:
    folder = checkpoint(architecture)
    ours, theirs = Llm2VecEncoder.load(folder), Llm2VecEncoder.load(folder, backend="openvino")
    assert isinstance(theirs._model, OpenVinoModel)
    assert furthest(theirs.encode(PROMPTS), ours.encode(PROMPTS)) < 1e-4
    assert furthest(theirs.encode(PROMPTS), singly(theirs, PROMPTS)) < 1e-4
    assert theirs.fingerprint == ours.fingerprint


@pytest.mark.slow
def test_openvino_reports_to_nobody(checkpoint: Checkpoints) -> None:
    Llm2VecEncoder.load(checkpoint(), backend="openvino")
    assert sys.modules.get("openvino_telemetry") is None
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


@pytest.mark.slow
def test_a_trace_that_computes_something_else_is_refused(
    checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OpenVinoModel,
        "__call__",
        lambda _, **named: SimpleNamespace(last_hidden_state=named["input_ids"][..., None] * torch.ones(HIDDEN)),
    )
    with pytest.raises(EncoderError, match="computes other states than LlamaModel"):
        Llm2VecEncoder.load(checkpoint(), backend="openvino")


@pytest.mark.slow
def test_the_backend_is_asked_for_by_the_environment(
    checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "openvino")
    encoder = fit_encoder(f"llm2vec:{checkpoint()}", [])
    assert isinstance(encoder, Llm2VecEncoder)
    assert isinstance(encoder._model, OpenVinoModel)
    encoder.save(tmp_path)
    monkeypatch.setenv(BACKEND_VARIABLE, "torch")
    opened = open_encoder(tmp_path)
    assert opened.fingerprint == encoder.fingerprint
    assert cosines(opened.encode(PROMPTS), encoder.encode(PROMPTS)).min() > 0.999
    monkeypatch.setenv(BACKEND_VARIABLE, "onnx")
    with pytest.raises(EncoderError, match=f"{BACKEND_VARIABLE} is 'onnx'; valid are torch, openvino"):
        open_encoder(tmp_path)


def test_bfloat16_is_near_and_goes_by_a_name_of_its_own(
    checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    folder = checkpoint()
    exact, rounded = Llm2VecEncoder.load(folder), Llm2VecEncoder.load(folder, dtype=best_dtype("cpu"))
    assert rounded._model.dtype == torch.bfloat16
    assert rounded.encode(PROMPTS).dtype == np.float32
    assert 0.999 < cosines(rounded.encode(PROMPTS), exact.encode(PROMPTS)).min() < 1
    assert rounded.fingerprint != exact.fingerprint
    rounded.save(tmp_path)
    features.clear()  # on a machine without it
    opened = open_encoder(tmp_path)
    assert isinstance(opened, Llm2VecEncoder)
    assert opened._model.dtype == torch.float32
    assert opened.fingerprint == rounded.fingerprint
    assert best_dtype("cpu") == "float32"
