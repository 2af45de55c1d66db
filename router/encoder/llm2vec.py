"""LLM2Vec: a decoder-only checkpoint that reads both ways, its hidden states averaged (arXiv 2404.05961).

Any architecture that transformers knows, as long as its config says `is_causal: false` and its attention obeys: some
architectures ignore the setting, some obey it only in unpadded batches, so that the model is tried before it is
trusted. Nothing is ever fetched: a path is a folder on disk.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import set_tqdm_hook

from router.encoder.base import Vectors
from router.encoder.checkpoint import Checkpoint
from router.encoder.dense import read_dense
from router.encoder.latest import LatestVectors
from router.encoder.machine import Backend, DTypeName, asked_backend, best_device, best_dtype, device_failures
from router.encoder.openvino_model import OpenVinoModel
from router.encoder.pooling import pool
from router.encoder.text import readable, surplus, windows
from router.encoder.windowed import mean_of_windows, reading
from router.errors import EncoderError

MAX_TOKENS = 512  # as LLM2Vec was trained
CHARS_PER_TOKEN = 16  # a longer prompt is cut before it is tokenized
TOKENS_PER_BATCH = 8_192
PADDED = 2  # no row of a batch is more than so many times as long as another,
SHORT = 32  # unless it has no more tokens than this
MOVED = 1e-6  # relative to the state; a causal model's first state does not move at all

PaddingSide = Literal["left", "right"]


class Llm2VecEncoder:
    """Encodes prompts as the pooled last hidden states of a bidirectional decoder, then by the folder's Dense modules.

    A prompt of more than `max_tokens` is read as the mean of at most `n_windows` windows, weighted by their tokens; one
    window is head and tail. The latest prompts' vectors are kept.
    """

    depends_on_logs = False
    is_light = False
    is_serial = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Any,
        model: Any,
        max_tokens: int,
        padding_side: PaddingSide = "right",
        n_windows: int = 1,
        dtype: DTypeName = "float32",
    ) -> None:
        self.max_tokens = max_tokens
        self.dtype: DTypeName = dtype
        self.n_windows = n_windows
        self.padding_side: PaddingSide = padding_side
        self._checkpoint = checkpoint
        self._dense = read_dense(checkpoint.dense)
        self._tokenizer = tokenizer
        self._model = model
        self._latest = LatestVectors(self.compute)
        instruction = checkpoint.instruction
        self._n_instruction = len(tokenizer(instruction, verbose=False)["input_ids"]) if instruction else 0
        if 2 * self._n_instruction > max_tokens:
            raise EncoderError(f"{checkpoint.root} has an instruction of more than half of {max_tokens} tokens")

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        max_tokens: int = MAX_TOKENS,
        n_windows: int = 1,
        device: str = "cpu",
        attention: str | None = None,
        padding_side: PaddingSide = "right",
        dtype: DTypeName = "float32",
        backend: Backend = "torch",
    ) -> "Llm2VecEncoder":
        """Load a checkpoint; EncoderError where it is none, causal by its config, or causal in spite of it.

        attention: transformers' name of an attention implementation ("eager", "sdpa"); None is its own choice.
        dtype: bfloat16 is computed in float32, which is closer yet, where the device does not multiply it by hardware.
        """
        device = "cpu" if backend == "openvino" else device
        computed = dtype if best_dtype(device) == "bfloat16" else "float32"
        checkpoint = Checkpoint.find(path)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with no_progress_bars():
                tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **local)
                model, loading = AutoModel.from_pretrained(
                    checkpoint.folder,
                    dtype=torch.float32 if backend == "openvino" else getattr(torch, computed),
                    attn_implementation=attention,
                    output_loading_info=True,
                    **local,
                )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
            raise EncoderError(f"transformers cannot load {checkpoint.folder}: {error}") from error
        if loading["missing_keys"]:
            missing = sorted(loading["missing_keys"])
            raise EncoderError(f"{checkpoint.folder} lacks {len(missing)} weights of its model, such as {missing[0]}")
        if "position_ids" not in inspect.signature(model.forward).parameters:
            raise EncoderError(f"{type(model).__name__} takes no position_ids, so that padding would move its vectors")
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_tokens
        width = min(max_tokens, positions)
        encoder = cls(checkpoint, tokenizer, model.to(device).eval(), width, padding_side, n_windows, dtype)
        try:
            encoder.refuse_causal()
        except EncoderError:
            if model.dtype == torch.float32:
                raise
            cls.load(path, device=device, attention=attention)  # bfloat16 may round away how little a state moves
        if backend == "openvino":
            encoder._model = OpenVinoModel(model, computed)
        return encoder

    @classmethod
    def load_here(cls, path: Path, n_windows: int = 1) -> "Llm2VecEncoder":
        """Load a checkpoint in the precision that this machine is fast in."""
        device = best_device()
        return cls.load(path, n_windows=n_windows, device=device, dtype=best_dtype(device), backend=asked_backend())

    @classmethod
    def open(cls, folder: Path) -> "Llm2VecEncoder":
        """Bring a saved encoder back from its checkpoint; EncoderError where that is gone or has changed."""
        saved = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        if absent := {"path", "max_tokens", "fingerprint"} - set(saved):
            raise EncoderError(f"{folder / 'encoder.json'} lacks {', '.join(sorted(absent))}; train again")
        n_windows, dtype = saved.get("n_windows", 1), saved.get("dtype", "float32")
        found = _fingerprint(Checkpoint.find(Path(saved["path"])), saved["max_tokens"], n_windows, dtype)
        if found != saved["fingerprint"]:
            raise EncoderError(
                f"the checkpoint at {saved['path']} has changed since the artifact was trained: its fingerprint is "
                f"{found}, was {saved['fingerprint']}; put the old one back or train again"
            )
        encoder = cls.load(
            Path(saved["path"]),
            max_tokens=saved["max_tokens"],
            n_windows=n_windows,
            device=best_device(),
            dtype=dtype,
            backend=asked_backend(),
        )
        encoder.fingerprint = found  # gigabytes are read once
        return encoder

    def save(self, folder: Path) -> None:
        """Write encoder.json: where the checkpoint lies and what it was; the weights stay where they are."""
        saved = {
            "kind": "llm2vec",
            "path": str(self._checkpoint.root),
            "max_tokens": self.max_tokens,
            "n_windows": self.n_windows,
            "dtype": self.dtype,
            "fingerprint": self.fingerprint,
        }
        (folder / "encoder.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        return self._dense.dim if self._dense else self._width

    @property
    def _width(self) -> int:
        return int(self._model.config.get_text_config().hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by what defines its vectors: 16 hexadecimal digits."""
        return _fingerprint(self._checkpoint, self.max_tokens, self.n_windows, self.dtype)

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); a few are looked up among the latest first."""
        return self._latest.encode(prompts)

    @torch.inference_mode()
    def compute(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts anew; a prompt without a token is all zeros."""
        tokens = [self._tokenize(prompt) for prompt in prompts]
        vectors = mean_of_windows(tokens, self._width, _batches, self._pooled)  # (N, D)
        return self._dense(vectors) if self._dense else vectors

    def _pooled(self, windows: Sequence[list[int]]) -> Vectors:
        with device_failures(str(self._checkpoint.folder)):
            mask, states = self._states(windows, self.padding_side)  # (B, T), (B, T, D)
            counted = mask & (mask.cumsum(dim=1) > self._n_instruction)  # (B, T)
            pooled: Vectors = pool(states, counted, self._checkpoint.pooling).float().cpu().numpy()  # (B, D)
        return pooled

    @torch.inference_mode()
    def refuse_causal(self) -> None:
        """Try the model: a shorter text's first state must move with its last token, padded on either side or not."""
        special = set(self._tokenizer.all_special_ids)
        plain = [token for token in range(len(self._tokenizer)) if token not in special]
        picked = [plain[i * (len(plain) - 1) // 15] for i in range(16)]
        short, long, changes = picked[:5], picked[:9], picked[9:]
        trials: list[tuple[list[list[int]], PaddingSide]] = [([long], "right"), ([long], "left"), ([], "right")]
        for companions, side in trials:
            first = self._first_state([short, *companions], side)
            moves = [
                float((self._first_state([[*short[:-1], last], *companions], side) - first).abs().max())
                for last in changes
            ]
            if not max(moves) > MOVED * float(first.abs().max()):
                where = f"in batches padded on the {side}" if companions else "in unpadded batches"
                raise EncoderError(
                    f"{self._checkpoint.folder} stayed causal {where}, although its config says is_causal: false: "
                    f"{type(self._model).__name__} does not obey it with {self._model.config._attn_implementation} "
                    "attention, so it cannot serve as an llm2vec encoder"
                )

    def _first_state(self, tokens: Sequence[list[int]], side: PaddingSide) -> Tensor:
        """Run a batch and take the state of the first row's first token, of shape (D,)."""
        mask, states = self._states(tokens, side)
        return states[0, int(mask[0].int().argmax())]

    def _tokenize(self, prompt: str) -> list[list[int]]:
        """Tokenize into windows, and cut the middle out of what is too long for them.

        Each has the checkpoint's special tokens and the instruction; one window alone is cut with them.
        """
        text = readable(prompt, self.n_windows * self.max_tokens * CHARS_PER_TOKEN)
        if not text.strip() and self._n_instruction:
            return []
        tokens: list[int] = self._tokenizer(
            self._checkpoint.instruction + text, padding=False, truncation=False, verbose=False
        )["input_ids"]
        if len(tokens) <= self.max_tokens or self.n_windows == 1:
            del tokens[surplus(len(tokens), self.max_tokens)]
            return [tokens] if tokens else []
        special = set(self._tokenizer.all_special_ids)
        start, end = self._n_instruction, len(tokens)
        while start < end and tokens[start] in special:
            start += 1
        while end > start and tokens[end - 1] in special:
            end -= 1
        width = max(1, self.max_tokens - start - (len(tokens) - end))
        return [tokens[:start] + part + tokens[end:] for part in windows(tokens[start:end], width, self.n_windows)]

    def _states(self, tokens: Sequence[list[int]], side: PaddingSide) -> tuple[Tensor, Tensor]:
        """Run the model on one padded batch: its mask of shape (B, T), and the last states of shape (B, T, D)."""
        width = max(len(row) for row in tokens)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._tokenizer.eos_token_id
        ids = torch.full((len(tokens), width), pad or 0)  # (B, T); what pads is masked, so that any token does
        mask = torch.zeros((len(tokens), width), dtype=torch.bool)  # (B, T)
        for i, row in enumerate(tokens):
            columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
            ids[i, columns] = torch.tensor(row)
            mask[i, columns] = True
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # a token's position does not depend on the padding
        output = self._model(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)
        return mask, output.last_hidden_state


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' bars off the terminal while a checkpoint loads; whoever else loads one later has them."""

    def unseen(make_bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return make_bar(*args, **options | {"disable": True})

    before = set_tqdm_hook(unseen)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group rows of similar length into batches of a bounded size, so that a long one does not pad the short."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        padded = batch and lengths[row] > max(PADDED * lengths[batch[0]], SHORT)
        if padded or (batch and (len(batch) + 1) * lengths[row] > TOKENS_PER_BATCH):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _fingerprint(checkpoint: Checkpoint, max_tokens: int, n_windows: int, dtype: DTypeName) -> str:
    after = f" after {checkpoint.instruction!r}" if checkpoint.instruction else ""
    read = reading(max_tokens, n_windows)
    named = f"llm2vec 1, {checkpoint.pooling} pooling{after}, {read}, {dtype}, {checkpoint.fingerprint()}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]
