"""Latent semantic analysis: TF-IDF over sub-word uni- and bigrams, projected on the leading singular vectors.

Fitted on the training questions (Deerwester et al. 1990) and stored as plain arrays. Fitting and serving count n-grams
with the same code: the Rust tokenizer, then a look-up in a sorted key array; scikit-learn is imported by `fit` alone,
for the singular vectors. It knows no labels.

The sizes were chosen on the validation questions of two logs (50 and 26 models): bigrams help, single digits and
sub-words are as good as whole numbers and whole words, and beyond 200 dimensions or 30,000 n-grams nothing is gained.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from router.encoder.base import Vectors
from router.encoder.text import readable, surplus
from router.errors import EncoderError

MAX_DIM = 192
MAX_FEATURES = 30_000
VOCABULARY = 8_000
MAX_TOKENS = 4_096
CHARS_PER_TOKEN = 8  # a longer prompt is cut before it is tokenized
RARE_BELOW = 100  # with fewer questions, n-grams seen once are kept too
CHUNK = 1_000  # prompts tokenized at once; their tokens take a hundred bytes each until they are arrays
SEED = 0

TOGETHER = 256  # prompts whose n-grams are looked up at once
FEW_PROMPTS = 32  # what serving encodes together: its words are looked up
SPACES = re.compile(r"[ \n]+")  # no token reaches across them, and no character composes with them
MOST_WORDS = 20_000  # that are kept
LONGEST_WORD = 40  # characters, and tokens, of one that is kept

# a LaTeX command, a letter of a script without spaces, a word, one digit, one symbol
PIECES = (
    r"\\\p{L}+|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|\p{L}[[\p{L}\p{M}]&&[^\p{Han}\p{Hiragana}\p{Katakana}]]*"
    r"|\p{N}|[^\s\p{L}\p{N}]"
)
# the same in ASCII, where no character composes with the next
ASCII_PIECES = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|[^ \t\n\v\f\rA-Za-z]")


class LsaEncoder:
    """Encodes prompts by looking up their n-grams.

    keys: of shape (n_features,), the n-grams in ascending order; idf: of shape (n_features,);
    components: float16 of shape (n_features, dim), the right singular vectors.
    """

    depends_on_logs = True
    is_light = True
    is_serial = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        keys: NDArray[np.int64],
        idf: NDArray[np.float32],
        components: NDArray[np.float16],
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._words = _Words(tokenizer)
        self._keys = keys
        self._padded_keys = np.append(keys, -1)  # what lies beyond the last key is no n-gram
        self._idf = idf
        self._stored = components
        self._components = components.astype(np.float32)  # (F, D)

    @classmethod
    def fit(cls, prompts: Sequence[str], *, max_dim: int = MAX_DIM, max_tokens: int = MAX_TOKENS) -> "LsaEncoder":
        """Fit on training prompts; the dimension shrinks to the rank of their n-gram matrix."""
        if not prompts:
            raise EncoderError(
                "the lsa encoder is fitted on training questions, and there are none: import a log first"
            )
        cut = [readable(prompt, max_tokens * CHARS_PER_TOKEN) for prompt in prompts]
        tokenizer = _train_tokenizer(cut)
        ngrams = [np.unique(_occurrences([tokens])[1]) for tokens in _tokenize(tokenizer, cut, max_tokens)]
        keys, n_questions = np.unique(np.concatenate(ngrams), return_counts=True)  # (F,), (F,)
        frequent = n_questions >= (1 if len(prompts) < RARE_BELOW else 2)
        keys, n_questions = keys[frequent], n_questions[frequent]
        kept = np.sort(np.lexsort((keys, -n_questions))[:MAX_FEATURES])  # ties go to the smaller key
        keys, n_questions = keys[kept], n_questions[kept]
        idf = np.log((1 + len(prompts)) / (1 + n_questions)) + 1  # smooth idf
        unprojected = cls(tokenizer, keys, idf.astype(np.float32), np.zeros((len(keys), 0), np.float16), max_tokens)
        components = _singular_vectors(list(unprojected._weigh(cut)), len(keys), max_dim)
        return cls(tokenizer, keys, unprojected._idf, components, max_tokens)

    @classmethod
    def open(cls, folder: Path) -> "LsaEncoder":
        """Bring a saved encoder back."""
        try:
            options = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            text = (folder / "tokenizer.json").read_text(encoding="utf-8")
            arrays = load_file(folder / "lsa.safetensors")
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise EncoderError(f"the lsa encoder in {folder} cannot be read ({error}); train again") from error
        tokenizer = Tokenizer.from_str(text)
        return cls(tokenizer, arrays["keys"], arrays["idf"], arrays["components"], options["max_tokens"])

    def save(self, folder: Path) -> None:
        """Write encoder.json, tokenizer.json and lsa.safetensors; the same encoder is the same bytes."""
        arrays = {"keys": self._keys, "idf": self._idf, "components": self._stored}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "lsa.safetensors")
        (folder / "tokenizer.json").write_text(self._tokenizer.to_str(), encoding="utf-8")
        options = {"kind": "lsa", "max_tokens": self.max_tokens, "fingerprint": self.fingerprint}
        (folder / "encoder.json").write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        return int(self._components.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by what defines its vectors: 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(["lsa", 1, self.max_tokens, self._tokenizer.to_str()]).encode())
        for array in (self._keys, self._idf, self._stored):
            digest.update(str(array.shape).encode() + array.tobytes())
        return digest.hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); a prompt without a known n-gram is all zeros."""
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)  # (N, D)
        cut = [readable(prompt, self.max_tokens * CHARS_PER_TOKEN) for prompt in prompts]
        for row, (features, weights) in enumerate(self._weigh(cut)):
            vectors[row] = weights @ self._components[features]
        return vectors

    def _weigh(self, prompts: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Find each prompt's features, ascending, and their TF-IDF weights, of unit length together."""
        tokenize = self._words.tokenize if len(prompts) <= FEW_PROMPTS else partial(_tokenize, self._tokenizer)
        tokens = tokenize(prompts, self.max_tokens)
        while together := list(islice(tokens, TOGETHER)):
            rows, features, counts = self._features(together)
            weights = (1 + np.log(counts)) * self._idf[features]  # sublinear tf x idf
            lengths = np.sqrt(np.bincount(rows, weights * weights, minlength=len(together)))  # above 0 where any is
            weights = (weights / lengths[rows]).astype(np.float32)
            ends = rows.searchsorted(np.arange(len(together) + 1)).tolist()
            for start, end in pairwise(ends):
                yield features[start:end], weights[start:end]

    def _features(
        self, tokens: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Look up prompts' n-grams: which prompt has which known one, in ascending order, and how often."""
        rows, ngrams = _occurrences(tokens)
        features = self._keys.searchsorted(ngrams)
        known = self._padded_keys[features] == ngrams
        n_features = max(len(self._keys), 1)
        cells = rows[known] * n_features + features[known]
        cells.sort()
        is_first = np.ones(len(cells), dtype=np.bool_)
        np.not_equal(cells[1:], cells[:-1], out=is_first[1:])  # equal ones stand together
        (starts,) = is_first.nonzero()
        counts = np.append(starts[1:], len(cells)) - starts if len(cells) else starts
        rows, features = np.divmod(cells[starts], n_features)
        return rows, features, counts


def _train_tokenizer(prompts: Sequence[str]) -> Tokenizer:
    """Train byte-level BPE: every text has tokens, and a word that the log lacks falls into known parts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(prompts, trainer)
    return tokenizer


def _tokenize(tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Tokenize many prompts, and cut the middle out of what is too long."""
    for start in range(0, len(prompts), CHUNK):
        chunk = list(prompts[start : start + CHUNK])
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            yield _cut(np.asarray(encoding.ids, dtype=np.int64), max_tokens)


class _Words:
    """Tokenizes prompts word by word, to the same tokens, and keeps what it saw.

    Most words of a prompt stood in others before it, and one is looked up in a hundredth of the time.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, bytes] = {}  # each word's tokens as an array's bytes, which join in no time

    def tokenize(self, prompts: Sequence[str], max_tokens: int) -> Iterator[NDArray[np.int64]]:
        """Tokenize a few prompts, and cut the middle out of what is too long."""
        for prompt in prompts:
            known = self._known
            tokens = b"".join([known.get(word) or self._look_at(word) for word in SPACES.split(prompt) if word])
            yield _cut(np.frombuffer(tokens, dtype=np.int64), max_tokens)

    def _look_at(self, word: str) -> bytes:
        if word.isascii() and len(pieces := ASCII_PIECES.findall(word)) > 1:  # a number, a word with its full stop
            known = self._known
            return b"".join([known.get(piece) or self._tokenize(piece) for piece in pieces])
        return self._tokenize(word)

    def _tokenize(self, word: str) -> bytes:
        if len(word) > LONGEST_WORD:  # a batch finds no offsets, which takes long words most of their time
            (encoding,) = self._tokenizer.encode_batch_fast([word], add_special_tokens=False)
            return np.array(encoding.ids, dtype=np.int64).tobytes()
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        tokens = np.array(ids, dtype=np.int64).tobytes()
        if len(ids) <= LONGEST_WORD:  # one character may become eighteen
            if len(self._known) >= MOST_WORDS:
                self._known = {}
            self._known[word] = tokens
        return tokens


def _cut(tokens: NDArray[np.int64], max_tokens: int) -> NDArray[np.int64]:
    return tokens if len(tokens) <= max_tokens else np.delete(tokens, surplus(len(tokens), max_tokens))


def _occurrences(tokens: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys of prompts' uni- and bigrams, as often as each occurs, and which prompt each stands in."""
    flat = np.concatenate(tokens)
    rows = np.repeat(np.arange(len(tokens)), [len(each) for each in tokens])
    within = rows[:-1] == rows[1:]
    bigrams = ((flat[:-1] + 1) << 32 | flat[1:])[within]  # a unigram's key is its token
    return np.concatenate([rows, rows[:-1][within]]), np.concatenate([flat, bigrams])


def _singular_vectors(
    rows: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], n_features: int, max_dim: int
) -> NDArray[np.float16]:
    """Find the leading right singular vectors of the TF-IDF rows, of shape (n_features, dim), dim at least 1."""
    from scipy.sparse import csr_array
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    if n_features == 0:
        return np.zeros((0, 1), dtype=np.float16)
    ends = np.cumsum([0, *(len(features) for features, _ in rows)])
    data = np.concatenate([weights for _, weights in rows])
    columns = np.concatenate([features for features, _ in rows])
    tfidf = csr_array((data, columns, ends), shape=(len(rows), n_features))  # (N, F)
    with threadpool_limits(1):  # the same bytes on any number of cores
        if min(tfidf.shape) <= 2 * max_dim:
            _, singular, right = np.linalg.svd(tfidf.toarray(), full_matrices=False)
        else:
            _, singular, right = randomized_svd(tfidf, max_dim, n_iter=4, random_state=SEED)
    rank = max(1, int((singular[:max_dim] > 1e-4 * singular[0]).sum()))
    components: NDArray[np.float64] = right[:rank].T  # (F, D)
    heaviest = components[np.abs(components).argmax(axis=0), np.arange(rank)]
    components = components * np.sign(heaviest)  # a singular vector's sign is arbitrary: fix it
    return components.astype(np.float16)
