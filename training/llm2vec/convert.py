"""The recipe for any decoder-only LLM: bidirectional attention, MNTP, SimCSE, and crops, pairs, outcomes if asked for.

The defaults are LLM2Vec's (arXiv 2404.05961, appendix D).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from router.encoder.checkpoint import Pooling
from training.errors import TrainingError
from training.learned_outcomes import read_learned, save_learned
from training.llm2vec.batches import Batches, Size
from training.llm2vec.checkpoint_folders import export, open_model, open_tokenizer
from training.llm2vec.corpus import Corpus, digest_of, documentation, generated_questions, read_texts
from training.llm2vec.crops import Crops
from training.llm2vec.loop import SAVE_EVERY_S, OnStage, Schedule, no_bars
from training.llm2vec.objectives import Mntp, SimCse
from training.llm2vec.outcomes import Answered, outcome_stage
from training.llm2vec.pairs import Contrast, Pair
from training.llm2vec.ranks import ALONE, Ranks
from training.llm2vec.stages import Evaluation, Run, Stage
from training.llm2vec.tokenizer import mask_token_of, pad_token_of, prefix_of, tokenize

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Settings:
    """LLM2Vec's settings; lora_rank 0 trains all weights."""

    pooling: Pooling = "mean"
    instruction: str = ""  # before every prompt in use, left out of the pooling
    max_tokens: int = 512  # the encoder's limit in use
    masked: float = 0.2
    all_masked: bool = False
    mntp_steps: int = 1_000
    mntp_rows: int = 32
    mntp_tokens: int = 512
    mntp_rate: float = 5e-5
    simcse_steps: int = 1_000
    simcse_rows: int = 128
    simcse_tokens: int = 128
    simcse_rate: float = 3e-5
    simcse_dropout: float = 0.3
    crop_steps: int = 0
    crop_rows: int = 64
    crop_tokens: int = 64  # of a crop
    crop_rate: float = 2e-4
    pair_steps: int = 1_000
    pair_rows: int = 64
    pair_rate: float = 2e-4
    outcome_steps: int = 1_000
    outcome_rows: int = 64
    outcome_tokens: int = 128
    outcome_rate: float = 2e-4
    lora_rank: int = 16
    dtype: str = "bfloat16"
    seed: int = 0


