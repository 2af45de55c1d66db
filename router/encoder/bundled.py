"""The encoder that comes with EmbedRouter: a small LLM2Vec model, in the package beside this file.

`embedrouter llm2vec bundle` made it; its model card says from what. An artifact holds a copy, so that a release which
comes with another one serves it as before.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer

from router.encoder.base import Vectors
from router.encoder.checkpoint import Checkpoint
from router.encoder.dense import read_dense
from router.encoder.latest import LatestVectors
from router.encoder.llama import Llama
from router.encoder.text import readable, windows
from router.encoder.windowed import mean_of_windows, reading
from router.errors import EncoderError

FOLDER = Path(__file__).parent / "bundled_model"
COPY = "model"
MAX_TOKENS = 256  # of a window
CHARS_PER_TOKEN = 16  # a longer prompt is cut before it is tokenized
TOKENS_TOGETHER = 2_048


class BundledEncoder:
    """Encodes prompts as the mean last state of the bundled model, mapped, and keeps the latest prompts' vectors.

    A prompt of more than `max_tokens` is read as the mean of at most `n_windows` windows; one window is head and tail.
    """

    depends_on_logs = False
    is_light = False
    is_serial = True

    def __init__(self, folder: Path = FOLDER, max_tokens: int = MAX_TOKENS, n_windows: int = 1) -> None:
        self.max_tokens = max_tokens
        self.n_windows = n_windows
        self._checkpoint = Checkpoint.find(folder)
        self._llama = Llama.read(self._checkpoint.folder)
        self._dense = read_dense(self._checkpoint.dense)
        self._tokenizer = Tokenizer.from_file(str(self._checkpoint.folder / "tokenizer.json"))
        self._latest = LatestVectors(self.compute)
        self._pools = ThreadpoolController()

    @classmethod
    def open(cls, folder: Path) -> "BundledEncoder":
        """Bring a saved one back; EncoderError where it was saved without a copy, by a release with another one."""
        saved = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        if "fingerprint" not in saved:
            raise EncoderError(f"{folder / 'encoder.json'} lacks fingerprint; train again")
        copy = folder / COPY
        encoder = cls(copy if copy.is_dir() else FOLDER, saved.get("max_tokens", MAX_TOKENS), saved.get("n_windows", 1))
        if encoder.fingerprint != saved["fingerprint"]:
            raise EncoderError(
                f"the artifact was trained with the bundled encoder {saved['fingerprint']}, and this release comes "
                f"with {encoder.fingerprint}: train again, or serve it with the release that it was trained with"
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Write encoder.json and a copy of the model, less what is for people."""
        shutil.copytree(self._checkpoint.root, folder / COPY, ignore=shutil.ignore_patterns("*.md", "training.json"))
        saved = {
            "kind": "bundled",
            "max_tokens": self.max_tokens,
            "n_windows": self.n_windows,
            "fingerprint": self.fingerprint,
        }
        (folder / "encoder.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        return self._dense.dim if self._dense else self._llama.dim

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by what defines its vectors: 16 hexadecimal digits."""
        named = f"bundled 1, {reading(self.max_tokens, self.n_windows)}, {self._checkpoint.fingerprint()}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); a few are looked up among the latest first."""
        return self._latest.encode(prompts)

    def compute(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts anew; a prompt without text is all zeros."""
        tokens = [self.tokenize(prompt) for prompt in prompts]
        with self._pools.limit(limits=1, user_api="blas"):  # so small products gain nothing from more
            vectors = mean_of_windows(tokens, self._llama.dim, _together, self._llama.means)  # (N, D)
        return self._dense(vectors) if self._dense else vectors

    def tokenize(self, prompt: str) -> list[list[int]]:
        """Tokenize into windows, and cut the middle out of what is too long for them."""
        text = readable(prompt, self.n_windows * self.max_tokens * CHARS_PER_TOKEN)
        tokens: list[int] = self._tokenizer.encode_batch_fast([text])[0].ids if text.strip() else []
        return windows(tokens, self.max_tokens, self.n_windows)


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group windows into batches of a bounded number of tokens."""
    batch: list[int] = []
    size = 0
    for i, length in enumerate(lengths):
        if batch and size + length > TOKENS_TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += length
    if batch:
        yield batch
