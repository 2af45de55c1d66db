"""A Llama of random weights, small enough to write and load in a test."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

N_TOKENS = 400


def tiny_llama(**changed: Any) -> Any:
    """A causal one, the same every time, with settings of its configuration changed."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": N_TOKENS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
    }
    config = AutoConfig.for_model("llama", **{**sizes, **changed})
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
