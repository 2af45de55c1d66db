"""The encoder that comes with EmbedRouter: a small LLM2Vec model, in the package beside this file.

`embedrouter llm2vec bundle` made it; its model card says from what. An artifact names it by its content instead of
holding a copy, and a release that comes with another one refuses that artifact.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer

from router.encoder.base import Vectors
from router.encoder.checkpoint import Checkpoint
from router.encoder.llama import Llama
from router.encoder.text import readable, surplus
from router.errors import EncoderError

FOLDER = Path(__file__).parent / "bundled_model"
MAX_TOKENS = 256  # of a longer prompt, its head and tail
CHARS_PER_TOKEN = 16  # a longer prompt is cut before it is tokenized
TOKENS_TOGETHER = 2_048
N_KEPT = 4_096  # latest prompts' vectors
FEW = 64  # prompts, which are looked up among the latest; a training's would only drive those out


class BundledEncoder:
    """Encodes prompts as the mean last state of the bundled model, and keeps the latest prompts' vectors."""

    depends_on_logs = False
    is_light = False

    def __init__(self, folder: Path = FOLDER, max_tokens: int = MAX_TOKENS) -> None:
        self.max_tokens = max_tokens
        self._checkpoint = Checkpoint.find(folder)
        self._llama = Llama.read(self._checkpoint.folder)
        self._tokenizer = Tokenizer.from_file(str(self._checkpoint.folder / "tokenizer.json"))
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()
        self._pools = ThreadpoolController()

    @classmethod
    def open(cls, folder: Path) -> "BundledEncoder":
        """Bring a saved one back; EncoderError where this release comes with another."""
        saved = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        if "fingerprint" not in saved:
            raise EncoderError(f"{folder / 'encoder.json'} lacks fingerprint; train again")
        encoder = cls()
        if encoder.fingerprint != saved["fingerprint"]:
            raise EncoderError(
                f"the artifact was trained with the bundled encoder {saved['fingerprint']}, and this release comes "
                f"with {encoder.fingerprint}: train again, or serve it with the release that it was trained with"
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Write encoder.json, which names it by its content."""
        saved = {"kind": "bundled", "fingerprint": self.fingerprint}
        (folder / "encoder.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        return self._llama.dim

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by what defines its vectors: 16 hexadecimal digits."""
        named = f"bundled 1, {self.max_tokens} tokens, {self._checkpoint.fingerprint()}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); a few are looked up among the latest first."""
        if len(prompts) > FEW:
            return self.compute(prompts)
        with self._lock:
            known = {prompt: self._kept[prompt] for prompt in prompts if prompt in self._kept}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known |= zip(missing, self.compute(missing), strict=True)
        with self._lock:
            for prompt in prompts:
                self._kept[prompt] = known[prompt]
                self._kept.move_to_end(prompt)
            while len(self._kept) > N_KEPT:
                self._kept.popitem(last=False)
        return np.array([known[prompt] for prompt in prompts], dtype=np.float32).reshape(len(prompts), self.dim)

    def compute(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts anew; a prompt without text is all zeros."""
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)  # (N, D)
        tokens = [self.tokenize(prompt) for prompt in prompts]
        with self._pools.limit(limits=1, user_api="blas"):  # so small products gain nothing from more
            for rows in _together([len(row) for row in tokens]):
                vectors[rows] = self._llama.means([tokens[row] for row in rows])
        return vectors

    def tokenize(self, prompt: str) -> list[int]:
        """Tokenize, and cut the middle out of what is too long."""
        text = readable(prompt, self.max_tokens * CHARS_PER_TOKEN)
        tokens: list[int] = self._tokenizer.encode_batch_fast([text])[0].ids if text.strip() else []
        del tokens[surplus(len(tokens), self.max_tokens)]
        return tokens


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group rows into batches of a bounded number of tokens; rows without a token are left out."""
    batch: list[int] = []
    size = 0
    for row, length in enumerate(lengths):
        if batch and size + length > TOKENS_TOGETHER:
            yield batch
            batch, size = [], 0
        if length:
            batch.append(row)
            size += length
    if batch:
        yield batch
