"""LoRA through peft: small matrices beside the attention's and the feed-forward's, merged into them at the end."""

from typing import Any

from training.errors import TrainingError

RANK, ALPHA, DROPOUT = 16, 32, 0.05  # LLM2Vec's
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_lora(model: Any, rank: int = RANK) -> Any:
    """Freeze a model and add trainable low-rank matrices, in place; TrainingError without peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise TrainingError("LoRA needs peft: pip install 'embedrouter[llm2vec]', or say --full") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=DROPOUT, target_modules=TARGETS)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return inject_adapter_in_model(config, model)


def merge_lora(model: Any) -> Any:
    """Fold the low-rank matrices into the weights they stand beside; the plain model, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    model.__dict__.pop("peft_config", None)
    return model
