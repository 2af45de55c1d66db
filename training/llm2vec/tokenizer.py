"""Tokenizers: one of our own, byte-level BPE trained on the corpus, and the mask token that MNTP needs of any."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from training.errors import TrainingError

VOCABULARY = 8_192
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
BLANK = "_"  # what LLM2Vec masks with where a tokenizer has no mask token


def train_tokenizer(texts: Sequence[str], n_tokens: int = VOCABULARY) -> Any:
    """Train byte-level BPE on texts: every text has tokens, every digit is its own."""
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bos = SPECIAL["bos_token"]
    bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **SPECIAL)  # type: ignore[no-untyped-call]


def mask_token_of(tokenizer: Any) -> int:
    """Which token hides another: the tokenizer's own mask token, or the blank, as in LLM2Vec."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    found = tokenizer.get_vocab().get(BLANK)
    if found is None:
        raise TrainingError(f"the tokenizer has neither a mask token nor {BLANK!r}: add one to its special tokens")
    return int(found)


def pad_token_of(tokenizer: Any) -> int:
    """What pads a batch; it is masked, so that any token does."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def prefix_of(tokenizer: Any) -> tuple[int, ...]:
    """What stands before every text: the token of its beginning, where the tokenizer puts one."""
    first = tokenizer("a")["input_ids"][0]
    return (first,) if first == tokenizer.bos_token_id else ()


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text that has at least two."""
    rows = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    return [row for row in rows if len(row) > 1]
