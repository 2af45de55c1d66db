"""The encoder in the package: it is what its card says, and its plain arrays compute what transformers computes."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import Engine, select

from data import queries
from data.demo.generate import generate
from data.tables import QuestionVector
from router.artifact import read_artifact
from router.encoder.bundled import FOLDER, BundledEncoder
from router.encoder.checkpoint import Checkpoint
from router.encoder.joined import JoinedEncoder, Part
from router.encoder.llama import Llama
from router.encoder.llm2vec import Llm2VecEncoder
from router.encoder.lsa import LsaEncoder
from router.encoder.registry import fit_encoder, open_encoder
from router.errors import EncoderError
from tests.planted import planted_log
from tests.stored import store_log
from tests.tiny_llama import N_TOKENS, tiny_llama
from training.llm2vec.checkpoint_folders import export, make_bidirectional
from training.llm2vec.recipe import Shape
from training.llm2vec.tokenizer import train_tokenizer
from training.train import read_correctness, train
from training.vectors import question_vectors

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-5  # of the same products, which some processors round by where in memory their factors lie
PROMPTS = [question.prompt for question in generate(40, 0)]


@pytest.fixture(scope="module")
def bundled() -> BundledEncoder:
    return BundledEncoder()


def furthest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def test_it_is_small_says_what_it_is_and_reads_both_ways(bundled: BundledEncoder) -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 20e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for said in ("license: apache-2.0", "## Data", "## Steps", "## Figures", "## Limits", "embedrouter llm2vec bundle"):
        assert said in card
    transformers_own = Llm2VecEncoder.load(FOLDER, max_tokens=bundled.max_tokens)  # it refuses causal ones
    vectors = bundled.encode(PROMPTS)
    assert vectors.shape == (40, bundled.dim)
    assert furthest(vectors, transformers_own.encode(PROMPTS)) < 1e-4
    assert furthest(vectors, np.vstack([bundled.encode([prompt]) for prompt in PROMPTS])) < 1e-4


def test_it_is_as_large_as_the_recipe_makes_one() -> None:
    config, shape = json.loads((FOLDER / "config.json").read_text(encoding="utf-8")), Shape()
    said = [config[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")]
    assert said == [shape.hidden, shape.layers, shape.heads, shape.feed_forward]
    assert config["vocab_size"] == shape.n_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_such_llama_is_computed_as_transformers_does(dtype: torch.dtype, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(PROMPTS, N_TOKENS)
    wider = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 512}
    model = tiny_llama(**wider, initializer_range=0.3)  # so that attention is far from even
    make_bidirectional(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    export(model, tokenizer, tmp_path, pooling="mean", max_tokens=64, dtype=dtype)
    ours, theirs = BundledEncoder(tmp_path, 64), Llm2VecEncoder.load(tmp_path, max_tokens=64)
    prompts = [*PROMPTS, " ".join(PROMPTS), "", "x"]
    assert furthest(ours.encode(prompts)[:-2], theirs.encode(prompts)[:-2]) < 1e-4
    assert furthest(ours.encode(prompts)[-1], theirs.encode(prompts)[-1]) < 1e-4
    assert not ours.encode([""]).any()


@pytest.mark.parametrize(
    "settings", [{"is_causal": True}, {"hidden_act": "gelu"}, {"num_key_value_heads": 1}, {"model_type": "qwen3"}]
)
def test_another_architecture_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    config = json.loads((FOLDER / "config.json").read_text("utf-8")) | settings
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match=f"no small bidirectional Llama, by its {next(iter(settings))}"):
        Llama.read(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError, match="cannot be read"):
        Llama.read(tmp_path)


def test_the_latest_prompts_are_kept() -> None:
    encoder = BundledEncoder()
    first = encoder.encode(PROMPTS[:2])
    encoder._llama = replace(encoder._llama, embedding=encoder._llama.embedding * 0)
    assert furthest(encoder.encode([PROMPTS[1], PROMPTS[0]]), first[[1, 0]]) == 0
    assert not encoder.encode(PROMPTS[2:3]).any()


def test_a_long_prompt_keeps_its_head_and_tail(bundled: BundledEncoder) -> None:
    middle = " and so on" * 400
    (tokens,) = bundled.tokenize(PROMPTS[0] + middle + PROMPTS[2])
    assert len(tokens) == bundled.max_tokens == 256
    assert tokens[:20] == bundled.tokenize(PROMPTS[0])[0][:20]
    assert furthest(*(bundled.encode([PROMPTS[0] + middle * n + PROMPTS[2]]) for n in (1, 2))) < 1e-5


def test_windows_of_a_long_prompt_are_averaged_by_their_tokens(bundled: BundledEncoder, tmp_path: Path) -> None:
    encoder = fit_encoder("bundled#windows=3", [])
    assert isinstance(encoder, BundledEncoder)
    short = [prompt for prompt in PROMPTS if len(encoder.tokenize(prompt)) == 1]
    assert 1 < len(short) < len(PROMPTS)
    assert furthest(encoder.encode(short), bundled.encode(short)) < ROUNDING
    long = " ".join(PROMPTS)[:1_800]
    parts = encoder.tokenize(long)
    (whole,) = BundledEncoder(max_tokens=3 * 256).tokenize(long)
    assert len(parts) == 3
    assert list(chain(*parts)) == whole
    weights = np.array([len(part) for part in parts]) / len(whole)
    assert furthest(encoder.encode([long])[0], weights @ encoder._llama.means(parts)) < 1e-6
    assert len(list(chain(*encoder.tokenize(long * 9)))) == 3 * 256
    assert encoder.fingerprint != bundled.fingerprint
    encoder.save(tmp_path)
    assert furthest(open_encoder(tmp_path).encode([long]), encoder.encode([long])) < ROUNDING


def test_one_that_was_saved_before_there_were_windows_is_the_same(bundled: BundledEncoder, tmp_path: Path) -> None:
    named = f"bundled 1, 256 tokens, {Checkpoint.find(FOLDER).fingerprint()}"
    before = {"kind": "bundled", "fingerprint": hashlib.sha256(named.encode()).hexdigest()[:16]}
    (tmp_path / "encoder.json").write_text(json.dumps(before), encoding="utf-8")
    opened = open_encoder(tmp_path)
    assert furthest(opened.encode([" ".join(PROMPTS)]), bundled.encode([" ".join(PROMPTS)])) < ROUNDING


@pytest.mark.parametrize("prompt", ["\ud800 lone", "nul \0 byte", "🙂" * 50, "مرحبا", "x" * 1_000_000, "\n"])
def test_odd_text_is_encoded(prompt: str, bundled: BundledEncoder) -> None:
    assert np.isfinite(bundled.encode([prompt])).all()


@pytest.mark.parametrize("spec", ["bundled", "lsa+bundled", "lsa+bundled#windows=4"])
def test_a_saved_one_comes_back_the_same(spec: str, tmp_path: Path) -> None:
    encoder = fit_encoder(spec, PROMPTS)
    encoder.save(tmp_path)
    opened = open_encoder(tmp_path)
    assert (
        opened.fingerprint == encoder.fingerprint == json.loads((tmp_path / "encoder.json").read_text())["fingerprint"]
    )
    assert (opened.dim, opened.max_tokens, opened.depends_on_logs) == (
        encoder.dim,
        encoder.max_tokens,
        encoder.depends_on_logs,
    )
    assert furthest(opened.encode(PROMPTS[:5]), encoder.encode(PROMPTS[:5])) < ROUNDING


def test_a_release_with_another_one_serves_what_was_saved(
    bundled: BundledEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled.save(tmp_path)
    monkeypatch.setattr("router.encoder.bundled.FOLDER", tmp_path / "of another release")
    assert furthest(open_encoder(tmp_path).encode(PROMPTS), bundled.encode(PROMPTS)) < ROUNDING


def test_its_limit_is_saved_with_it(tmp_path: Path) -> None:
    encoder = BundledEncoder(max_tokens=16)
    encoder.save(tmp_path)
    opened = open_encoder(tmp_path)
    assert opened.max_tokens == 16
    assert furthest(opened.encode(PROMPTS), encoder.encode(PROMPTS)) < ROUNDING


def test_one_that_is_neither_saved_nor_shipped_is_refused(tmp_path: Path) -> None:
    saved = {"kind": "bundled", "fingerprint": "0" * 16}  # as releases wrote it that kept no copy
    (tmp_path / "encoder.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(EncoderError, match="was trained with the bundled encoder 0000"):
        open_encoder(tmp_path)


def test_joined_directions_have_their_shares_and_nothing_stays_nothing() -> None:
    encoder = JoinedEncoder.fit(PROMPTS)
    lsa = encoder.parts[0].encoder.dim
    vectors = encoder.encode([*PROMPTS, ""])
    assert np.square(vectors[:-1, :lsa]).sum(axis=1) == pytest.approx(np.full(40, 0.5), abs=1e-5)
    assert np.square(vectors[:-1, lsa:]).sum(axis=1) == pytest.approx(np.full(40, 0.5), abs=1e-5)
    assert not vectors[-1].any()
    part = Part(LsaEncoder.fit(PROMPTS), np.ones(2, dtype=np.float32), 0.25)
    raw = np.array([[4.0, 5.0], [1.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    assert part.direction(raw) == pytest.approx(np.array([[0.3, 0.4], [0, 0], [0, 0]]), abs=1e-6)


def test_training_keeps_the_bundled_vectors_and_joins_them_anew(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, planted_log(200, 3).log, "planted")
    trained = train(sqlite_engine, tmp_path, encoder_spec="lsa+bundled")
    artifact = read_artifact(trained.artifact.folder)
    assert artifact.manifest.encoder == "lsa+bundled"
    assert isinstance(artifact.encoder, JoinedEncoder)
    data = read_correctness(sqlite_engine)
    with sqlite_engine.connect() as connection:
        kept = connection.execute(select(QuestionVector)).all()
    fingerprint = artifact.encoder.parts[1].encoder.fingerprint
    assert {row.encoder_fingerprint for row in kept} == {fingerprint}
    assert len(queries.question_vectors(sqlite_engine, fingerprint)) == len(kept) == data.n_questions
    joined = question_vectors(sqlite_engine, artifact.encoder, data)
    assert furthest(joined, artifact.encoder.encode(data.prompts)) < 1e-4
    assert np.isfinite(artifact.p_correct(["What is 7 times 8?"])).all()


def test_serving_it_imports_neither_torch_nor_transformers() -> None:
    script = (
        "import sys; import router.encoder.joined; from router.encoder.bundled import BundledEncoder;"
        "BundledEncoder().encode(['What is 7 times 8?']);"
        "print([name for name in ('transformers', 'torch', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"
