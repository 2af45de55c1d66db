"""Asking for encoders by name, and bringing saved ones back."""

import subprocess
import sys
from pathlib import Path

import pytest

from router.encoder.lsa import LsaEncoder
from router.encoder.registry import KINDS, fit_encoder, open_encoder
from router.errors import EncoderError

PROMPTS = ["What is 7 times 8?", "Is 91 prime?", "Name the capital of France."]


def test_lsa_is_fitted_on_the_prompts() -> None:
    encoder = fit_encoder("lsa", PROMPTS)
    assert isinstance(encoder, LsaEncoder)
    assert encoder.fingerprint == LsaEncoder.fit(PROMPTS).fingerprint


@pytest.mark.parametrize("spec", ["", "word2vec", "LSA", "llm2vec/path", ":lsa"])
def test_an_unknown_encoder_is_told_the_valid_ones(spec: str) -> None:
    with pytest.raises(
        EncoderError,
        match=r"no encoder is called .*; valid are lsa, bundled, .*, llm2vec:PATH, .*, remote:URL#MODEL$",
    ):
        fit_encoder(spec, PROMPTS)


@pytest.mark.parametrize("spec", ["llm2vec", "llm2vec:"])
def test_llm2vec_needs_a_path(spec: str) -> None:
    with pytest.raises(EncoderError, match="say `llm2vec:PATH`"):
        fit_encoder(spec, PROMPTS)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=f"no checkpoint folder at {tmp_path / 'absent'}"):
        fit_encoder(f"llm2vec:{tmp_path / 'absent'}", PROMPTS)


@pytest.mark.parametrize("name", ["lsa", "bundled", "lsa+bundled"])
def test_only_llm2vec_takes_a_path(name: str) -> None:
    for odd in (":models/x", "#windows=0", "#windows", "#x"):
        with pytest.raises(EncoderError, match="takes no path"):
            fit_encoder(f"{name}{odd}", PROMPTS)


@pytest.mark.parametrize("text", [None, "not json", "[]", "{}", '{"kind": "word2vec"}', '{"kind": ["lsa"]}'])
def test_a_folder_without_a_known_encoder_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "encoder.json").write_text(text, encoding="utf-8")
    with pytest.raises(EncoderError, match=str(tmp_path)):
        open_encoder(tmp_path)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_encoder_that_lost_its_files_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text(f'{{"kind": "{kind}"}}', encoding="utf-8")
    with pytest.raises(EncoderError, match=str(tmp_path)):
        open_encoder(tmp_path)


def test_the_registry_imports_no_encoder_before_it_is_asked_for() -> None:
    script = (
        "import sys, router.encoder.registry;"
        "print([name for name in ('tokenizers', 'transformers', 'torch', 'sklearn') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60
    )
    assert done.stdout.strip() == "[]"
