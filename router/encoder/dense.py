"""The linear step after pooling, which a SentenceTransformer folder names as its Dense modules.

The bundled encoder's evens out the directions that all questions share. It knows arrays and files, no model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from router.encoder.base import Vectors
from router.errors import EncoderError

IDENTITY = "torch.nn.modules.linear.Identity"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Dense:
    """vectors @ weight + bias; weight: (D, D out), bias: (D out,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, vectors: Vectors) -> Vectors:
        """Map vectors (N, D) to (N, D out); those of prompts without text stay zeros."""
        mapped = vectors @ self.weight + self.bias
        return np.where(vectors.any(axis=1, keepdims=True), mapped, 0).astype(np.float32)

    def then(self, other: "Dense") -> "Dense":
        """This one and another after it, as one."""
        return Dense(self.weight @ other.weight, self.bias @ other.weight + other.bias)

    @property
    def dim(self) -> int:
        return len(self.bias)

    def save(self, folder: Path) -> None:
        """Write the folder of a Dense module."""
        folder.mkdir(parents=True, exist_ok=True)
        width, dim = self.weight.shape
        says = {"in_features": width, "out_features": dim, "bias": True, "activation_function": IDENTITY}
        (folder / CONFIG).write_text(json.dumps(says, indent=2) + "\n", encoding="utf-8")
        save_file({"linear.weight": np.ascontiguousarray(self.weight.T), "linear.bias": self.bias}, folder / WEIGHTS)


def read_dense(folders: Sequence[Path]) -> Dense | None:
    """Read Dense modules, one after another, as one; EncoderError where one is not linear."""
    read: Dense | None = None
    for folder in folders:
        try:
            says = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
            weight = tensors["linear.weight"].astype(np.float32).T
            bias = tensors.get("linear.bias", np.zeros(weight.shape[1])).astype(np.float32)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise EncoderError(f"the Dense module in {folder} cannot be read: {error}") from error
        if says.get("activation_function") != IDENTITY or says.get("use_residual"):
            raise EncoderError(f"the Dense module in {folder} is not linear: say `sentence:PATH` in place of llm2vec")
        one = Dense(weight, bias)
        read = one if read is None else read.then(one)
    return read
