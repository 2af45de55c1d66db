"""A decoder-only checkpoint on disk: where it lies, what names it, and why it may be refused before it is loaded.

It reads file names, JSON and bytes; loading the weights is `router.encoder.llm2vec`'s matter.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from router.encoder.dense import CONFIG, WEIGHTS
from router.errors import EncoderError

# what defines a checkpoint's vectors, and nothing else (no README, no optimizer state, no generation settings)
DEFINING_FILES = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*",
)

Pooling = Literal["mean", "weighted", "last"]
# a SentenceTransformer's names for them
POOLING_NAMES: dict[str, Pooling] = {
    "mean_tokens": "mean",
    "weightedmean_tokens": "weighted",
    "lasttoken": "last",
}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that transformers can load; for a SentenceTransformer folder, the transformer's part of it.

    root: the folder that was named; pooling: how its states become a vector, mean where it does not say; instruction:
    what stands before every prompt and is left out of the pooling; dense: the folders of linear steps after it.
    """

    folder: Path
    root: Path
    pooling: Pooling = "mean"
    instruction: str = ""
    dense: tuple[Path, ...] = ()

    @classmethod
    def find(cls, path: Path) -> "Checkpoint":
        """Find the checkpoint at a path; EncoderError where there is none, or one that is causal or an adapter."""
        path = path.expanduser().absolute()
        if not path.is_dir():
            raise EncoderError(
                f"no checkpoint folder at {path}: llm2vec:PATH names a folder with config.json and weights"
            )
        folder = _transformer_folder(path)
        if (folder / "adapter_config.json").is_file():
            raise EncoderError(
                f"{folder} is a PEFT adapter (adapter_config.json), not a whole checkpoint: merge it into its base "
                "model first (`merge_and_unload()`, then `save_pretrained`)"
            )
        config = _read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise EncoderError(f"{folder / 'config.json'} is not a JSON object")
        if config.get("is_encoder_decoder"):
            raise EncoderError(f"{folder} is an encoder-decoder model, llm2vec takes decoder-only checkpoints")
        text_config = config.get("text_config")  # a multimodal checkpoint keeps its decoder's settings there
        if (text_config if isinstance(text_config, dict) else config).get("is_causal") is not False:
            raise EncoderError(
                f"{folder} is a causal checkpoint: its tokens see only what stands before them, and the mean of their "
                'states is a poor vector. Train it to read both ways (LLM2Vec), then set "is_causal": false in its '
                "config.json. A model that was trained as an encoder is `sentence:PATH`"
            )
        return cls(folder, path, _pooling(path), _instruction(path), tuple(_modules(path, "Dense")))

    def fingerprint(self) -> str:
        """Name the checkpoint by the content of its files, read in a stream: 64 hexadecimal digits."""
        digest = hashlib.sha256()
        paths = {path for pattern in DEFINING_FILES for path in self.folder.glob(pattern) if path.is_file()}
        of_dense = [folder / name for folder in self.dense for name in (CONFIG, WEIGHTS)]
        for path in [*sorted(paths), *of_dense]:
            with path.open("rb") as file:
                digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def _transformer_folder(path: Path) -> Path:
    """Step into the transformer of a SentenceTransformer folder, which modules.json names; else stay."""
    if not (path / "modules.json").is_file():
        return path
    for folder in _modules(path, "Transformer"):
        return folder
    raise EncoderError(f"{path / 'modules.json'} names no Transformer module")


def _modules(path: Path, kind: str) -> list[Path]:
    """The folders of a SentenceTransformer folder's modules of a kind, in order; none where it is no such folder."""
    if not (path / "modules.json").is_file():
        return []
    modules = _read_json(path / "modules.json")
    named = [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    return [path / str(of.get("path", "")) for of in named if str(of.get("type", "")).endswith(f".{kind}")]


def _pooling(path: Path) -> Pooling:
    """What a SentenceTransformer folder says of pooling; EncoderError where it is a way that decoders do not take."""
    found = path / "1_Pooling" / "config.json"
    if not (path / "modules.json").is_file() or not found.is_file():
        return "mean"
    said = _read_json(found)
    modes = {name.removeprefix("pooling_mode_") for name, value in said.items() if value is True}
    modes |= {str(said.get("pooling_mode", ""))}
    for name, pooling in POOLING_NAMES.items():
        if modes & {name, name.removesuffix("_tokens")}:
            return pooling
    raise EncoderError(f"{found} asks for pooling other than {', '.join(POOLING_NAMES)}, which llm2vec does not know")


def _instruction(path: Path) -> str:
    """The prompt that a SentenceTransformer folder puts before every text by default."""
    found = path / "config_sentence_transformers.json"
    if not (path / "modules.json").is_file() or not found.is_file():
        return ""
    said = _read_json(found)
    return str((said.get("prompts") or {}).get(said.get("default_prompt_name"), ""))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{path} cannot be read: {error}; a checkpoint has a config.json beside its weights"
        ) from error
