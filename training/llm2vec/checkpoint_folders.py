"""Model folders: opened for training, made bidirectional, and written as plain SentenceTransformer folders.

A bidirectional model is one whose config says `is_causal: false`; that setting is saved, and AutoModel obeys it. Set on
attention modules, it would be lost.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from router.encoder.checkpoint import POOLING_NAMES, Pooling
from router.encoder.dense import Dense
from router.encoder.llm2vec import Llm2VecEncoder, no_progress_bars
from training.errors import TrainingError

EVERY_POOLING = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def open_model(folder: Path, device: str, *, attention_dropout: float = 0.0) -> Any:
    """Load a decoder-only checkpoint for training, in float32; TrainingError where there is none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if (folder / "adapter_config.json").is_file():
        raise TrainingError(f"{folder} is a PEFT adapter: merge it into its base model first")
    if not (folder / "config.json").is_file():
        raise TrainingError(f"no checkpoint in {folder}: it needs config.json and weights; nothing is fetched")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.is_encoder_decoder:
            raise TrainingError(f"{folder} is an encoder-decoder model; LLM2Vec takes decoder-only ones")
        if hasattr(config.get_text_config(), "attention_dropout"):
            config.get_text_config().attention_dropout = attention_dropout
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(f"transformers cannot load {folder}: {error}") from error
    return model.to(torch.device(device))  # type: ignore[arg-type]  # its decorator hides the signature


def open_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def make_bidirectional(model: Any) -> None:
    """Step 1: let every token see what stands after it too."""
    model.config.get_text_config().is_causal = False
    model.config.is_causal = False


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a whole checkpoint, dropout off; a crash leaves no half of one."""
    if hasattr(model.config.get_text_config(), "attention_dropout"):
        model.config.get_text_config().attention_dropout = 0.0
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    with no_progress_bars():
        model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def export(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    pooling: Pooling,
    max_tokens: int,
    dtype: torch.dtype,
    instruction: str = "",
    dense: Dense | None = None,
) -> None:
    """Write a SentenceTransformer folder without the output head, and open it: EncoderError if it stayed causal.

    dense: what maps the pooled vectors, if anything does.
    """
    model.config.get_text_config().use_cache = False
    folder.mkdir(parents=True, exist_ok=True)
    with no_progress_bars():
        model.base_model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    of = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{of}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{of}.Pooling"},
    ]
    if dense:
        modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": f"{of}.Dense"})
        dense.save(folder / "2_Dense")
    width = model.config.get_text_config().hidden_size
    modes = {f"pooling_mode_{name}": POOLING_NAMES.get(name) == pooling for name in EVERY_POOLING}
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    how = {"word_embedding_dimension": width, **modes, "include_prompt": not instruction}
    _write(folder / "1_Pooling" / "config.json", how)
    prompts = {"query": instruction} if instruction else {}
    default = "query" if instruction else None
    of_all = {"similarity_fn_name": "cosine", "prompts": prompts, "default_prompt_name": default}
    _write(folder / "config_sentence_transformers.json", of_all)
    Llm2VecEncoder.load(folder, max_tokens=max_tokens)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
