"""Any model that sentence-transformers loads, from a folder on disk or, where the user names one, from the hub.

The way to encode by what others trained: all-mpnet-base-v2 as in EmbedLLM, Qwen3-Embedding, EmbeddingGemma. Pooling,
normalization and a default prompt are as the model's own files say.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from router.encoder.base import Vectors
from router.encoder.text import readable
from router.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_TOKENS = 512  # of a model that takes more
CHARS_PER_TOKEN = 4  # the model cuts a prompt's end off: a longer one loses its middle before
DEFINING = (".json", ".safetensors", ".bin", ".txt", ".model", ".jinja")
EXTRA = "pip install 'embedrouter[sentence-transformers]'"


class SentenceEncoder:
    """Encodes prompts by a SentenceTransformer, in float32; a prompt of white space alone is all zeros."""

    depends_on_logs = False
    is_light = False
    is_serial = False

    def __init__(self, folder: Path, model: "SentenceTransformer") -> None:
        self.folder = folder
        self.max_tokens = min(model.max_seq_length or MAX_TOKENS, MAX_TOKENS)
        self._model = model
        model.max_seq_length = self.max_tokens

    @classmethod
    def load(cls, path: Path) -> "SentenceEncoder":
        """Load a folder; EncoderError where there is none, or none that sentence-transformers can load."""
        folder = path.expanduser().absolute()
        if not folder.is_dir():
            raise EncoderError(f"no folder at {folder}: say `sentence:PATH`, or `hub:ORGANIZATION/NAME` to fetch one")
        if not (folder / "modules.json").is_file():
            raise EncoderError(f"{folder} has no modules.json: it is no SentenceTransformer's folder")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderError(f"sentence-transformers is not installed: {EXTRA}") from error
        try:
            model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:
            raise EncoderError(f"sentence-transformers cannot load {folder}: {error}") from error
        return cls(folder, model)

    @classmethod
    def fetch(cls, name: str) -> "SentenceEncoder":
        """Fetch a model from the hub, once, and load it."""
        from huggingface_hub import snapshot_download

        if name.count("/") != 1 or not all(name.split("/")):
            raise EncoderError(f"{name!r} is no model of the hub: say `hub:ORGANIZATION/NAME`")
        try:
            folder = snapshot_download(name, allow_patterns=[f"*{suffix}" for suffix in DEFINING])
        except Exception as error:
            raise EncoderError(f"{name} cannot be fetched from the hub: {error}") from error
        return cls.load(Path(folder))

    @classmethod
    def open(cls, folder: Path) -> "SentenceEncoder":
        """Bring a saved one back from its folder; EncoderError where that is gone or has changed."""
        path = folder / "encoder.json"
        saved = json.loads(path.read_text(encoding="utf-8"))
        if absent := {"path", "max_tokens", "fingerprint"} - set(saved):
            raise EncoderError(f"{path} lacks {', '.join(sorted(absent))}; train again")
        encoder = cls.load(Path(saved["path"]))
        if encoder.fingerprint != saved["fingerprint"]:
            raise EncoderError(
                f"the model at {encoder.folder} has changed since the artifact was trained: its fingerprint is "
                f"{encoder.fingerprint}, was {saved['fingerprint']}; put the old one back or train again"
            )
        return encoder

    def save(self, folder: Path) -> None:
        """Write encoder.json: where the model lies and what it was; the weights stay where they are."""
        saved = {
            "kind": "sentence",
            "path": str(self.folder),
            "max_tokens": self.max_tokens,
            "fingerprint": self.fingerprint,
        }
        (folder / "encoder.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        dim = self._model.get_embedding_dimension()
        if dim is None:
            raise EncoderError(f"the model at {self.folder} does not say how many dimensions its vectors have")
        return int(dim)

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by the content of its files: 16 hexadecimal digits."""
        digest = hashlib.sha256(f"sentence 1, {self.max_tokens} tokens".encode())
        for path in sorted(path for path in self.folder.rglob("*") if path.suffix in DEFINING and path.is_file()):
            with path.open("rb") as file:
                name = path.relative_to(self.folder).as_posix().encode()
                digest.update(name + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim)."""
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)
        texts = [readable(prompt, self.max_tokens * CHARS_PER_TOKEN) for prompt in prompts]
        said = [row for row, text in enumerate(texts) if text.strip()]
        if said:
            from router.encoder.machine import device_failures

            with device_failures(str(self.folder)):
                vectors[said] = self._model.encode([texts[row] for row in said], show_progress_bar=False)
        return vectors
