"""LSA and the bundled encoder side by side: what a prompt says, by the words of the logs and by a language model.

Each part is centred on the training prompts and brought to unit length, so that a share says how much it counts.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from router.encoder.base import Encoder, Vectors
from router.encoder.bundled import BundledEncoder
from router.encoder.lsa import LsaEncoder
from router.errors import EncoderError

BUNDLED_SHARE = 0.5  # of the squared length; by cross-validation on the questions to learn from of two logs
N_CENTRE = 1_000  # training prompts that the centres are the means of


@dataclass(frozen=True)
class Part:
    """One encoder of several; centre: of shape (dim,)."""

    encoder: Encoder
    centre: NDArray[np.float32]
    share: float

    def direction(self, vectors: Vectors) -> Vectors:
        """Centre vectors and bring them to the square root of the share; one that knows nothing stays zero."""
        known = vectors.any(axis=1, keepdims=True)
        centred = np.where(known, vectors - self.centre, 0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        scaled = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
        direction: Vectors = (np.sqrt(self.share) * scaled).astype(np.float32)
        return direction


class JoinedEncoder:
    """Encodes prompts by several encoders, one beside the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    @classmethod
    def fit(cls, prompts: Sequence[str], bundled_share: float = BUNDLED_SHARE, n_windows: int = 1) -> "JoinedEncoder":
        """Fit LSA on training prompts, and the centres of both on some of them."""
        lsa, bundled = LsaEncoder.fit(prompts), BundledEncoder(n_windows=n_windows)
        some = [prompts[i] for i in np.unique(np.linspace(0, len(prompts) - 1, N_CENTRE).astype(int))]
        shares: list[tuple[Encoder, float]] = [(lsa, 1 - bundled_share), (bundled, bundled_share)]
        return cls([Part(encoder, encoder.encode(some).mean(axis=0), share) for encoder, share in shares])

    @classmethod
    def open(cls, folder: Path) -> "JoinedEncoder":
        """Bring a saved one back."""
        openers: list[_Opener] = [LsaEncoder, BundledEncoder]
        try:
            shares = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))["shares"]
            centres = load_file(folder / "centres.safetensors")
            parts = [
                Part(opener.open(folder / str(i)), centres[str(i)], float(share))
                for i, (opener, share) in enumerate(zip(openers, shares, strict=True))
            ]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise EncoderError(f"the joined encoder in {folder} cannot be read ({error}); train again") from error
        return cls(parts)

    def save(self, folder: Path) -> None:
        """Write encoder.json, centres.safetensors and each part into a folder of its own."""
        for i, part in enumerate(self.parts):
            (folder / str(i)).mkdir(exist_ok=True)
            part.encoder.save(folder / str(i))
        save_file({str(i): part.centre for i, part in enumerate(self.parts)}, folder / "centres.safetensors")
        saved = {
            "kind": "lsa+bundled",
            "shares": [part.share for part in self.parts],
            "fingerprint": self.fingerprint,
        }
        (folder / "encoder.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    @property
    def depends_on_logs(self) -> bool:
        return True  # the centres do

    @property
    def is_light(self) -> bool:
        return all(part.encoder.is_light for part in self.parts)

    @property
    def is_serial(self) -> bool:
        return any(part.encoder.is_serial for part in self.parts)

    @property
    def dim(self) -> int:
        return sum(part.encoder.dim for part in self.parts)

    @property
    def max_tokens(self) -> int:
        return max(part.encoder.max_tokens for part in self.parts)

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by what defines its vectors: 16 hexadecimal digits."""
        digest = hashlib.sha256(b"joined 1")
        for part in self.parts:
            digest.update(f"{part.encoder.fingerprint} {part.share}".encode() + part.centre.tobytes())
        return digest.hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim)."""
        return self.join([part.encoder.encode(prompts) for part in self.parts])

    def join(self, vectors: Sequence[Vectors]) -> Vectors:
        """Join what each part's encoder says, (n_prompts, its dim) each."""
        return np.hstack([part.direction(raw) for part, raw in zip(self.parts, vectors, strict=True)])


class _Opener(Protocol):
    def open(self, folder: Path) -> Encoder: ...
