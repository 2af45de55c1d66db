"""The LSA encoder: its arithmetic beside scikit-learn's, its bytes, and text that nobody expects."""

import hashlib
import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import svd
from sklearn.feature_extraction.text import TfidfTransformer

from router.encoder import lsa
from router.encoder.lsa import MAX_DIM, MAX_TOKENS, LsaEncoder, _tokenize, _Words
from router.encoder.registry import open_encoder
from router.errors import EncoderError

TOPICS = {
    "apples": "Tom buys {} apples and {} pears at the market. How much fruit has he?",
    "code": "def f(x): return x * {} + {}  # what does f(2) return?",
    "algebra": r"Solve $\frac{{x}}{{{}}} = {}$ for $x$.",
    "history": "In which year, {} or {}, was the treaty signed by the king?",
}


def questions(n: int) -> list[str]:
    rng = random.Random(0)
    return [list(TOPICS.values())[i % 4].format(rng.randrange(100), rng.randrange(100)) for i in range(n)]


@pytest.fixture(scope="module")
def encoder() -> LsaEncoder:
    return LsaEncoder.fit(questions(400))


def content(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def test_vectors_are_tfidf_times_the_right_singular_vectors() -> None:
    prompts = questions(120)
    encoder = LsaEncoder.fit(prompts)
    column = {int(key): i for i, key in enumerate(encoder._keys)}
    counts = np.zeros((len(prompts), len(column)))
    for row, prompt in enumerate(prompts):
        tokens = encoder._tokenizer.encode(prompt, add_special_tokens=False).ids
        for ngram in (*tokens, *((a + 1 << 32) | b for a, b in pairwise(tokens))):
            if ngram in column:
                counts[row, column[ngram]] += 1
    tfidf = TfidfTransformer(sublinear_tf=True, smooth_idf=True, norm="l2").fit_transform(counts).toarray()
    _, _, right = svd(tfidf, full_matrices=False)
    vectors = encoder.encode(prompts)
    leading = tfidf @ right[:4].T  # the first four singular values lie apart
    assert np.abs(np.abs(vectors[:, :4]) - np.abs(leading)).max() < 2e-3  # float16 components, either sign
    assert np.abs(vectors @ vectors.T - tfidf @ tfidf.T).max() < 2e-3  # all of the rank is kept


def test_questions_of_one_topic_lie_together(encoder: LsaEncoder) -> None:
    prompts = questions(8)
    vectors = encoder.encode(prompts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    same = np.array([[i % 4 == j % 4 for j in range(8)] for i in range(8)])
    assert similarity[same].min() > similarity[~same].max() + 0.2


def test_an_unseen_word_still_has_known_parts(encoder: LsaEncoder) -> None:
    assert "marketing" not in " ".join(questions(400))
    assert encoder.encode(["marketing"]).any()


def test_letter_case_and_compatibility_forms_do_not_matter(encoder: LsaEncoder) -> None:
    a, b = encoder.encode(["Tom buys 12 apples", "ＴＯＭ BUYS １２ apples"])
    assert np.array_equal(a, b)


def test_batch_equals_single_to_the_bit(encoder: LsaEncoder) -> None:
    prompts = [*questions(50), "", "unknown: ξ", "x" * 100]
    batch = encoder.encode(prompts)
    assert batch.shape == (53, encoder.dim)
    assert batch.dtype == np.float32
    assert np.array_equal(batch, np.vstack([encoder.encode([prompt]) for prompt in prompts]))


@given(
    st.text(
        st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t\v\x1c\\.1ab\u00a0\u0301\u00a8\u2003ﬁ中ａ")),
        max_size=60,
    )
)
def test_word_by_word_has_the_tokens_of_the_whole(encoder: LsaEncoder, text: str) -> None:
    tokenizer = encoder._tokenizer
    (whole,) = _tokenize(tokenizer, [text], MAX_TOKENS)
    words = _Words(tokenizer)
    for _ in ("new", "known"):
        (tokens,) = words.tokenize([text], MAX_TOKENS)
        np.testing.assert_array_equal(tokens, whole)


def test_words_are_kept_within_bounds(encoder: LsaEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsa, "MOST_WORDS", 5)
    words = _Words(encoder._tokenizer)
    text = " ".join([f"word{i}" for i in range(12)] + ["x" * 50])
    (tokens,) = words.tokenize([text], MAX_TOKENS)
    assert len(words._known) <= 5
    assert not any(len(word) > lsa.LONGEST_WORD for word in words._known)
    np.testing.assert_array_equal(tokens, next(iter(_tokenize(encoder._tokenizer, [text], MAX_TOKENS))))


def test_threads_do_not_disturb_each_other(encoder: LsaEncoder) -> None:
    prompts = questions(40)
    alone = encoder.encode(prompts)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(vectors, alone) for vectors in pool.map(encoder.encode, [prompts] * 40))


def test_no_prompts_give_no_rows(encoder: LsaEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_an_empty_prompt_is_all_zeros(encoder: LsaEncoder) -> None:
    assert not encoder.encode(["", "  \n"]).any()


def test_a_saved_encoder_gives_the_same_vectors(encoder: LsaEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    opened = open_encoder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "lsa.safetensors", "tokenizer.json"]
    assert json.loads((tmp_path / "encoder.json").read_text("utf-8"))["kind"] == "lsa"
    assert opened.fingerprint == encoder.fingerprint
    assert opened.max_tokens == encoder.max_tokens == MAX_TOKENS
    assert opened.depends_on_logs is True
    assert np.array_equal(opened.encode(questions(40)), encoder.encode(questions(40)))


def test_the_same_prompts_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.test_encoder_lsa import LsaEncoder, questions;"
        "LsaEncoder.fit(questions(2000), max_dim=16).save(Path(sys.argv[1]))"
    )
    for name, threads in (("one", "1"), ("two", "2")):
        (tmp_path / name).mkdir()
        environment = {"OPENBLAS_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[1], timeout=120)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_other_prompts_give_another_fingerprint(encoder: LsaEncoder) -> None:
    assert len(encoder.fingerprint) == 16
    assert LsaEncoder.fit(questions(399)).fingerprint != encoder.fingerprint
    assert LsaEncoder.fit(questions(400), max_tokens=100).fingerprint != encoder.fingerprint


@pytest.mark.parametrize(
    ("prompts", "dim"),
    [(["one and the same"] * 3, 1), (["", " "], 1), (["the"], 1), (["a b", "c d", "e f"], 3), (questions(20), 20)],
)
def test_the_dimension_shrinks_to_what_the_questions_hold(prompts: list[str], dim: int) -> None:
    encoder = LsaEncoder.fit(prompts)
    assert encoder.dim == dim
    assert np.isfinite(encoder.encode([*prompts, "something else entirely", ""])).all()


def test_the_dimension_is_bounded() -> None:
    prompts = [f"{i} {hashlib.sha256(str(i).encode()).hexdigest()}" for i in range(600)]
    assert LsaEncoder.fit(prompts).dim == MAX_DIM


def test_fitting_on_nothing_says_what_is_missing() -> None:
    with pytest.raises(EncoderError, match="there are none: import a log first"):
        LsaEncoder.fit([])


def test_a_long_prompt_keeps_its_head_and_tail() -> None:
    encoder = LsaEncoder.fit(questions(400), max_tokens=20)
    head, tail = "Tom buys apples and pears at the market", "in which year was the treaty signed by the king"
    short, long = encoder.encode([head + " x" * 50 + tail, head + " x" * 5000 + tail])
    assert np.abs(short - long).max() < 1e-6
    assert not np.array_equal(long, encoder.encode([head + " x" * 5000 + head])[0])


@pytest.mark.parametrize(
    "prompt",
    ["a" * 5_000_000, "word " * 1_000_000, "🙂" * 1_000_000, "ﷺ" * 1_000_000, "1" * 5_000_000, "\n" * 5_000_000],
    ids=["one word", "words", "emoji", "expands eighteenfold", "digits", "blank"],
)
def test_five_megabytes_take_no_seconds(prompt: str, encoder: LsaEncoder) -> None:
    start = time.perf_counter()
    assert np.isfinite(encoder.encode([prompt])).all()
    assert time.perf_counter() - start < 20  # 0.6 at worst on an idle core; a square of its length would take minutes


@given(st.text(st.characters(codec=None)))
def test_any_text_is_encoded(text: str) -> None:
    vectors = HYPOTHESIS_ENCODER.encode([text, text + "\ud800", "\0" + text])
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors[0], HYPOTHESIS_ENCODER.encode([text])[0])


HYPOTHESIS_ENCODER = LsaEncoder.fit(questions(40))


@pytest.mark.parametrize("odd", ["\ud800\udfff", "\0\0", "‮مرحبا بالعالم‬", "👩‍👩‍👧‍👦", "日本語の質問", "é́́́́"])
def test_odd_text_can_be_fitted_on(odd: str) -> None:
    encoder = LsaEncoder.fit([odd, odd + " again", "plain"])
    assert np.isfinite(encoder.encode([odd, "plain"])).all()


def test_a_broken_artifact_is_an_encoder_error(encoder: LsaEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    (tmp_path / "lsa.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(EncoderError, match="cannot be read"):
        open_encoder(tmp_path)


def test_serving_imports_no_scikit_learn(encoder: LsaEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    script = (
        "import sys; from pathlib import Path; from router.encoder.registry import open_encoder;"
        "assert open_encoder(Path(sys.argv[1])).encode(['two apples']).any();"
        "print([name for name in ('sklearn', 'scipy', 'transformers', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_real_questions_take_little_room(shared_data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(shared_data / "zeroeval" / "questions.csv")
    train = table.loc[table["split"] == "train", "prompt"].astype(str).tolist()
    encoder = LsaEncoder.fit(train)
    encoder.save(tmp_path)
    assert encoder.dim == MAX_DIM
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 50_000_000
