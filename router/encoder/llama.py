"""A small bidirectional Llama in plain arrays: what the bundled encoder runs, without the library that trained it.

At a few million parameters, a prompt costs less than the bookkeeping of a deep-learning library, which would also take
seconds to import. It knows tokens and arrays; a test holds it to transformers' own forward pass.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from router.errors import EncoderError

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One block; attend: (D, 3 D), queries, keys and values; out: (D, D); feed: (D, 2 F), gate and up; down: (F, D).

    Each matrix stands to the right of the states; the norms' weights are multiplied into those that follow them, and
    the attention's scale into the queries.
    """

    attend: Singles
    out: Singles
    feed: Singles
    down: Singles


@dataclass(frozen=True)
class Llama:
    """embedding: (V, D); norm: (D,), the last one's weights; frequencies: (head dim / 2,), of the rotations."""

    embedding: Singles
    layers: tuple[Layer, ...]
    norm: Singles
    frequencies: Singles
    n_heads: int
    eps: float

    @classmethod
    def read(cls, folder: Path) -> "Llama":
        """Read config.json and model.safetensors; EncoderError where they are none of a small bidirectional Llama."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            weights = read_weights(folder / "model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise EncoderError(f"the encoder in {folder} cannot be read: {error}") from error
        rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}
        wanted = {
            "model_type": "llama",
            "is_causal": False,
            "num_key_value_heads": config.get("num_attention_heads"),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }
        odd = [name for name, value in wanted.items() if config.get(name) != value]
        if odd or rope.get("rope_type", "default") != "default":
            raise EncoderError(f"{folder} is no small bidirectional Llama, by its {', '.join(odd or ['rope_type'])}")
        head = int(config["head_dim"] or config["hidden_size"] // config["num_attention_heads"])
        frequencies = 1 / float(rope["rope_theta"]) ** (np.arange(0, head, 2) / head)
        layers = [_layer(weights, f"layers.{i}", head) for i in range(config["num_hidden_layers"])]
        return cls(
            embedding=weights["embed_tokens.weight"],
            layers=tuple(layers),
            norm=weights["norm.weight"],
            frequencies=frequencies.astype(np.float32),
            n_heads=int(config["num_attention_heads"]),
            eps=float(config["rms_norm_eps"]),
        )

    @property
    def dim(self) -> int:
        return int(self.embedding.shape[1])

    def means(self, sequences: Sequence[Sequence[int]]) -> Singles:
        """The mean last state of each sequence of tokens, none of them empty, of shape (n_sequences, D)."""
        lengths = [len(sequence) for sequence in sequences]
        ends = np.cumsum([0, *lengths])
        rows = [slice(start, end) for start, end in pairwise(ends)]
        # all tokens stand in one table (T, D): they part only where they attend
        position = np.concatenate([np.arange(n, dtype=np.float32) for n in lengths])
        angle = position[:, None] * self.frequencies  # (T, head dim / 2)
        turn = np.cos(angle)[:, None, None, :], np.sin(angle)[:, None, None, :]
        states = self.embedding[np.concatenate([np.asarray(sequence) for sequence in sequences])]  # (T, D)
        for layer in self.layers:
            states = states + self._attend(layer, self._normed(states), turn, rows) @ layer.out
            gate, up = np.split(self._normed(states) @ layer.feed, 2, axis=1)  # (T, F) both
            gate *= 0.5 * np.tanh(0.5 * gate) + 0.5  # silu
            gate *= up
            states = states + gate @ layer.down
        last = self._normed(states) * self.norm
        sums = np.add.reduceat(last, ends[:-1], axis=0)
        means: Singles = (sums / np.asarray(lengths)[:, None]).astype(np.float32)
        return means

    def _normed(self, states: Singles) -> Singles:
        scale = np.einsum("td,td->t", states, states) / states.shape[1] + np.float32(self.eps)
        normed: Singles = states / np.sqrt(scale)[:, None]
        return normed

    def _attend(self, layer: Layer, states: Singles, turn: tuple[Singles, Singles], rows: Sequence[slice]) -> Singles:
        """What each token gathers from all tokens of its sequence, of shape (T, D)."""
        size = 2 * len(self.frequencies)
        mixed = (states @ layer.attend).reshape(len(states), 3, self.n_heads, size)
        first, second = mixed[:, :2, :, : size // 2], mixed[:, :2, :, size // 2 :]
        turned = np.concatenate([first * turn[0] - second * turn[1], second * turn[0] + first * turn[1]], axis=-1)
        gathered = np.empty((len(states), self.n_heads, size), dtype=np.float32)
        for row in rows:
            query = turned[row, 0].transpose(1, 0, 2)  # (heads, T of the sequence, head dim)
            weight = query @ turned[row, 1].transpose(1, 2, 0)  # (heads, T, T)
            weight -= weight.max(axis=-1, keepdims=True)
            np.exp(weight, out=weight)
            total = weight.sum(axis=-1, keepdims=True)
            gathered[row] = ((weight @ mixed[row, 2].transpose(1, 0, 2)) / total).transpose(1, 0, 2)
        return gathered.reshape(len(states), -1)


def _layer(weights: dict[str, Singles], name: str, head: int) -> Layer:
    def of(part: str) -> Singles:
        return weights[f"{name}.{part}.weight"].T

    before, between = weights[f"{name}.input_layernorm.weight"], weights[f"{name}.post_attention_layernorm.weight"]
    query = of("self_attn.q_proj") * np.float32(head**-0.5)
    attend = np.hstack([query, of("self_attn.k_proj"), of("self_attn.v_proj")])
    feed = np.hstack([of("mlp.gate_proj"), of("mlp.up_proj")])
    return Layer(
        attend=np.ascontiguousarray(before[:, None] * attend),
        out=np.ascontiguousarray(of("self_attn.o_proj")),
        feed=np.ascontiguousarray(between[:, None] * feed),
        down=np.ascontiguousarray(of("mlp.down_proj")),
    )


def read_weights(path: Path) -> dict[str, Singles]:
    """Read tensors of bf16, which NumPy lacks, or float32, as float32; with or without an output head."""
    weights = {}
    for name, tensor in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        weights[name.removeprefix("model.")] = _singles(tensor).reshape(tensor["shape"])
    return weights


def _singles(tensor: dict[str, Any]) -> Singles:
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (np.frombuffer(tensor["data"], dtype="<u2").astype("<u4") << 16).view("<f4")
    if tensor["dtype"] == "F32":
        return np.frombuffer(tensor["data"], dtype="<f4")
    raise ValueError(f"weights of {tensor['dtype']}; bf16 and float32 are known")