def convert(
    base: Path,
    out: Path,
    *,
    texts: Sequence[Path] = (),
    pairs: Sequence[Pair] = (),
    answered: Answered | None = None,
    settings: Settings | None = None,
    device: str = "cpu",
    on_stage: OnStage = no_bars,
    save_every_s: float = SAVE_EVERY_S,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Make the checkpoint at `base` an encoder in `out`; its figures, also written to out/training.json.

    texts: what to learn from, long-format folders or text files; none takes generated questions and documentation.
    answered: questions whose outcomes it learns from at last, if any; out/learned_outcomes.json lists them, and no
    forecaster is fitted on them. ranks: several processes give the same arguments, and each step reads as many batches.
    Run again after an interrupt, it goes on where it stood.
    """
    settings = settings or Settings()
    work = out / "work"
    tokenizer = open_tokenizer(base)
    sources = [read_texts(path) for path in texts] or [generated_questions(3_000), *documentation(4_000_000)]
    corpus = Corpus.of(sources)
    _require_same(work / "settings.json", base, settings, corpus, pairs, answered, ranks)
    stages = _stages(tokenizer, tokenize(tokenizer, corpus.texts), pairs, answered, settings)
    masking = Mntp(mask_token_of(tokenizer), settings.masked, settings.all_masked)
    evaluation = Evaluation(corpus.held_out, masking, settings.pooling, settings.max_tokens, pad_token_of(tokenizer))
    run = Run(work, tokenizer, evaluation, device, settings.seed, on_stage, save_every_s, ranks)
    last = run.stages(base, stages)
    if ranks.is_first:
        model = open_model(last, "cpu")
        learned = read_learned(base) | (answered.hashes if answered else frozenset())
        for folder in (last, out):
            save_learned(folder, learned)
        export(
            model,
            tokenizer,
            out,
            pooling=settings.pooling,
            max_tokens=settings.max_tokens,
            dtype=DTYPES[settings.dtype],
            instruction=settings.instruction,
        )
        n_answered = len(answered.prompts) if answered else 0
        figures = {"settings": vars(settings), "n_questions_with_outcomes": n_answered, "stages": run.figures(stages)}
        (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    ranks.wait()
    written: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return written


def _stages(
    tokenizer: Any,
    sequences: list[list[int]],
    pairs: Sequence[Pair],
    answered: Answered | None,
    settings: Settings,
) -> list[Stage]:
    s = settings
    pad = pad_token_of(tokenizer)

    def batches(rows: Sequence[Sequence[int]], n_tokens: int, n_rows: int, stage: int) -> Batches:
        size = Size(n_tokens * n_rows, n_rows)
        return Batches(rows, max_tokens=n_tokens, size=size, seed=s.seed * 10 + stage, pad=pad)

    masking = Mntp(mask_token_of(tokenizer), s.masked, s.all_masked)
    masked = batches(sequences, s.mntp_tokens, s.mntp_rows, 1)
    stages = [
        Stage("bidirectional", masking, masked, Schedule(0, s.mntp_rate)),
        Stage("mntp", masking, masked, Schedule(s.mntp_steps, s.mntp_rate), lora_rank=s.lora_rank),
        Stage(
            "simcse",
            SimCse(pooling=s.pooling),
            batches(sequences, s.simcse_tokens, s.simcse_rows, 2),
            Schedule(s.simcse_steps, s.simcse_rate),
            attention_dropout=s.simcse_dropout,
            lora_rank=s.lora_rank,
        ),
    ]
    if s.crop_steps:
        stages.append(
            Stage(
                "crops",
                Crops(pad, prefix_of(tokenizer), max_tokens=s.crop_tokens, pooling=s.pooling),
                batches(sequences, s.simcse_tokens, s.crop_rows, 5),
                Schedule(s.crop_steps, s.crop_rate, n_warmup=min(300, s.crop_steps // 3)),
                lora_rank=s.lora_rank,
            )
        )
    if pairs:
        anchors = tokenizer([pair.anchor for pair in pairs], verbose=False)["input_ids"]
        positives = tokenizer([pair.positive for pair in pairs], verbose=False)["input_ids"]
        if not all(anchors) or not all(positives):
            raise TrainingError("a pair holds an empty text")
        stages.append(
            Stage(
                "pairs",
                Contrast(positives, pad, s.max_tokens, s.pooling),
                batches(anchors, s.max_tokens, s.pair_rows, 3),
                Schedule(s.pair_steps, s.pair_rate, n_warmup=min(300, s.pair_steps // 3)),
                lora_rank=s.lora_rank,
            )
        )
    if answered:
        schedule = Schedule(s.outcome_steps, s.outcome_rate, n_warmup=min(300, s.outcome_steps // 3))
        stages.append(
            outcome_stage(
                answered,
                tokenizer,
                schedule,
                Size(s.outcome_tokens * s.outcome_rows, s.outcome_rows),
                max_tokens=s.outcome_tokens,
                seed=s.seed * 10 + 4,
                pooling=s.pooling,
                lora_rank=s.lora_rank,
            )
        )
    return stages


def _require_same(
    path: Path,
    base: Path,
    settings: Settings,
    corpus: Corpus,
    pairs: Sequence[Pair],
    answered: Answered | None,
    ranks: Ranks,
) -> None:
    """Refuse to go on with a run that was begun otherwise."""
    of = {
        "base": str(base.resolve()),
        "texts": digest_of(corpus.texts),
        "pairs": digest_of(text for pair in pairs for text in (pair.anchor, pair.positive)),
        "n_processes": ranks.size,
        "outcomes": answered.fingerprint() if answered else None,
    }
    now = json.dumps({**of, **vars(settings)}, indent=2)
    if ranks.is_first and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(now, encoding="utf-8")
    ranks.wait()
    if path.read_text(encoding="utf-8") != now:
        raise TrainingError(
            f"{path.parent} was begun with another base, other texts or other settings: remove it, or say the same"
        )
